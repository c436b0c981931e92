// Encodes compression information: entries of both versions, batch contexts, header. Source: blob-and-cache.md 4, 8.2.
import { FormatError } from '../../base/errors.ts';
import { MAX_BLOB_COMPRESSED, MAX_BLOB_UNCOMPRESSED } from '../../base/limits.ts';
import { CI_MAGIC, CiFlag, batchContext, ciEntryV1, ciEntryV2, ciHeader, type CiHeader } from './layout.ts';

const BLOCK = 4096;
const TWO_32 = 0x1_0000_0000;
const MAX_SIZE = 0x100_0000;

/** One chunk as a version 1 entry holds it. It is compressed when the sizes differ. */
export interface CiChunkV1 {
  /** multiple of 4096 */
  uncompressedOffset: number;
  /** 1 to 2^24 */
  uncompressedSize: number;
  compressedOffset: number;
  /** 1 to 2^24 */
  compressedSize: number;
}

/** One chunk as a version 2 entry holds it. */
export interface CiChunkV2 extends Omit<CiChunkV1, 'compressedSize'> {
  /** 0 for a batched chunk, else 1 to 2^24 - 1 */
  compressedSize: number;
  compressed: boolean;
  /** place in a batch; excludes a CRC */
  batch?: { context: number; offset: number };
  /** CRC-32C of the uncompressed data; 0 and undefined are not stored */
  crc32?: number;
}

/** Facts of the header; the rest of it is constant. */
export type CiHeaderValues = Omit<CiHeader, 'magic' | 'magic2' | 'reserved'>;

function check(field: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new FormatError(
      { struct: 'ciEntry', field },
      `cannot store ${value}, expected ${least} to ${most}`,
    );
  }
}

function checkPlace(chunk: Omit<CiChunkV1, 'compressedSize'>): void {
  check('uncompressedOffset', chunk.uncompressedOffset, 0, MAX_BLOB_UNCOMPRESSED - 1);
  if (chunk.uncompressedOffset % BLOCK !== 0) {
    throw new FormatError(
      { struct: 'ciEntry', field: 'uncompressedOffset' },
      `${chunk.uncompressedOffset} is not a multiple of ${BLOCK}`,
    );
  }
  check('uncompressedSize', chunk.uncompressedSize, 1, MAX_SIZE);
  check('compressedOffset', chunk.compressedOffset, 0, MAX_BLOB_COMPRESSED - 1);
}

/**
 * Write a version 1 entry at byte `base`.
 *
 * @throws FormatError a value does not fit
 */
export function putCiEntryV1(view: DataView, base: number, chunk: CiChunkV1): void {
  checkPlace(chunk);
  check('compressedSize', chunk.compressedSize, 1, MAX_SIZE);
  const size = chunk.uncompressedSize - 1;
  const stored = chunk.compressedSize - 1;
  const low = chunk.uncompressedOffset % TWO_32;
  const high = Math.floor(chunk.uncompressedOffset / TWO_32);
  ciEntryV1.put.uncompressedLow(view, base, (low | ((size >>> 20) << 8)) >>> 0);
  ciEntryV1.put.uncompressedHigh(view, base, ((size << 12) | high) >>> 0);
  ciEntryV1.put.compressedLow(view, base, chunk.compressedOffset % TWO_32);
  const storedHigh = (stored << 12) | ((stored >>> 20) << 8) | Math.floor(chunk.compressedOffset / TWO_32);
  ciEntryV1.put.compressedHigh(view, base, storedHigh >>> 0);
}

/**
 * Write a version 2 entry at byte `base`.
 *
 * @throws FormatError a value does not fit
 */
export function putCiEntryV2(view: DataView, base: number, chunk: CiChunkV2): void {
  checkPlace(chunk);
  check('compressedSize', chunk.compressedSize, chunk.batch === undefined ? 1 : 0, MAX_SIZE - 1);
  const crc = chunk.batch === undefined ? (chunk.crc32 ?? 0) : 0;
  let flags = chunk.compressed ? CiFlag.compressed : 0;
  if (chunk.batch !== undefined) flags |= CiFlag.batch;
  // readers refuse a CRC of 0 that has the flag
  if (crc !== 0) flags |= CiFlag.hasCrc32;
  ciEntryV2.put.uncompressedBlock(view, base, chunk.uncompressedOffset / BLOCK);
  ciEntryV2.put.uncompressedSizeFlags(view, base, ((flags << 24) | (chunk.uncompressedSize - 1)) >>> 0);
  ciEntryV2.put.compressedOffsetLow(view, base, chunk.compressedOffset % TWO_32);
  ciEntryV2.put.compressedSizeOffset(
    view,
    base,
    ((chunk.compressedSize << 8) | Math.floor(chunk.compressedOffset / TWO_32)) >>> 0,
  );
  ciEntryV2.put.dataLow(view, base, chunk.batch === undefined ? crc : chunk.batch.offset);
  ciEntryV2.put.dataHigh(view, base, chunk.batch?.context ?? 0);
}

/** A version 1 entry as 16 bytes. */
export function encodeCiEntryV1(chunk: CiChunkV1): Buffer {
  const bytes = Buffer.alloc(ciEntryV1.size);
  putCiEntryV1(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, chunk);
  return bytes;
}

/** A version 2 entry as 24 bytes. */
export function encodeCiEntryV2(chunk: CiChunkV2): Buffer {
  const bytes = Buffer.alloc(ciEntryV2.size);
  putCiEntryV2(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, chunk);
  return bytes;
}

/** A batch context as 40 bytes. */
export function encodeBatchContext(batch: { compressedSize: number; uncompressedSize: number }): Buffer {
  return batchContext.encode(batch);
}

/** The header as 4096 bytes. */
export function encodeCiHeader(values: CiHeaderValues): Buffer {
  return ciHeader.encode({ ...values, magic: CI_MAGIC, magic2: CI_MAGIC });
}
