import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ChunkTable } from './chunk-table.ts';
import { extendRange, mergeChunks, rangeOf } from './fetch-plan.ts';

/** Chunks of `size` stored bytes each, back to back; `batches` gives the batch of each chunk instead. */
function table(sizes: number[], batches: (number | undefined)[] = []): ChunkTable {
  const starts: number[] = [];
  let at = 0;
  sizes.forEach((size, index) => {
    const same = batches[index] !== undefined && batches[index] === batches[index - 1];
    if (same) starts.push(starts[index - 1] ?? 0);
    else {
      starts.push(at);
      at += size;
    }
  });
  return {
    count: sizes.length,
    storedOffset: (index) => starts[index] ?? 0,
    storedSize: (index) => sizes[index] ?? 0,
    unitSize: () => 4096,
    offsetInUnit: () => 0,
    isCompressed: () => true,
    isBatched: (index) => batches[index] !== undefined,
    plainOffset: (index) => index * 4096,
    plainSize: () => 4096,
    digest: () => undefined,
    crc: () => -1,
  };
}

test('mergeChunks: neighbours share a request until it is large enough', () => {
  const chunks = table([100, 100, 100, 100, 100]);
  assert.deepEqual(
    mergeChunks(chunks, [0, 1, 2, 3, 4], 250).map(({ chunks: list, start, end }) => [list, start, end]),
    [
      [[0, 1, 2], 0, 300],
      [[3, 4], 300, 500],
    ],
  );
});

test('mergeChunks: a gap up to a 128th of the batch is bridged, going back is not', () => {
  const chunks = table([1000, 10, 1000, 20, 1000]);
  assert.deepEqual(
    mergeChunks(chunks, [0, 2], 1280 * 2).map((range) => range.chunks),
    [[0, 2]],
  );
  assert.deepEqual(
    mergeChunks(chunks, [0, 2], 1279).map((range) => range.chunks),
    [[0], [2]],
  );
  assert.deepEqual(
    mergeChunks(chunks, [2, 0], 100_000).map((range) => range.chunks),
    [[2], [0]],
  );
});

test('extendRange: takes what ends inside the batch, drops what is not missing', () => {
  const chunks = table([100, 100, 100, 100, 100]);
  const extend = (wanted: number[], batch: number, ready: number[] = []): number[] =>
    extendRange(chunks, rangeOf(chunks, wanted), batch, (index) => !ready.includes(index)).chunks;
  assert.deepEqual(extend([0], 300), [0, 1, 2]);
  assert.deepEqual(extend([0], 299), [0, 1]);
  assert.deepEqual(extend([1], 1000), [1, 2, 3, 4]);
  assert.deepEqual(extend([0], 50), [0], 'a wanted chunk is taken whatever its size');
  assert.deepEqual(extend([0], 1000, [2, 4]), [0, 1, 3]);
  assert.deepEqual(extend([0, 3], 150), [0, 1, 2, 3], 'what lies between is fetched in any case');
  assert.deepEqual(extend([0, 3], 150, [1]), [0, 2, 3]);
});

test('extendRange: a batch comes whole, and the next one only when it fits', () => {
  const chunks = table([100, 100, 100, 80, 80, 50], [1, 1, 1, 2, 2, undefined]);
  const extend = (wanted: number[], batch: number): ReturnType<typeof rangeOf> =>
    extendRange(chunks, rangeOf(chunks, wanted), batch, () => true);
  assert.deepEqual(extend([1], 100), { chunks: [0, 1, 2], start: 0, end: 100 });
  assert.deepEqual(extend([1], 179), { chunks: [0, 1, 2], start: 0, end: 100 });
  assert.deepEqual(extend([1], 180), { chunks: [0, 1, 2, 3, 4], start: 0, end: 180 });
  assert.deepEqual(extend([2], 230), { chunks: [0, 1, 2, 3, 4, 5], start: 0, end: 230 });
});
