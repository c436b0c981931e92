import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ciHeader } from '../format/blobmeta/layout.ts';
import { viewOf } from '../base/bytes.ts';
import { ChunkFlag } from '../format/flags.ts';
import type { TreeChunk } from '../tree/node.ts';
import { CiBuilder } from './ci-builder.ts';

function chunk(more: Partial<TreeChunk>): TreeChunk {
  return {
    digest: Buffer.alloc(32),
    blobIndex: 0,
    flags: 0,
    compressedSize: 6,
    uncompressedSize: 6,
    compressedOffset: 0,
    uncompressedOffset: 0,
    fileOffset: 0,
    index: 0,
    crc32: 0,
    ...more,
  };
}

/** 64-bit words of some bytes, as hex. */
function words(bytes: Buffer): string[] {
  return Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readBigUInt64LE(i * 8).toString(16));
}

test('CiBuilder: the entry of the worked example (rafs-metadata 8.4)', () => {
  const ci = new CiBuilder(false);
  ci.add(chunk({}));
  assert.equal(ci.data().toString('hex'), '00000000005000000000000000500000');
  const header = ci.header(0x4000_0001, 0, 6, 16);
  assert.equal(header.length, 4096);
  const { magic, magic2, features, ciEntries, ciOffset, ciUncompressedSize, ctxOffset, ctxCount } =
    ciHeader.read(viewOf(header), 0);
  assert.deepEqual(
    [magic, magic2, features, ciEntries, ciOffset, ciUncompressedSize, ctxOffset, ctxCount],
    [0xb10b_b10b, 0xb10b_b10b, 0x4000_0001, 1, 6, 16, 0, 0],
  );
});

test('CiBuilder: entries keep their values beyond the first growth of the buffer', () => {
  const ci = new CiBuilder(false);
  for (let i = 0; i < 5000; i++) ci.add(chunk({ uncompressedOffset: i * 4096, compressedOffset: i * 6 }));
  const data = ci.data();
  assert.equal(data.length, 80_000);
  assert.deepEqual(words(data.subarray(4999 * 16)), [
    ((5n << 44n) | (4999n << 12n)).toString(16),
    ((5n << 44n) | (4999n * 6n)).toString(16),
  ]);
});

test('CiBuilder: batched chunks name their batch and their offset in it; contexts follow the entries', () => {
  const ci = new CiBuilder(true);
  ci.addBatched(chunk({ uncompressedSize: 10 }), 0, 0);
  ci.addBatched(chunk({ uncompressedSize: 20, uncompressedOffset: 4096 }), 0, 10);
  ci.closeBatch({ compressedSize: 25, uncompressedSize: 30 });
  ci.add(
    chunk({
      flags: ChunkFlag.compressed,
      compressedOffset: 25,
      compressedSize: 7,
      uncompressedSize: 4096,
      uncompressedOffset: 8192,
      crc32: 0x1234_5678,
    }),
  );
  ci.addBatched(chunk({ uncompressedSize: 1, uncompressedOffset: 12288 }), 32, 0);
  ci.closeBatch({ compressedSize: 1, uncompressedSize: 1 });
  const data = ci.data();
  assert.equal(data.length, 4 * 24 + 2 * 40);
  // second word of each entry: stored size (0 in a batch) and offset; third: batch context, offset in the batch
  const entries = words(data.subarray(0, 96));
  assert.deepEqual(
    [0, 1, 2, 3].map((i) => entries[3 * i + 1]),
    ['0', '0', ((7n << 40n) | 25n).toString(16), '20'],
  );
  assert.deepEqual([entries[2], entries[5], entries[11]], ['0', 'a', (1n << 32n).toString(16)]);
  assert.deepEqual(
    [0, 4, 40, 44].map((at) => data.readUInt32LE(96 + at)),
    [25, 30, 1, 1],
  );
  const header = ciHeader.read(viewOf(ci.header(1, 0, 0, 176)), 0);
  assert.deepEqual([header.ciEntries, header.ctxOffset, header.ctxSize, header.ctxCount], [4, 96, 80, 2]);
});
