// The chunks of a v6 blob: entries of its compression information, digests from the bootstrap or the digest array.
// Source: blob-and-cache.md 4, 5 and 8.
import { viewOf } from '../../base/bytes.ts';
import { chunkRecord } from '../../format/chunk-record.ts';
import { ChunkFlag } from '../../format/flags.ts';
import type { BlobInfo, RafsImage } from '../../format/image.ts';
import type { CiTable } from '../../format/blobmeta/reader.ts';
import type { ChunkTable } from './chunk-table.ts';
import { isNoDigest } from './record-table.ts';

const DIGEST_SIZE = 32;

export class CiChunkTable implements ChunkTable {
  readonly count: number;
  readonly close: () => void;
  readonly #ci: CiTable;
  readonly #blob: BlobInfo;
  readonly #image: RafsImage;
  readonly #view: DataView;
  /** digest array of the blob, or undefined */
  readonly #digests: Uint8Array | undefined;
  /** 1 = the entry was checked */
  readonly #checked: Uint8Array;

  /** @param digests digest array of the blob, used for chunks that the bootstrap has no record of */
  constructor(
    ci: CiTable,
    blob: BlobInfo,
    image: RafsImage,
    digests: Uint8Array | undefined,
    release: () => void,
  ) {
    this.close = release;
    this.count = ci.count;
    this.#ci = ci;
    this.#blob = blob;
    this.#image = image;
    this.#view = viewOf(image.bytes);
    this.#digests = digests;
    this.#checked = new Uint8Array(ci.count);
  }

  #entry(index: number): CiTable {
    if (this.#checked[index] !== 1) {
      this.#ci.check(index);
      this.#checked[index] = 1;
    }
    return this.#ci;
  }

  storedOffset(index: number): number {
    return this.#entry(index).compressedOffset(index);
  }

  storedSize(index: number): number {
    return this.#entry(index).compressedSize(index);
  }

  unitSize(index: number): number {
    const ci = this.#entry(index);
    return ci.isBatch(index) ? ci.batchUncompressedSize(ci.batchIndex(index)) : ci.uncompressedSize(index);
  }

  offsetInUnit(index: number): number {
    const ci = this.#entry(index);
    return ci.isBatch(index) ? ci.batchOffset(index) : 0;
  }

  isCompressed(index: number): boolean {
    return this.#entry(index).isCompressed(index);
  }

  isBatched(index: number): boolean {
    return this.#entry(index).isBatch(index);
  }

  plainOffset(index: number): number {
    return this.#entry(index).uncompressedOffset(index);
  }

  plainSize(index: number): number {
    return this.#entry(index).uncompressedSize(index);
  }

  digest(index: number): Uint8Array | undefined {
    const record = this.#image.chunkRecordOffset(this.#blob.index, index);
    const digest =
      record !== 0
        ? this.#image.bytes.subarray(record, record + DIGEST_SIZE)
        : this.#digests?.subarray(index * DIGEST_SIZE, (index + 1) * DIGEST_SIZE);
    return digest === undefined || digest.length !== DIGEST_SIZE || isNoDigest(digest) ? undefined : digest;
  }

  crc(index: number): number {
    const crc = this.#entry(index).crc32(index);
    if (crc !== 0) return crc;
    const record = this.#image.chunkRecordOffset(this.#blob.index, index);
    if (record === 0 || (chunkRecord.field.flags(this.#view, record) & ChunkFlag.hasCrc32) === 0) return -1;
    return chunkRecord.field.crc32(this.#view, record);
  }
}
