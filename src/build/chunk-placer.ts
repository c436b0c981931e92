// Chunks that the pool has done become chunks of a blob: deduplicated, numbered, put into batches, written in order.
// Source: blob-and-cache.md 3.2-3.4, 8.3, 16.1.
import { alignUp } from '../base/bytes.ts';
import { UsageError } from '../base/errors.ts';
import { MAX_WRITTEN_CHUNKS } from '../base/limits.ts';
import { compressBound, compressInto } from '../codec/compress-into.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import { ChunkFlag } from '../format/flags.ts';
import type { TreeChunk, TreeNode } from '../tree/node.ts';
import type { BlobStream } from './blob-output.ts';
import type { BlobTable } from './blob-table.ts';
import type { CiBuilder } from './ci-builder.ts';
import { jobData, JobRecords, PIECE_FIELDS } from './pool-job.ts';

const DIGEST_SIZE = 32;
/** Digests are kept in slabs: one small object for each, no allocation of its own. */
const DIGEST_SLAB = 64 * 1024;

export interface PlaceOptions {
  chunkSize: number;
  compressor: CompressorName;
  /** 0 = no batches */
  batchSize: number;
  /** chunks start on 4096-byte boundaries of the uncompressed space */
  aligned: boolean;
  /** added to every compressed offset */
  blobOffset: number;
}

export interface PlaceParts {
  stream: BlobStream;
  table: BlobTable;
  /** undefined for v5, whose blobs have no compression information */
  ci: CiBuilder | undefined;
  /** chunk of a dictionary or parent image, asked before the chunks of this build; undefined = there are none */
  foreignChunk: ((digest: Uint8Array, size: number) => TreeChunk | undefined) | undefined;
  /** also given every stored chunk, uncompressed: the data file of `--blob-cache-dir` */
  mirror: ((data: Uint8Array, uncompressedOffset: number) => Promise<void>) | undefined;
  /** called after each job, with files and bytes in it */
  progress: (files: number, bytes: number) => void;
}

/** Counters for the result file and for messages. */
export interface StoreCounters {
  uncompressedBytes: number;
  dedupBytes: number;
  dedupChunks: number;
  /** those of them that a dictionary or parent image has */
  foreignBytes: number;
  foreignChunks: number;
}

/** Takes the jobs of one blob, one after the other in source order. */
export class ChunkPlacer {
  readonly #options: PlaceOptions;
  readonly #parts: PlaceParts;
  readonly #known = new Map<string, TreeChunk>();
  readonly #slabs: Buffer[] = [];
  #batch: Buffer | undefined;
  #batchUsed = 0;
  #batchScratch: Buffer | undefined;
  #slab = Buffer.alloc(0);
  #slabUsed = 0;
  #nextIndex = 0;
  /** stored bytes so far, the open batch not included */
  storedBytes = 0;
  /** end of the uncompressed space */
  uncompressedEnd = 0;
  readonly counters: StoreCounters = {
    uncompressedBytes: 0,
    dedupBytes: 0,
    dedupChunks: 0,
    foreignBytes: 0,
    foreignChunks: 0,
  };

  constructor(options: PlaceOptions, parts: PlaceParts) {
    this.#options = options;
    this.#parts = parts;
  }

  /** Distinct chunks stored in this blob. */
  get chunkCount(): number {
    return this.#nextIndex;
  }

  /** Digests of the stored chunks in index order, 32 bytes each. */
  digestArray(): Buffer {
    return Buffer.concat(this.#slabs, this.#nextIndex * DIGEST_SIZE);
  }

  /** All jobs were placed: write what is left. */
  async finish(): Promise<void> {
    const parts: Uint8Array[] = [];
    this.#flushBatch(parts);
    await this.#parts.stream.append(parts);
  }

  /** Results of one job, in order: deduplicate, number, write. */
  async place(buffer: ArrayBuffer, owners: TreeNode[], pieces: Float64Array): Promise<void> {
    const { chunkSize } = this.#options;
    const { mirror, stream } = this.#parts;
    const data = jobData(buffer);
    const records = new JobRecords(buffer);
    const parts: Uint8Array[] = [];
    let from = 0;
    let record = 0;
    let bytes = 0;
    // stored bytes of neighbours are written as one part
    let runStart = 0;
    let runEnd = 0;
    const endRun = (): void => {
      if (runEnd > runStart) parts.push(data.subarray(runStart, runEnd));
    };
    for (let i = 0; i < owners.length; i++) {
      const node = owners[i] as TreeNode;
      const offset = pieces[PIECE_FIELDS * i] as number;
      const length = pieces[PIECE_FIELDS * i + 1] as number;
      bytes += length;
      for (let done = 0; done < length; done += chunkSize) {
        const size = Math.min(chunkSize, length - done);
        const stored = records.stored(record);
        const key = records.digestKey(record);
        const known = this.#find(key, records, record, size);
        if (known !== undefined) {
          node.chunks.push(withFileOffset(known, offset + done));
          this.counters.dedupBytes += size;
          this.counters.dedupChunks++;
        } else {
          const chunk = this.#newChunk(records, record, size, offset + done);
          this.#known.set(key, chunk);
          node.chunks.push(chunk);
          if (mirror !== undefined)
            await mirror(data.subarray(from, from + stored), chunk.uncompressedOffset);
          if (this.#isBatched(offset, length)) {
            if (this.#batchUsed + size >= this.#options.batchSize) {
              endRun();
              runStart = runEnd = from;
              this.#flushBatch(parts);
            }
            this.#addToBatch(chunk, data.subarray(from, from + stored));
          } else {
            if (this.#batchUsed > 0) {
              endRun();
              runStart = runEnd = from;
              this.#flushBatch(parts);
            }
            chunk.compressedOffset = this.#options.blobOffset + this.storedBytes;
            chunk.compressedSize = stored;
            if (stored !== size) chunk.flags |= ChunkFlag.compressed;
            this.#parts.ci?.add(chunk);
            this.storedBytes += stored;
            if (runEnd !== from) {
              endRun();
              runStart = from;
            }
            runEnd = from + stored;
          }
        }
        from += stored;
        record++;
      }
    }
    endRun();
    await stream.append(parts);
    this.#parts.progress(finishedFiles(pieces), bytes);
  }

  #find(key: string, records: JobRecords, record: number, size: number): TreeChunk | undefined {
    const { foreignChunk } = this.#parts;
    const foreign = foreignChunk?.(records.digest(record), size);
    if (foreign !== undefined) {
      this.counters.foreignBytes += size;
      this.counters.foreignChunks++;
      return foreign;
    }
    const known = this.#known.get(key);
    return known !== undefined && (known.uncompressedSize === 0 || known.uncompressedSize === size)
      ? known
      : undefined;
  }

