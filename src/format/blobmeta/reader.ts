// Compression information (CI) of a blob, read in place: entries of both versions and batch contexts.
// Source of the bytes: the CI section of a blob, or a mapped `.blob.meta` file. Layout and rules: blob-and-cache.md 4, 8.2, 17.6.
import { FormatError, UsageError } from '../../base/errors.ts';
import { alignUp, viewOf } from '../../base/bytes.ts';
import { MAX_BATCH_PLAIN, MAX_CHUNKS_PER_BLOB } from '../../base/limits.ts';
import { COMPRESSORS } from '../../codec/algorithms.ts';
import { BlobFeature } from '../flags.ts';
import type { BlobInfo } from '../image.ts';
import {
  CI_HEADER_SIZE,
  CI_MAGIC,
  CiFlag,
  batchContext,
  ciEntryV1,
  ciEntryV2,
  ciHeader,
  type CiHeader,
} from './layout.ts';

const BLOCK = 4096;
const TWO_32 = 0x1_0000_0000;
/** Size of the tar header behind a section. */
const TRAILER = 512;
const v1 = ciEntryV1.field;
const v2 = ciEntryV2.field;

/** The part of a blob table row that the compression information is checked against. */
export type CiBlob = Pick<
  BlobInfo,
  | 'id'
  | 'features'
  | 'chunkCount'
  | 'compressedSize'
  | 'uncompressedSize'
  | 'cipher'
  | 'ciCompressor'
  | 'ciOffset'
  | 'ciCompressedSize'
  | 'ciUncompressedSize'
>;

/** How far chunk data extends in the blob (blob-and-cache 3.5). */
export function chunkDataEnd(blob: CiBlob): number {
  const has = (feature: number) => (blob.features & feature) !== 0;
  if (has(BlobFeature.separate) || !has(BlobFeature.capTarToc)) return blob.compressedSize;
  const valid = blob.ciCompressedSize > 0 && blob.ciUncompressedSize > 0;
  return Math.max(
    0,
    (valid ? blob.ciOffset : blob.compressedSize) - (has(BlobFeature.hasTarHeader) ? TRAILER : 0),
  );
}

/**
 * Compare a CI header with the blob table.
 *
 * @returns why the header does not belong to this blob (fetch it again), or undefined when it does
 * @throws FormatError the blob table row itself makes no sense
 * @throws UsageError  the blob is of a kind that is not read yet: zran, encrypted
 */
export function ciHeaderProblem(header: CiHeader, blob: CiBlob): string | undefined {
  checkCiBlob(blob);
  const differs = (name: string, found: number, expected: number) =>
    `ciHeader.${name} is ${found}, expected ${expected}`;
  if (header.magic !== CI_MAGIC)
    return `ciHeader.magic is 0x${header.magic.toString(16)}, expected 0x${CI_MAGIC.toString(16)}`;
  if (header.magic2 !== CI_MAGIC)
    return `ciHeader.magic2 is 0x${header.magic2.toString(16)}, expected 0x${CI_MAGIC.toString(16)}`;
  if (header.ciEntries !== blob.chunkCount && (blob.features & BlobFeature.isChunkdictGenerated) === 0) {
    return differs('ciEntries', header.ciEntries, blob.chunkCount);
  }
  const compressor = COMPRESSORS.indexOf(blob.ciCompressor);
  if (header.ciCompressor !== compressor) return differs('ciCompressor', header.ciCompressor, compressor);
  if (header.ciOffset !== blob.ciOffset) return differs('ciOffset', header.ciOffset, blob.ciOffset);
  if (header.ciCompressedSize !== blob.ciCompressedSize) {
    return differs('ciCompressedSize', header.ciCompressedSize, blob.ciCompressedSize);
  }
  if (header.ciUncompressedSize !== blob.ciUncompressedSize) {
    return differs('ciUncompressedSize', header.ciUncompressedSize, blob.ciUncompressedSize);
  }
  if ((blob.features & BlobFeature.batch) === 0) return undefined;
  const entriesEnd = ciEntryV2.size * header.ciEntries;
  if (header.ciEntries > MAX_CHUNKS_PER_BLOB || entriesEnd > blob.ciUncompressedSize) {
    return `ciHeader.ciEntries is ${header.ciEntries}, the plain data has ${blob.ciUncompressedSize} bytes`;
  }
  if (header.ctxCount > 0 && header.ctxOffset !== entriesEnd)
    return differs('ctxOffset', header.ctxOffset, entriesEnd);
  if (header.ctxCount > header.ciEntries)
    return `ciHeader.ctxCount is ${header.ctxCount} for ${header.ciEntries} entries`;
  if (
    header.ctxSize < batchContext.size * header.ctxCount ||
    header.ctxOffset + header.ctxSize > blob.ciUncompressedSize
  ) {
    return `ciHeader.ctxSize is ${header.ctxSize} for ${header.ctxCount} contexts at ${header.ctxOffset}`;
  }
  return undefined;
}

