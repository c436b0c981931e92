// What comes along with a small read of a v5 image, worked out by hand. Source: blob-and-cache.md 18.8.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { makeImage, sampleData, type MadeImage } from '../../test/conformance/make-image.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { newChunkRef, type ChunkRef, type RafsImage } from '../format/image.ts';
import { amplify5 } from './amplify.ts';
import { openBootstrap } from './open.ts';
import { findChunk } from './read-plan.ts';
import { resolvePath } from './path.ts';

const CHUNK = 0x10000;

interface Opened {
  made: MadeImage;
  image: RafsImage;
  /** chunk indexes that a read brings along */
  along(path: string, offset: number, size: number, batch: number): number[];
}

/** Files `a`: chunks 0-4, `b`: 5, `c`: 6, `d`: empty, `e`: 7-36, `f`: 37. */
function open(t: TestContext): Opened {
  const made = makeImage(
    tempDir(t),
    [
      { name: 'a', data: sampleData(4 * CHUNK + 10, 1) },
      { name: 'b', data: sampleData(100, 2) },
      { name: 'c', data: sampleData(CHUNK, 3) },
      { name: 'd', data: new Uint8Array(0) },
      { name: 'e', data: sampleData(30 * CHUNK, 4) },
      { name: 'f', data: sampleData(500, 5) },
    ],
    { version: 5, compressor: 'none' },
  );
  const { image, close } = openBootstrap(made.bootstrap);
  t.after(close);
  const stored = (ref: ChunkRef): { start: number; end: number } => {
    const { offset = 0, size = 0 } = made.chunks[ref.chunkIndex] ?? {};
    return { start: offset, end: offset + size };
  };
  return {
    made,
    image,
    along: (path, offset, size, batch) => {
      const ino = resolvePath(image, path);
      const last = newChunkRef();
      findChunk(image, ino, image.chunkCount(ino), offset + size - 1, last);
      const place = { blobIndex: 0, end: stored(last).end };
      return amplify5(image, ino, offset, size, batch, place, stored).map(({ chunkIndex }) => chunkIndex);
    },
  };
}

test('amplify5: the rest of the file, then the files that follow, while the window has room', (t) => {
  const { along } = open(t);
  // 1 MiB less the one chunk that is read: the rest of a, b, c, then whole chunks of e
  const window = 16 * CHUNK - CHUNK - (3 * CHUNK + 10) - 100 - CHUNK;
  const ofE = Math.floor(window / CHUNK);
  assert.equal(ofE, 10);
  assert.deepEqual(
    along('/a', 0, 4096, 16 * CHUNK),
    [1, 2, 3, 4, 5, 6].concat(Array.from({ length: ofE }, (_, i) => 7 + i)),
  );
});

test('amplify5: a window that ends inside the file takes the chunks it overlaps', (t) => {
  const { along } = open(t);
  assert.deepEqual(along('/a', 0, 4096, 3 * CHUNK), [1, 2]);
  assert.deepEqual(along('/a', 0, 4096, 3 * CHUNK + 1), [1, 2, 3]);
  assert.deepEqual(along('/e', 5 * CHUNK, 4096, 2 * CHUNK), [13]);
});

test('amplify5: the chunk that is read counts from its start to its end', (t) => {
  const { along } = open(t);
  // from the middle of chunk 1 to the middle of chunk 2: two chunks of the window are used
  assert.deepEqual(along('/a', CHUNK + 100, CHUNK, 3 * CHUNK), [3]);
  assert.deepEqual(along('/a', CHUNK + 100, CHUNK, 2 * CHUNK), []);
});

test('amplify5: nothing for batch size 0, and nothing for reads as large as the window', (t) => {
  const { along } = open(t);
  assert.deepEqual(along('/a', 0, 4096, 0), []);
  assert.deepEqual(along('/a', 0, 4096, 4096), []);
  assert.deepEqual(along('/a', 0, 2 * CHUNK, 2 * CHUNK), []);
});

test('amplify5: the window is at most what fits in a FUSE reply', (t) => {
  const { along } = open(t);
  // 1 MiB + 4096 - 16: 16 chunks with the one that is read, and not one more however large the batch
  assert.deepEqual(
    along('/e', 0, 4096, 64 << 20),
    Array.from({ length: 16 }, (_, i) => 8 + i),
  );
});

test('amplify5: the last file of the image brings nothing', (t) => {
  const { along } = open(t);
  assert.deepEqual(along('/f', 0, 500, 16 * CHUNK), []);
});

test('amplify5: chunks that are stored too far away, or in front, are left out', (t) => {
  const { image, made } = open(t);
  const ino = resolvePath(image, '/b');
  const size = made.chunks[5]?.size ?? 0;
  const far =
    (distance: number) =>
    ({ chunkIndex }: ChunkRef): { start: number; end: number } => ({
      start: 1000 + size + distance * (chunkIndex - 5),
      end: 1000 + size + distance * (chunkIndex - 5),
    });
  const gap = (4 * CHUNK) / 128;
  const along = (distance: number): number[] =>
    amplify5(image, ino, 0, 100, 4 * CHUNK, { blobIndex: 0, end: 1000 + size }, far(distance)).map(
      ({ chunkIndex }) => chunkIndex,
    );
  assert.deepEqual(along(gap).slice(0, 2), [6, 7]);
  assert.deepEqual(along(gap + 1), []);
  assert.deepEqual(along(-1), []);
});

test('amplify5: chunks of other blobs are left out', (t) => {
  const { image } = open(t);
  const ino = resolvePath(image, '/a');
  const stored = (): { start: number; end: number } => ({ start: 0, end: 0 });
  assert.deepEqual(amplify5(image, ino, 0, 10, 16 * CHUNK, { blobIndex: 1, end: 0 }, stored), []);
});
