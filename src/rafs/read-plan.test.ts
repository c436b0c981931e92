// From file ranges to chunks, with whole files, holes, small chunks and damaged order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../base/errors.ts';
import { newAttr, newChunkRef, type ChunkRef, type RafsImage } from '../format/image.ts';
import { findChunk, planRead } from './read-plan.ts';

const CHUNK = 4096;

/** An image with one file: chunks as [fileOffset, size], one after the other in the blob. */
function fileOf(places: readonly (readonly [number, number])[]): RafsImage {
  const image: Pick<RafsImage, 'super' | 'chunkCount' | 'chunk'> = {
    super: { chunkSize: CHUNK } as RafsImage['super'],
    chunkCount: () => places.length,
    chunk: (_ino, position, out) => {
      const [fileOffset, size] = places[position] ?? [0, 0];
      const before = places.slice(0, position).reduce((sum, place) => sum + place[1], 0);
      const ref: ChunkRef = {
        blobIndex: 0,
        chunkIndex: position,
        fileOffset,
        uncompressedSize: size,
        uncompressedOffset: before,
        recordOffset: 0,
      };
      Object.assign(out, ref);
    },
  };
  return image as RafsImage;
}

/** [chunk, from, size, at] of each piece. */
function plan(image: RafsImage, fileSize: number, offset: number, size: number): number[][] {
  return planRead(image, 1, fileSize, offset, size).map(({ ref, from, size: length, at }) => [
    ref.chunkIndex,
    from,
    length,
    at,
  ]);
}

const regular = fileOf([
  [0, 4096],
  [4096, 4096],
  [8192, 100],
]);
/** Chunks at 0 and 12288, nothing between them and nothing from 16000. */
const holes = fileOf([
  [0, 4096],
  [12288, 3712],
]);
/** Chunks smaller than the chunk size, as merged or batched images have them. */
const small = fileOf([
  [0, 10],
  [10, 20],
  [30, 1],
  [31, 500],
]);

test('planRead: pieces of whole and partial chunks in file order', () => {
  assert.deepEqual(plan(regular, 8292, 0, 8292), [
    [0, 0, 4096, 0],
    [1, 0, 4096, 4096],
    [2, 0, 100, 8192],
  ]);
  assert.deepEqual(plan(regular, 8292, 4000, 200), [
    [0, 4000, 96, 0],
    [1, 0, 104, 96],
  ]);
  assert.deepEqual(plan(regular, 8292, 4096, 1), [[1, 0, 1, 0]]);
});

test('planRead: what is wanted past the end of the file is dropped', () => {
  assert.deepEqual(plan(regular, 8292, 8191, 1_000_000), [
    [1, 4095, 1, 0],
    [2, 0, 100, 1],
  ]);
  assert.deepEqual(plan(regular, 8292, 8292, 10), []);
  assert.deepEqual(plan(regular, 8292, 9000, 10), []);
  assert.deepEqual(plan(regular, 8292, 0, 0), []);
  assert.deepEqual(plan(fileOf([]), 0, 0, 10), []);
});

test('planRead: no piece covers a hole', () => {
  assert.deepEqual(plan(holes, 20_000, 4000, 16_000), [
    [0, 4000, 96, 0],
    [1, 0, 3712, 8288],
  ]);
  assert.deepEqual(plan(holes, 20_000, 5000, 1000), []);
  assert.deepEqual(plan(holes, 20_000, 17_000, 3000), []);
  assert.deepEqual(plan(holes, 20_000, 12_000, 300), [[1, 0, 12, 288]]);
});

test('planRead: many chunks smaller than the chunk size', () => {
  assert.deepEqual(plan(small, 531, 5, 30), [
    [0, 5, 5, 0],
    [1, 0, 20, 5],
    [2, 0, 1, 25],
    [3, 0, 4, 26],
  ]);
  assert.deepEqual(plan(small, 531, 530, 9), [[3, 499, 1, 0]]);
});

test('planRead: a chunk that starts inside the one in front of it is refused', () => {
  const overlapping = fileOf([
    [0, 4096],
    [0, 4096],
  ]);
  assert.throws(
    () => planRead(overlapping, 7, 8192, 0, 8192),
    (error: unknown) => {
      assert.ok(error instanceof FormatError);
      assert.match(error.message, /chunk 1 of inode 7 starts before the one in front of it ends/);
      return true;
    },
  );
});

test('findChunk: the chunk that holds a byte, or the one behind the hole it lies in', () => {
  const at = (image: RafsImage, count: number, offset: number): [number, number] => {
    const ref = newChunkRef();
    return [findChunk(image, 1, count, offset, ref), ref.chunkIndex];
  };
  assert.deepEqual(at(regular, 3, 0), [0, 0]);
  assert.deepEqual(at(regular, 3, 8191), [1, 1]);
  assert.deepEqual(at(regular, 3, 8192), [2, 2]);
  assert.deepEqual(at(holes, 2, 5000), [1, 1]);
  assert.deepEqual(at(holes, 2, 12_300), [1, 1]);
  assert.equal(at(holes, 2, 17_000)[0], 2);
  for (const [offset, position] of [
    [9, 0],
    [10, 1],
    [29, 1],
    [30, 2],
    [31, 3],
  ] as const) {
    assert.deepEqual(at(small, 4, offset), [position, position]);
  }
});

test('newAttr, newChunkRef: fresh objects', () => {
  assert.notEqual(newAttr(), newAttr());
  assert.notEqual(newChunkRef(), newChunkRef());
  assert.ok(Object.values(newAttr()).every((value) => value === 0));
});
