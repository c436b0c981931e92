// Reads of what is local: exact bytes across chunks and blobs, MISS for everything else, counted.
import assert from 'node:assert/strict';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { makeImage, sampleData } from '../../test/conformance/make-image.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { newCounters, sumChunkReads, type InstanceShare } from '../storage/cache/blob-share.ts';
import { newReadyBits } from '../storage/cache/chunk-map.ts';
import { FormatError } from '../base/errors.ts';
import { LocalReader, MISS } from './local-reader.ts';
import { openBootstrap } from './open.ts';
import { resolvePath } from './path.ts';

const CHUNK = 0x10000;
const big = sampleData(3 * CHUNK + 1000, 1);
const small = sampleData(77, 2);

interface Local {
  reader: LocalReader;
  share: InstanceShare;
  ready: Uint8Array;
  ino(path: string): number;
}

/** An image whose chunks are all in a data file; the test says which of them count as ready. */
function openLocal(t: TestContext, version: 5 | 6): Local {
  const dir = tempDir(t);
  const made = makeImage(
    dir,
    [
      { name: 'big', data: big },
      { name: 'empty', data: new Uint8Array(0) },
      { name: 'small', data: small },
    ],
    { version, compressor: 'none' },
  );
  const last = made.chunks.at(-1);
  const data = Buffer.alloc((last?.plainOffset ?? 0) + (last?.plainSize ?? 0));
  made.chunks.forEach(({ plainOffset, plainSize }, index) => {
    const source = index < 4 ? big.subarray(index * CHUNK) : small;
    data.set(source.subarray(0, plainSize), plainOffset);
  });
  const path = join(dir, 'data');
  writeFileSync(path, data);
  const dataFd = openSync(path, 'r');
  t.after(() => closeSync(dataFd));
  const ready = newReadyBits(made.chunks.length);
  const share: InstanceShare = {
    bootstrapPath: made.bootstrap,
    blobs: [
      {
        dataFd,
        ready: ready.buffer as SharedArrayBuffer,
        touched: new SharedArrayBuffer(8),
        epoch: new SharedArrayBuffer(4),
        chunkCount: made.chunks.length,
      },
    ],
    counters: newCounters(),
    positions: new SharedArrayBuffer(4),
  };
  const { image, close } = openBootstrap(made.bootstrap);
  t.after(close);
  return { reader: new LocalReader(share, image), share, ready, ino: (name) => resolvePath(image, name) };
}

for (const version of [5, 6] as const) {
  test(`LocalReader v${version}: bytes across chunks, cut at the end of the file, nothing around them touched`, (t) => {
    const { reader, ready, ino } = openLocal(t, version);
    ready.fill(0xff);
    for (const [offset, size] of [
      [0, big.length],
      [0, 1],
      [CHUNK - 3, 7],
      [2 * CHUNK, CHUNK],
      [big.length - 5, 100],
      [CHUNK + 17, 2 * CHUNK],
    ] as const) {
      const target = Buffer.alloc(size + 20, 0xee);
      const expected = big.subarray(offset, offset + size);
      assert.equal(reader.read(ino('/big'), offset, size, target, 10), expected.length);
      assert.ok(target.subarray(10, 10 + expected.length).equals(expected), `${size} bytes at ${offset}`);
      assert.deepEqual(target.subarray(0, 10), Buffer.alloc(10, 0xee));
      assert.ok(target.subarray(10 + expected.length).every((byte) => byte === 0xee));
    }
  });

  test(`LocalReader v${version}: the end of a file and an empty file are 0 bytes`, (t) => {
    const { reader, ino } = openLocal(t, version);
    const target = Buffer.alloc(10);
    assert.equal(reader.read(ino('/big'), big.length, 10, target, 0), 0);
    assert.equal(reader.read(ino('/big'), big.length + 5000, 10, target, 0), 0);
    assert.equal(reader.read(ino('/empty'), 0, 10, target, 0), 0);
  });

  test(`LocalReader v${version}: MISS while a chunk of the range is not ready, the bytes once its bit is set`, (t) => {
    const { reader, ready, ino } = openLocal(t, version);
    const target = Buffer.alloc(CHUNK * 2);
    const read = (offset: number, size: number): number => reader.read(ino('/big'), offset, size, target, 0);
    assert.equal(read(0, 10), MISS);
    ready[0] = 0b1010_0000; // chunks 0 and 2
    assert.equal(read(CHUNK - 10, 10), 10);
    assert.equal(read(CHUNK - 10, 11), MISS);
    assert.equal(read(CHUNK, 1), MISS);
    assert.equal(read(2 * CHUNK, CHUNK), CHUNK);
    ready[0] = 0b1110_0000;
    assert.equal(read(CHUNK - 10, 20), 20);
    assert.ok(target.subarray(0, 20).equals(big.subarray(CHUNK - 10, CHUNK + 10)));
  });

  test(`LocalReader v${version}: MISS when there is no data file, or it cannot be read or is too short`, (t) => {
    const { share, ready, ino } = openLocal(t, version);
    ready.fill(0xff);
    const empty = join(tempDir(t), 'empty');
    writeFileSync(empty, Buffer.alloc(100));
    const fd = openSync(empty, 'r');
    t.after(() => closeSync(fd));
    for (const dataFd of [-1, fd]) {
      const blobs = share.blobs.map((blob) => ({ ...blob, dataFd }));
      const reader = new LocalReader({ ...share, blobs });
      assert.equal(reader.read(ino('/big'), 0, 200, Buffer.alloc(200), 0), MISS, `descriptor ${dataFd}`);
    }
  });

  test(`LocalReader v${version}: answered chunks are counted, misses are not; the position is the chunk read last`, (t) => {
    const { reader, share, ready, ino } = openLocal(t, version);
    const target = Buffer.alloc(4 * CHUNK);
    reader.read(ino('/big'), 0, 10, target, 0);
    assert.equal(sumChunkReads(share.counters), 0);
    ready.fill(0xff);
    reader.read(ino('/big'), 0, 3 * CHUNK, target, 0);
    assert.equal(sumChunkReads(share.counters), 3);
    assert.equal(new Int32Array(share.positions)[0], 2);
    const second = new LocalReader(share);
    second.read(ino('/small'), 0, 10, target, 0);
    assert.equal(sumChunkReads(share.counters), 4);
    assert.equal(new Int32Array(share.positions)[0], 4);
  });

  test(`LocalReader v${version}: a directory has no data`, (t) => {
    const { reader } = openLocal(t, version);
    assert.throws(() => reader.read(reader.image.rootIno, 0, 10, Buffer.alloc(10), 0), FormatError);
  });
}