function checkCiBlob(blob: CiBlob): void {
  const { features, chunkCount, ciUncompressedSize: plain } = blob;
  const has = (feature: number) => (features & feature) !== 0;
  if (has(BlobFeature.zran))
    throw new UsageError(`blob ${blob.id} refers to a gzip layer (zran), which is not supported yet`);
  if (has(BlobFeature.encrypted) || blob.cipher !== 0)
    throw new UsageError(`blob ${blob.id} is encrypted, which is not supported yet`);
  const fail = (problem: string) =>
    new FormatError({ struct: 'blobInfo', field: 'ciUncompressedSize' }, problem);
  if (chunkCount < 1 || chunkCount > MAX_CHUNKS_PER_BLOB) {
    throw new FormatError(
      { struct: 'blobInfo', field: 'chunkCount' },
      `is ${chunkCount}, expected 1 to ${MAX_CHUNKS_PER_BLOB}`,
    );
  }
  const second = has(BlobFeature.chunkInfoV2);
  if (has(BlobFeature.batch) && !second) throw fail('batches need entries of version 2');
  if (has(BlobFeature.isChunkdictGenerated) && !second) {
    if (plain % ciEntryV1.size !== 0 || plain > ciEntryV1.size * MAX_CHUNKS_PER_BLOB)
      throw fail(`is ${plain}, expected whole entries`);
    return;
  }
  const entries = (second ? ciEntryV2.size : ciEntryV1.size) * chunkCount;
  const most = has(BlobFeature.batch) ? entries + batchContext.size * chunkCount : entries;
  if (plain < entries || plain > most) {
    throw fail(`is ${plain}, ${chunkCount} chunks need ${entries}${most === entries ? '' : ` to ${most}`}`);
  }
}

/** Entries of one blob. Nothing here allocates; an index outside 0 to count - 1 is a FormatError. */
export class CiTable {
  /** chunks */
  readonly count: number;
  /** batch contexts */
  readonly contextCount: number;
  /** entry layout */
  readonly version: 1 | 2;
  private readonly view: DataView;
  private readonly entrySize: number;
  private readonly contextOffset: number;
  private readonly batched: boolean;
  private readonly storedEnd: number;
  private readonly plainEnd: number;
  private readonly trusting: boolean;

  constructor(plain: Uint8Array, header: CiHeader, blob: CiBlob) {
    this.view = viewOf(plain);
    this.count = header.ciEntries;
    this.version = (blob.features & BlobFeature.chunkInfoV2) === 0 ? 1 : 2;
    this.entrySize = this.version === 1 ? ciEntryV1.size : ciEntryV2.size;
    this.batched = (blob.features & BlobFeature.batch) !== 0;
    this.contextCount = this.batched ? header.ctxCount : 0;
    this.contextOffset = header.ctxOffset;
    this.storedEnd = chunkDataEnd(blob);
    this.plainEnd = alignUp(blob.uncompressedSize, BLOCK);
    this.trusting = (blob.features & BlobFeature.isChunkdictGenerated) !== 0;
    const end = Math.max(
      this.entrySize * this.count,
      this.contextOffset + batchContext.size * this.contextCount,
    );
    if (this.count > MAX_CHUNKS_PER_BLOB || end > plain.length) {
      throw new FormatError(
        { struct: 'ciHeader', field: 'ciEntries' },
        `entries and contexts end at ${end}, the data at ${plain.length}`,
      );
    }
  }

  private at(index: number): number {
    if (!(index >= 0 && index < this.count)) {
      throw new FormatError(
        { struct: `ciEntryV${this.version}` },
        `no chunk ${index}, the blob has ${this.count}`,
      );
    }
    return index * this.entrySize;
  }

  /** CiFlag bits; 0 for version 1, which has none */
  flags(index: number): number {
    const at = this.at(index);
    return this.version === 1 ? 0 : v2.uncompressedSizeFlags(this.view, at) >>> 24;
  }