  #newChunk(records: JobRecords, record: number, size: number, fileOffset: number): TreeChunk {
    if (this.#nextIndex >= MAX_WRITTEN_CHUNKS) {
      throw new UsageError(`the blob has more than ${MAX_WRITTEN_CHUNKS} chunks`, {
        exitCode: 1,
        hint: 'use a larger --chunk-size',
      });
    }
    const chunk: TreeChunk = {
      digest: this.#keepDigest(records, record),
      blobIndex: this.#parts.table.ownIndex(),
      flags: ChunkFlag.hasCrc32,
      compressedSize: 0,
      uncompressedSize: size,
      compressedOffset: 0,
      uncompressedOffset: this.uncompressedEnd,
      fileOffset,
      index: this.#nextIndex++,
      crc32: records.crc32(record),
    };
    this.uncompressedEnd += this.#options.aligned ? alignUp(size, 4096) : size;
    this.counters.uncompressedBytes += size;
    return chunk;
  }

  #keepDigest(records: JobRecords, record: number): Uint8Array {
    if (this.#slabUsed + DIGEST_SIZE > this.#slab.length) {
      this.#slab = Buffer.alloc(DIGEST_SLAB);
      this.#slabUsed = 0;
      this.#slabs.push(this.#slab);
    }
    const at = this.#slabUsed;
    records.copyDigest(record, this.#slab, at);
    this.#slabUsed += DIGEST_SIZE;
    return new Uint8Array(this.#slab.buffer, this.#slab.byteOffset + at, DIGEST_SIZE);
  }

  #isBatched(offset: number, length: number): boolean {
    return offset === 0 && length < this.#options.batchSize / 2;
  }

  #addToBatch(chunk: TreeChunk, data: Uint8Array): void {
    this.#batch ??= Buffer.alloc(this.#options.batchSize);
    this.#parts.ci?.addBatched(chunk, this.#options.blobOffset + this.storedBytes, this.#batchUsed);
    this.#batch.set(data, this.#batchUsed);
    this.#batchUsed += data.length;
  }

  /** Compress the open batch and give its bytes out. */
  #flushBatch(parts: Uint8Array[]): void {
    if (this.#batch === undefined || this.#batchUsed === 0) return;
    const plain = this.#batch.subarray(0, this.#batchUsed);
    this.#batchScratch ??= Buffer.alloc(compressBound(this.#options.batchSize));
    const packed = compressInto(this.#options.compressor, plain, this.#batchScratch);
    const stored = Buffer.from(packed === 0 ? plain : this.#batchScratch.subarray(0, packed));
    this.#parts.ci?.closeBatch({ compressedSize: stored.length, uncompressedSize: plain.length });
    parts.push(stored);
    this.storedBytes += stored.length;
    this.#batchUsed = 0;
  }
}

function withFileOffset(chunk: TreeChunk, fileOffset: number): TreeChunk {
  return {
    digest: chunk.digest,
    blobIndex: chunk.blobIndex,
    flags: chunk.flags,
    compressedSize: chunk.compressedSize,
    uncompressedSize: chunk.uncompressedSize,
    compressedOffset: chunk.compressedOffset,
    uncompressedOffset: chunk.uncompressedOffset,
    fileOffset,
    index: chunk.index,
    crc32: chunk.crc32,
  };
}

/** Pieces that are the last of their file. */
function finishedFiles(pieces: Float64Array): number {
  let count = 0;
  for (let at = 0; at < pieces.length; at += PIECE_FIELDS) {
    if ((pieces[at] ?? 0) + (pieces[at + 1] ?? 0) === pieces[at + 2]) count++;
  }
  return count;
}
