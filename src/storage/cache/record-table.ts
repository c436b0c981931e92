// The chunks of a v5 blob: 80-byte records that stand with the files in the bootstrap. Source: blob-and-cache.md 15.4.
import { FormatError } from '../../base/errors.ts';
import { viewOf } from '../../base/bytes.ts';
import { MAX_CHUNK_SIZE } from '../../base/limits.ts';
import { chunkRecord } from '../../format/chunk-record.ts';
import { ChunkFlag } from '../../format/flags.ts';
import type { BlobInfo, RafsImage } from '../../format/image.ts';
import { chunkDataEnd } from '../../format/blobmeta/reader.ts';
import type { ChunkTable } from './chunk-table.ts';

const field = chunkRecord.field;
const DIGEST_SIZE = 32;

/** True when 32 bytes are all zero: the image has no digest of this chunk. */
export function isNoDigest(digest: Uint8Array): boolean {
  for (let i = 0; i < digest.length; i++) if (digest[i] !== 0) return false;
  return true;
}

export class RecordTable implements ChunkTable {
  readonly count: number;
  readonly #image: RafsImage;
  readonly #blob: BlobInfo;
  readonly #view: DataView;
  readonly #storedEnd: number;
  /** byte offset of the record of each chunk, 0 while it was not looked for */
  readonly #records: Uint32Array;

  /** @param count chunks of the blob; more than the blob table says only for very old images, which say 0 */
  constructor(image: RafsImage, blob: BlobInfo, count: number) {
    this.count = count;
    this.#image = image;
    this.#blob = blob;
    this.#view = viewOf(image.bytes);
    this.#storedEnd = chunkDataEnd(blob);
    this.#records = new Uint32Array(count);
  }

  /**
   * Tell where the record of a chunk is: a file that is read knows it, finding it otherwise walks all inodes.
   *
   * @throws FormatError EINVAL  two records of one chunk disagree
   */
  note(index: number, record: number): void {
    const known = this.#records[index] ?? 0;
    if (known === record) return;
    if (known !== 0 && !this.#sameChunk(known, record)) {
      throw new FormatError(
        { struct: 'chunkRecord', offset: record },
        `differs from the record of the same chunk at byte ${known}`,
      );
    }
    if (known === 0) this.#records[index] = record;
  }

  #sameChunk(a: number, b: number): boolean {
    const { bytes } = this.#image;
    for (let i = 0; i < DIGEST_SIZE; i++) if (bytes[a + i] !== bytes[b + i]) return false;
    const view = this.#view;
    return (
      field.compressedOffset(view, a) === field.compressedOffset(view, b) &&
      field.uncompressedOffset(view, a) === field.uncompressedOffset(view, b) &&
      field.compressedSize(view, a) === field.compressedSize(view, b) &&
      field.uncompressedSize(view, a) === field.uncompressedSize(view, b)
    );
  }

  #record(index: number): number {
    let record = this.#records[index] ?? 0;
    if (record === 0) {
      record = this.#image.chunkRecordOffset(this.#blob.index, index);
      if (record === 0) {
        throw new FormatError(
          { struct: 'chunkRecord' },
          `no file of the image has chunk ${index} of blob ${this.#blob.id}`,
        );
      }
      this.#records[index] = record;
    }
    return record;
  }

  /** True when a file of the image has this chunk; others have no record and cannot be fetched. */
  has(index: number): boolean {
    return (this.#records[index] ?? 0) !== 0 || this.#image.chunkRecordOffset(this.#blob.index, index) !== 0;
  }

  storedOffset(index: number): number {
    return field.compressedOffset(this.#view, this.#record(index));
  }

  storedSize(index: number): number {
    const record = this.#record(index);
    const size = field.compressedSize(this.#view, record);
    const end = field.compressedOffset(this.#view, record) + size;
    if (size === 0 || size > MAX_CHUNK_SIZE || (this.#storedEnd !== 0 && end > this.#storedEnd)) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'compressedSize', offset: record },
        `${size} bytes that end at ${end}, the chunk data of the blob ends at ${this.#storedEnd}`,
      );
    }
    return size;
  }

  unitSize(index: number): number {
    return this.plainSize(index);
  }

  offsetInUnit(_index: number): number {
    return 0;
  }

  isCompressed(index: number): boolean {
    return (field.flags(this.#view, this.#record(index)) & ChunkFlag.compressed) !== 0;
  }

  isBatched(_index: number): boolean {
    return false;
  }

  plainOffset(index: number): number {
    return field.uncompressedOffset(this.#view, this.#record(index));
  }

  plainSize(index: number): number {
    const record = this.#record(index);
    const size = field.uncompressedSize(this.#view, record);
    const end = field.uncompressedOffset(this.#view, record) + size;
    const limit = this.#blob.uncompressedSize;
    if (size === 0 || size > MAX_CHUNK_SIZE || (limit !== 0 && end > limit)) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'uncompressedSize', offset: record },
        `${size} bytes that end at ${end}, the blob ends at ${limit}`,
      );
    }
    return size;
  }

  digest(index: number): Uint8Array | undefined {
    const digest = field.digest(this.#view, this.#record(index));
    return isNoDigest(digest) ? undefined : digest;
  }

  crc(index: number): number {
    const record = this.#record(index);
    return (field.flags(this.#view, record) & ChunkFlag.hasCrc32) === 0
      ? -1
      : field.crc32(this.#view, record);
  }
}