  /** where the chunk, or the batch it is in, starts in the blob */
  compressedOffset(index: number): number {
    const at = this.at(index);
    return this.version === 1
      ? (v1.compressedHigh(this.view, at) & 0xff) * TWO_32 + v1.compressedLow(this.view, at)
      : (v2.compressedSizeOffset(this.view, at) & 0xff) * TWO_32 + v2.compressedOffsetLow(this.view, at);
  }

  /** stored bytes to fetch: those of the chunk, or of the whole batch it is in */
  compressedSize(index: number): number {
    if (this.isBatch(index)) return this.batchCompressedSize(this.batchIndex(index));
    return this.ownCompressedSize(index);
  }

  /** stored size as the entry says: 0 for a batched chunk */
  ownCompressedSize(index: number): number {
    const at = this.at(index);
    if (this.version === 2) return v2.compressedSizeOffset(this.view, at) >>> 8;
    const high = v1.compressedHigh(this.view, at);
    return ((high >>> 12) | (((high >>> 8) & 0xf) << 20)) + 1;
  }

  /** place in the uncompressed blob address space */
  uncompressedOffset(index: number): number {
    const at = this.at(index);
    if (this.version === 2) return v2.uncompressedBlock(this.view, at) * BLOCK;
    const low = v1.uncompressedLow(this.view, at);
    return (v1.uncompressedHigh(this.view, at) & 0xfff) * TWO_32 + (low - (low & 0xfff));
  }

  uncompressedSize(index: number): number {
    const at = this.at(index);
    if (this.version === 2) return (v2.uncompressedSizeFlags(this.view, at) & 0xff_ffff) + 1;
    const low = v1.uncompressedLow(this.view, at);
    return ((v1.uncompressedHigh(this.view, at) >>> 12) | (((low >>> 8) & 0xf) << 20)) + 1;
  }

  /** true when the stored bytes of the chunk, or of its batch, are compressed */
  isCompressed(index: number): boolean {
    if (this.version === 1) return this.ownCompressedSize(index) !== this.uncompressedSize(index);
    if (this.isBatch(index)) {
      const context = this.batchIndex(index);
      return this.batchCompressedSize(context) !== this.batchUncompressedSize(context);
    }
    return (this.flags(index) & CiFlag.compressed) !== 0;
  }

  isBatch(index: number): boolean {
    return (this.flags(index) & CiFlag.batch) !== 0;
  }

  /** number of the batch that holds a batched chunk */
  batchIndex(index: number): number {
    return v2.dataHigh(this.view, this.at(index));
  }

  /** start of a batched chunk in the plain batch */
  batchOffset(index: number): number {
    return v2.dataLow(this.view, this.at(index));
  }

  batchCompressedSize(context: number): number {
    return batchContext.field.compressedSize(this.view, this.contextAt(context));
  }

  batchUncompressedSize(context: number): number {
    return batchContext.field.uncompressedSize(this.view, this.contextAt(context));
  }

  private contextAt(context: number): number {
    if (!(context >= 0 && context < this.contextCount)) {
      throw new FormatError(
        { struct: 'batchContext' },
        `no batch ${context}, the blob has ${this.contextCount}`,
      );
    }
    return this.contextOffset + batchContext.size * context;
  }

  /** CRC-32C of the uncompressed chunk, 0 when the table has none */
  crc32(index: number): number {
    return (this.flags(index) & CiFlag.hasCrc32) === 0 ? 0 : v2.dataLow(this.view, this.at(index));
  }

  /**
   * Check one entry before it is used (blob-and-cache 4.6). Nothing is checked for generated dictionaries.
   *
   * @throws FormatError
   */
  check(index: number): void {
    const at = this.at(index);
    if (this.trusting) return;
    const fail = (name: string, problem: string) =>
      new FormatError({ struct: `ciEntryV${this.version}`, field: name, offset: at }, problem);
    const flags = this.flags(index);
    const size = this.uncompressedSize(index);
    const plainEnd = this.uncompressedOffset(index) + size;
    if (plainEnd > this.plainEnd)
      throw fail('uncompressedOffset', `chunk ${index} ends at ${plainEnd}, the blob at ${this.plainEnd}`);
    if ((flags & CiFlag.zran) !== 0)
      throw fail('uncompressedSizeFlags', `chunk ${index} has the zran flag in a blob without zran`);
    if ((flags & CiFlag.encrypted) !== 0)
      throw fail('uncompressedSizeFlags', `chunk ${index} is encrypted in a plain blob`);
    if ((flags & CiFlag.batch) !== 0) {
      this.checkBatch(index, size, fail);
    } else {
      const stored = this.ownCompressedSize(index);
      if (stored === 0) throw fail('compressedSizeOffset', `chunk ${index} has no stored bytes`);
      if (!this.isCompressed(index) && stored !== size) {
        throw fail(
          'compressedSizeOffset',
          `chunk ${index} is not compressed, but stores ${stored} of ${size} bytes`,
        );
      }
    }
    const storedEnd = this.compressedOffset(index) + this.compressedSize(index);
    if (storedEnd > this.storedEnd)
      throw fail(
        'compressedOffsetLow',
        `chunk ${index} ends at ${storedEnd}, the chunk data at ${this.storedEnd}`,
      );
    if ((flags & CiFlag.hasCrc32) !== 0 && this.crc32(index) === 0)
      throw fail('dataLow', `chunk ${index} has a CRC of 0`);
  }

