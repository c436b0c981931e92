import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError, UsageError } from '../../base/errors.ts';
import { viewOf } from '../../base/bytes.ts';
import { BlobFeature } from '../flags.ts';
import { CI_HEADER_SIZE, CiFlag, ciHeader } from './layout.ts';
import {
  chunkDataEnd,
  ciFileSize,
  ciHeaderProblem,
  CiTable,
  openCi,
  openCiFile,
  type CiBlob,
} from './reader.ts';
import { encodeBatchContext, encodeCiEntryV1, encodeCiEntryV2, encodeCiHeader } from './writer.ts';

/** Blob be7d77ee... of upstream: its header and entries (blob-and-cache 24.4). */
const ENTRIES = Buffer.from('00000000002022040000000000b02d010050000000704503dc12000000d0b900', 'hex');
const HEADER_HEAD = '0bb10bb1210000700000000002000000' + '7a2000000000000020000000000000002000000000000000';

const REAL: CiBlob = {
  id: 'be7d77ee',
  features: 0x7000_0021,
  chunkCount: 2,
  compressedSize: 14554,
  uncompressedSize: 36864,
  cipher: 0,
  ciCompressor: 'none',
  ciOffset: 8314,
  ciCompressedSize: 32,
  ciUncompressedSize: 32,
};

const realHeader = () =>
  encodeCiHeader({
    features: 0x7000_0021,
    ciCompressor: 0,
    ciEntries: 2,
    ciOffset: 8314,
    ciCompressedSize: 32,
    ciUncompressedSize: 32,
    ctxOffset: 0,
    ctxSize: 0,
    ctxCount: 0,
  });

const read = (bytes: Uint8Array) => ciHeader.read(viewOf(bytes), 0);

test('encodeCiHeader: bytes of a real header', () => {
  const bytes = realHeader();
  assert.equal(bytes.length, CI_HEADER_SIZE);
  assert.equal(bytes.toString('hex', 0, 40), HEADER_HEAD);
  assert.equal(bytes.toString('hex', 4092), '0bb10bb1');
});

test('CiTable: values of real version 1 entries', () => {
  const table = openCi(ENTRIES, read(realHeader()), REAL);
  const rows = [0, 1].map((i) => [
    table.uncompressedOffset(i),
    table.uncompressedSize(i),
    table.compressedOffset(i),
    table.compressedSize(i),
    table.isCompressed(i),
  ]);
  assert.deepEqual(rows, [
    [0, 16931, 0, 4828, true],
    [20480, 13400, 4828, 2974, true],
  ]);
  table.check(0);
  table.check(1);
  assert.equal(table.crc32(0), 0);
  assert.throws(() => table.compressedOffset(2), FormatError);
  assert.throws(() => table.compressedOffset(-1), FormatError);
});

test('encodeCiEntryV1: bytes of real entries', () => {
  const first = { uncompressedOffset: 0, uncompressedSize: 16931, compressedOffset: 0, compressedSize: 4828 };
  const second = {
    uncompressedOffset: 20480,
    uncompressedSize: 13400,
    compressedOffset: 4828,
    compressedSize: 2974,
  };
  const bytes = Buffer.concat([encodeCiEntryV1(first), encodeCiEntryV1(second)]);
  assert.equal(bytes.toString('hex'), ENTRIES.toString('hex'));
});

test('encodeCiEntryV1: the largest values survive a round trip', () => {
  const chunk = {
    uncompressedOffset: 2 ** 44 - 4096,
    uncompressedSize: 2 ** 24,
    compressedOffset: 2 ** 40 - 1,
    compressedSize: 2 ** 24 - 1,
  };
  const blob = { ...REAL, chunkCount: 1, ciCompressedSize: 16, ciUncompressedSize: 16 };
  const header = { ...read(realHeader()), ciEntries: 1, ciCompressedSize: 16, ciUncompressedSize: 16 };
  const table = openCi(encodeCiEntryV1(chunk), header, blob);
  assert.equal(table.uncompressedOffset(0), chunk.uncompressedOffset);
  assert.equal(table.uncompressedSize(0), chunk.uncompressedSize);
  assert.equal(table.compressedOffset(0), chunk.compressedOffset);
  assert.equal(table.compressedSize(0), chunk.compressedSize);
  assert.throws(() => table.check(0), /ciEntryV1/);
});

