import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RafsImage } from '../format/image.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import { BlobRanges } from './blob-ranges.ts';

/** A table of chunks at these places; nothing else of it is asked for. */
function tableOf(chunks: readonly (readonly [offset: number, size: number])[]): ChunkTable {
  return {
    count: chunks.length,
    plainOffset: (index: number) => chunks[index]?.[0] ?? 0,
    plainSize: (index: number) => chunks[index]?.[1] ?? 0,
  } as ChunkTable;
}

const noRecords = { bytes: new Uint8Array(0), chunkRecordOffset: () => 0 } as unknown as RafsImage;

test('BlobRanges.covering: chunks in the order of their addresses, up to the end of a last block', () => {
  // chunk 1 comes first; its 5000 bytes fill two blocks; then a gap of one block
  const ranges = BlobRanges.build(
    tableOf([
      [8192, 4096],
      [0, 5000],
      [16384, 100],
    ]),
    noRecords,
    0,
  );
  assert.deepEqual(ranges.covering(0, 12288), [1, 0]);
  assert.deepEqual(ranges.covering(4096, 4096), [1]);
  assert.deepEqual(ranges.covering(16384, 4096), [2]);
  assert.equal(ranges.covering(8192, 8192), undefined);
  assert.equal(ranges.covering(20480, 4096), undefined);
});

test('BlobRanges.isReady: every chunk of the range must be there, in memory that threads share', () => {
  const built = BlobRanges.build(
    tableOf([
      [0, 4096],
      [4096, 4096],
    ]),
    noRecords,
    0,
  );
  const ranges = new BlobRanges(built.memory);
  const ready = new Uint8Array(new SharedArrayBuffer(8));
  ready[0] = 0x80;
  assert.equal(ranges.isReady(0, 4096, ready), true);
  assert.equal(ranges.isReady(0, 4097, ready), false);
  ready[0] = 0xc0;
  assert.equal(ranges.isReady(0, 8192, ready), true);
  assert.equal(ranges.isReady(4096, 8192, ready), false);
});

test('BlobRanges.build: chunks that overlap, or lie elsewhere than the bootstrap says, are refused', () => {
  assert.throws(
    () =>
      BlobRanges.build(
        tableOf([
          [0, 5000],
          [4096, 10],
        ]),
        noRecords,
        3,
      ),
    /chunk 1 of blob 3 starts at 4096, the one before it ends at 8192/,
  );
  const record = Buffer.alloc(128);
  const elsewhere = { bytes: record, chunkRecordOffset: () => 16 } as unknown as RafsImage;
  assert.throws(
    () => BlobRanges.build(tableOf([[4096, 10]]), elsewhere, 0),
    /chunk 0 of blob 0 is 10 bytes at 4096, the bootstrap says 0 at 0/,
  );
});