  private checkBatch(
    index: number,
    size: number,
    fail: (name: string, problem: string) => FormatError,
  ): void {
    if (!this.batched)
      throw fail('uncompressedSizeFlags', `chunk ${index} is batched in a blob without batches`);
    const context = this.batchIndex(index);
    const stored = this.batchCompressedSize(context);
    const plain = this.batchUncompressedSize(context);
    if (stored === 0 || stored > plain || plain > MAX_BATCH_PLAIN) {
      throw fail(
        'dataHigh',
        `batch ${context} stores ${stored} of ${plain} bytes, at most ${MAX_BATCH_PLAIN} are allowed`,
      );
    }
    const end = this.batchOffset(index) + size;
    if (end > plain) throw fail('dataLow', `chunk ${index} ends at ${end}, its batch at ${plain}`);
  }

  /**
   * Chunk that covers an address of the uncompressed space.
   *
   * @param orNext an address in a hole gives the next chunk
   * @returns -1 when there is none
   */
  findUncompressed(address: number, orNext = false): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.uncompressedOffset(middle) + this.uncompressedSize(middle) <= address) low = middle + 1;
      else high = middle;
    }
    if (low === this.count) return -1;
    return orNext || this.uncompressedOffset(low) <= address ? low : -1;
  }

  /**
   * Chunk that covers an address of the stored data; for a batch, its first chunk.
   *
   * @param orNext an address in a hole gives the next chunk
   * @returns -1 when there is none
   */
  findCompressed(address: number, orNext = false): number {
    let low = 0;
    let high = this.count;
    // the chunks of one batch share start and end, so the leftmost match is the first chunk of the batch
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.compressedOffset(middle) + this.compressedSize(middle) <= address) low = middle + 1;
      else high = middle;
    }
    if (low === this.count) return -1;
    return orNext || this.compressedOffset(low) <= address ? low : -1;
  }
}

/**
 * Open the plain compression information of a blob.
 *
 * @param plain  decoded CI data; longer is allowed
 * @param header that followed it in the blob
 * @throws FormatError the header does not belong to this blob, or breaks a rule
 */
export function openCi(plain: Uint8Array, header: CiHeader, blob: CiBlob): CiTable {
  const problem = ciHeaderProblem(header, blob);
  if (problem !== undefined)
    throw new FormatError({ struct: 'ciHeader' }, `does not fit blob ${blob.id}: ${problem}`);
  return new CiTable(plain, header, blob);
}

/** Size of a local `.blob.meta` file. */
export function ciFileSize(blob: CiBlob): number {
  return alignUp(blob.ciUncompressedSize, BLOCK) + CI_HEADER_SIZE;
}

/**
 * Open a local `.blob.meta` file: plain data, zeros up to a block, header.
 *
 * @returns the table, or why the content is not ready: the download must be repeated
 * @throws FormatError the file has another length than the blob table says
 */
export function openCiFile(bytes: Uint8Array, blob: CiBlob): CiTable | { notReady: string } {
  checkCiBlob(blob);
  const size = ciFileSize(blob);
  if (bytes.length !== size)
    throw new FormatError({ struct: 'blobMetaFile' }, `has ${bytes.length} bytes, expected ${size}`);
  const view = viewOf(bytes);
  const start = size - CI_HEADER_SIZE;
  const magic = ciHeader.field.magic(view, start);
  // a file that was sized but never filled: its other words need not even be numbers
  if (magic !== CI_MAGIC) return { notReady: `ciHeader.magic is 0x${magic.toString(16)}` };
  const header = ciHeader.read(view, start);
  const problem = ciHeaderProblem(header, blob);
  return problem === undefined
    ? new CiTable(bytes.subarray(0, blob.ciUncompressedSize), header, blob)
    : { notReady: problem };
}