test('encodeCiEntryV1 and V2: refuse what does not fit', () => {
  const good = { uncompressedOffset: 0, uncompressedSize: 1, compressedOffset: 0, compressedSize: 1 };
  for (const wrong of [
    { uncompressedOffset: 1 },
    { uncompressedSize: 0 },
    { compressedSize: 2 ** 24 + 1 },
    { compressedOffset: 2 ** 40 },
  ]) {
    assert.throws(() => encodeCiEntryV1({ ...good, ...wrong }), FormatError, JSON.stringify(wrong));
  }
  assert.throws(() => encodeCiEntryV2({ ...good, compressed: false, compressedSize: 2 ** 24 }), FormatError);
  assert.throws(() => encodeCiEntryV2({ ...good, compressed: false, compressedSize: 0 }), FormatError);
});

/** A blob of three chunks: one alone, two in a batch of 30 plain bytes stored as 20. */
function batchBlob(): { blob: CiBlob; plain: Buffer; header: Buffer } {
  const features = BlobFeature.capTarToc | BlobFeature.aligned | BlobFeature.chunkInfoV2 | BlobFeature.batch;
  const batch = (offset: number) => ({ context: 0, offset });
  const plain = Buffer.concat([
    encodeCiEntryV2({
      uncompressedOffset: 0,
      uncompressedSize: 100,
      compressedOffset: 0,
      compressedSize: 50,
      compressed: true,
      crc32: 0xdead_beef,
    }),
    encodeCiEntryV2({
      uncompressedOffset: 4096,
      uncompressedSize: 10,
      compressedOffset: 50,
      compressedSize: 0,
      compressed: true,
      batch: batch(0),
    }),
    encodeCiEntryV2({
      uncompressedOffset: 8192,
      uncompressedSize: 20,
      compressedOffset: 50,
      compressedSize: 0,
      compressed: true,
      batch: batch(10),
    }),
    encodeBatchContext({ compressedSize: 20, uncompressedSize: 30 }),
  ]);
  const sizes = { ciOffset: 70, ciCompressedSize: plain.length, ciUncompressedSize: plain.length };
  const header = encodeCiHeader({
    features,
    ciCompressor: 0,
    ciEntries: 3,
    ...sizes,
    ctxOffset: 72,
    ctxSize: 40,
    ctxCount: 1,
  });
  const blob: CiBlob = {
    ...REAL,
    ...sizes,
    features,
    chunkCount: 3,
    compressedSize: 70 + plain.length + CI_HEADER_SIZE,
    uncompressedSize: 12288,
  };
  return { blob, plain, header };
}

test('CiTable: batched chunks have the stored range of their batch', () => {
  const { blob, plain, header } = batchBlob();
  const table = openCi(plain, read(header), blob);
  assert.equal(table.version, 2);
  assert.deepEqual(
    [0, 1, 2].map((i) => table.isBatch(i)),
    [false, true, true],
  );
  assert.deepEqual(
    [0, 1, 2].map((i) => table.compressedSize(i)),
    [50, 20, 20],
  );
  assert.deepEqual(
    [1, 2].map((i) => table.ownCompressedSize(i)),
    [0, 0],
  );
  assert.deepEqual(
    [1, 2].map((i) => table.batchOffset(i)),
    [0, 10],
  );
  assert.deepEqual(
    [0, 1, 2].map((i) => table.isCompressed(i)),
    [true, true, true],
  );
  assert.deepEqual(
    [0, 1, 2].map((i) => table.crc32(i)),
    [0xdead_beef, 0, 0],
  );
  for (let i = 0; i < 3; i++) table.check(i);
  // an address inside the batch gives its first chunk
  assert.deepEqual(
    [0, 49, 50, 69, 70].map((address) => table.findCompressed(address)),
    [0, 0, 1, 1, -1],
  );
  assert.deepEqual(
    [0, 99, 100, 4095, 4096, 8211, 8212].map((a) => table.findUncompressed(a)),
    [0, 0, -1, -1, 1, 2, -1],
  );
  assert.equal(table.findUncompressed(100, true), 1);
});

test('check: refuses entries that leave their batch, their blob, or have flags of another kind', () => {
  const { blob, plain, header } = batchBlob();
  const rows: [string, number, (bytes: Buffer) => void][] = [
    ['batch number', 1, (b) => b.writeUInt32LE(1, 24 + 20)],
    ['offset in the batch', 2, (b) => b.writeUInt32LE(11, 48 + 16)],
    ['stored past plain', 1, (b) => b.writeUInt32LE(31, 72)],
    ['plain batch too large', 1, (b) => b.writeUInt32LE(0x200_0000, 76)],
    ['stored range', 0, (b) => b.writeUInt32LE(71, 8)],
    ['plain range', 0, (b) => b.writeUInt32LE(3, 0)],
    ['zran flag', 0, (b) => b.writeUInt8(CiFlag.zran, 7)],
    ['encrypted flag', 0, (b) => b.writeUInt8(CiFlag.encrypted, 7)],
    ['raw with two sizes', 0, (b) => b.writeUInt8(0, 7)],
    ['CRC of 0', 0, (b) => b.writeUInt32LE(0, 16)],
    ['nothing stored', 0, (b) => b.writeUInt32LE(0, 12)],
  ];
  for (const [label, index, damage] of rows) {
    const bytes = Buffer.from(plain);
    damage(bytes);
    assert.throws(() => openCi(bytes, read(header), blob).check(index), FormatError, label);
  }
});

test('encodeCiEntryV2: a CRC of 0 is stored without its flag', () => {
  const bytes = encodeCiEntryV2({
    uncompressedOffset: 0,
    uncompressedSize: 1,
    compressedOffset: 0,
    compressedSize: 1,
    compressed: false,
    crc32: 0,
  });
  assert.equal(bytes.readUInt8(7), 0);
});

test('openCiFile: plain data, padding and header; a file that was never filled is not ready', () => {
  const { blob, plain, header } = batchBlob();
  const file = Buffer.alloc(ciFileSize(blob));
  assert.equal(file.length, 8192);
  assert.deepEqual(openCiFile(file, blob), { notReady: 'ciHeader.magic is 0x0' });
  file.set(plain);
  file.set(header, 4096);
  const table = openCiFile(file, blob);
  assert.ok(table instanceof CiTable);
  assert.equal(table.uncompressedSize(2), 20);
  assert.throws(() => openCiFile(file.subarray(1), blob), /has 8191 bytes, expected 8192/);
  file.writeUInt32LE(9, 4096 + 12);
  assert.deepEqual(openCiFile(file, blob), { notReady: 'ciHeader.ciEntries is 9, expected 3' });
});

test('ciHeaderProblem: names the field that differs; a senseless blob row is an error', () => {
  const header = read(realHeader());
  assert.equal(ciHeaderProblem(header, REAL), undefined);
  assert.equal(ciHeaderProblem({ ...header, ciOffset: 1 }, REAL), 'ciHeader.ciOffset is 1, expected 8314');
  assert.equal(
    ciHeaderProblem({ ...header, ciCompressor: 3 }, REAL),
    'ciHeader.ciCompressor is 3, expected 0',
  );
  assert.match(ciHeaderProblem({ ...header, magic2: 0 }, REAL) ?? '', /^ciHeader\.magic2/);
  assert.throws(() => ciHeaderProblem(header, { ...REAL, chunkCount: 0 }), FormatError);
  assert.throws(() => ciHeaderProblem(header, { ...REAL, ciUncompressedSize: 48 }), FormatError);
  assert.throws(
    () => ciHeaderProblem(header, { ...REAL, features: REAL.features | BlobFeature.zran }),
    UsageError,
  );
  assert.throws(() => ciHeaderProblem(header, { ...REAL, cipher: 1 }), UsageError);
});

test('chunkDataEnd: every row of the specification', () => {
  const { capTarToc, hasTarHeader, separate } = BlobFeature;
  const end = (features: number, ci = true) =>
    chunkDataEnd({ ...REAL, features, ...(ci ? {} : { ciCompressedSize: 0, ciUncompressedSize: 0 }) });
  assert.equal(end(separate | capTarToc), 14554);
  assert.equal(end(capTarToc), 8314);
  assert.equal(end(capTarToc | hasTarHeader), 7802);
  assert.equal(end(capTarToc, false), 14554);
  assert.equal(end(capTarToc | hasTarHeader, false), 14042);
  assert.equal(end(0), 14554);
});
