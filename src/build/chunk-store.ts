// File data into a blob: cut into jobs, digested and compressed by the pool, deduplicated and written in order.
// Source: blob-and-cache.md 3.2-3.4, 8.3, 16.1.
import { alignUp } from '../base/bytes.ts';
import { FormatError, UsageError } from '../base/errors.ts';
import { MAX_WRITTEN_CHUNKS } from '../base/limits.ts';
import { compressBound, compressInto } from '../codec/compress-into.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import { ChunkFlag } from '../format/flags.ts';
import type { TreeChunk, TreeNode } from '../tree/node.ts';
import type { BlobStream } from './blob-output.ts';
import type { BlobTable } from './blob-table.ts';
import type { ChunkSink } from './chunk-sink.ts';
import type { CiBuilder } from './ci-builder.ts';
import { jobCapacity, jobData, JobRecords, MAX_JOB_CHUNKS, newJobBuffer, PIECE_FIELDS } from './pool-job.ts';
import type { WorkerPool } from './pool.ts';

/** Jobs done on the main thread before workers are worth their start. */
const INLINE_JOBS = 2;
/** Files of one job: bounds the size of its message. */
const MAX_JOB_PIECES = 1024;
const DIGEST_SIZE = 32;
/** Digests are kept in slabs: one small object for each, no allocation of its own. */
const DIGEST_SLAB = 64 * 1024;

export interface StoreOptions {
  chunkSize: number;
  compressor: CompressorName;
  /** 0 = no batches */
  batchSize: number;
  /** chunks start on 4096-byte boundaries of the uncompressed space */
  aligned: boolean;
  /** added to every compressed offset */
  blobOffset: number;
}

export interface StoreParts {
  pool: WorkerPool;
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

/** A job that is being filled. */
interface OpenJob {
  buffer: ArrayBuffer;
  data: Uint8Array;
  used: number;
  chunks: number;
  pieces: number[];
  paths: Buffer[];
  owners: TreeNode[];
}

/** Counters for the result file and for messages. */
export interface StoreCounters {
  uncompressedBytes: number;
  dedupBytes: number;
  dedupChunks: number;
}

/** Stores file data in call order; see ChunkSink for how to feed it. */
export class ChunkStore implements ChunkSink {
  readonly #options: StoreOptions;
  readonly #parts: StoreParts;
  readonly #known = new Map<string, TreeChunk>();
  readonly #free: ArrayBuffer[] = [];
  readonly #slabs: Buffer[] = [];
  #open: OpenJob | undefined;
  #submitted = 0;
  #underWay = 0;
  #tail: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  #waiters: (() => void)[] = [];
  /** file that `write` gives data of, and how much of it came */
  #file: { node: TreeNode; given: number; offset: number; length: number } | undefined;
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
  readonly counters: StoreCounters = { uncompressedBytes: 0, dedupBytes: 0, dedupChunks: 0 };

  constructor(options: StoreOptions, parts: StoreParts) {
    this.#options = options;
    this.#parts = parts;
  }

  get #most(): number {
    return this.#parts.pool.width + 2;
  }

  /** Distinct chunks stored in this blob. */
  get chunkCount(): number {
    return this.#nextIndex;
  }

  /** Digests of the stored chunks in index order, 32 bytes each. */
  digestArray(): Buffer {
    return Buffer.concat(this.#slabs, this.#nextIndex * DIGEST_SIZE);
  }

  /** Store a file that the workers read themselves, through `node.sourcePath`. A promise means: wait. */
  addPath(node: TreeNode): Promise<void> | undefined {
    const path = node.sourcePath;
    if (path === undefined)
      throw new UsageError(`no source for the data of "${node.name.toString()}"`, { exitCode: 1 });
    if (node.size > jobCapacity(this.#options.chunkSize)) return this.#addLarge(node, path);
    for (let offset = 0; offset < node.size;) offset = this.#addRange(node, path, offset);
    return this.#pressure();
  }

  async #addLarge(node: TreeNode, path: Buffer): Promise<void> {
    for (let offset = 0; offset < node.size;) {
      offset = this.#addRange(node, path, offset);
      await this.#pressure();
    }
  }

  /** Put as much of a file as fits into the open job; returns where the rest begins. */
  #addRange(node: TreeNode, path: Buffer, offset: number): number {
    const { chunkSize } = this.#options;
    const left = node.size - offset;
    const job = this.#jobWithRoom(left);
    const room = Math.min(job.data.length - job.used, (MAX_JOB_CHUNKS - job.chunks) * chunkSize);
    const length = left <= room ? left : Math.floor(room / chunkSize) * chunkSize;
    this.#addPiece(job, node, offset, length);
    job.paths.push(path);
    if (offset + length < node.size) this.#submit();
    return offset + length;
  }

  beginFile(node: TreeNode): void {
    if (this.#file !== undefined)
      throw new FormatError({ struct: 'chunkSink' }, 'a file begins inside another one');
    this.#file = { node, given: 0, offset: 0, length: 0 };
  }

  write(data: Uint8Array): Promise<void> | undefined {
    const file = this.#file;
    if (file === undefined) throw new FormatError({ struct: 'chunkSink' }, 'data without a file');
    const { chunkSize } = this.#options;
    for (let at = 0; at < data.length;) {
      if (this.#open === undefined || file.length === 0) {
        const job = this.#jobWithRoom(Math.max(1, file.node.size - file.given));
        file.offset = file.given;
        this.#open = job;
      }
      const job = this.#open;
      // a piece that ends before its file does must end between two chunks
      const room = Math.min(job.data.length - job.used, (MAX_JOB_CHUNKS - job.chunks) * chunkSize);
      const whole = file.node.size - file.offset;
      const limit = whole <= room ? whole : Math.floor(room / chunkSize) * chunkSize;
      const length = Math.min(data.length - at, limit - file.length);
      if (length <= 0)
        throw new FormatError(
          { struct: 'chunkSink' },
          `more data than the ${file.node.size} bytes of the file`,
        );
      job.data.set(data.subarray(at, at + length), job.used + file.length);
      file.length += length;
      file.given += length;
      at += length;
      if (file.length === limit) {
        this.#addPiece(job, file.node, file.offset, file.length);
        file.length = 0;
        if (file.given < file.node.size) this.#submit();
      }
    }
    return this.#pressure();
  }

  endFile(): Promise<void> | undefined {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined || file.given !== file.node.size) {
      throw new FormatError(
        { struct: 'chunkSink' },
        `file ended after ${file?.given ?? 0} of ${file?.node.size ?? 0} bytes`,
      );
    }
    return undefined;
  }

  /** Everything was given: wait until it is stored. */
  async finish(): Promise<void> {
    if (this.#open !== undefined && this.#open.chunks > 0) this.#submit();
    await this.#tail;
    if (this.#failure !== undefined) throw this.#failure.error;
    const parts: Uint8Array[] = [];
    this.#flushBatch(parts);
    await this.#parts.stream.append(parts);
  }

  /** The open job if `size` bytes, or at least one chunk of them, still fit; else a new one. */
  #jobWithRoom(size: number): OpenJob {
    const { chunkSize } = this.#options;
    const job = this.#open;
    if (job !== undefined) {
      const least = Math.min(size, chunkSize);
      // a small file is never split; a large one starts in what is left
      if (
        job.data.length - job.used >= least &&
        job.chunks < MAX_JOB_CHUNKS &&
        job.owners.length < MAX_JOB_PIECES
      )
        return job;
      this.#submit();
    }
    const buffer = this.#free.pop() ?? newJobBuffer(chunkSize);
    this.#open = { buffer, data: jobData(buffer), used: 0, chunks: 0, pieces: [], paths: [], owners: [] };
    return this.#open;
  }

  #addPiece(job: OpenJob, node: TreeNode, offset: number, length: number): void {
    job.pieces.push(offset, length, node.size);
    job.owners.push(node);
    job.used += length;
    job.chunks += Math.ceil(length / this.#options.chunkSize);
  }

  /** Hand the open job to the pool. */
  #submit(): void {
    const job = this.#open;
    if (job === undefined) return;
    this.#open = undefined;
    if (this.#failure !== undefined) throw this.#failure.error;
    const { pool } = this.#parts;
    if (this.#submitted++ === INLINE_JOBS) pool.start();
    this.#underWay++;
    const pieces = Float64Array.from(job.pieces);
    const done = pool.run({
      buffer: job.buffer,
      pieces,
      paths: job.paths.length > 0 ? joinPaths(job.paths) : undefined,
    });
    // the chain reports the failure; this one may settle before the chain gets to it
    done.catch(() => {});
    this.#tail = this.#tail
      .then(() => done)
      .then((buffer) => (this.#failure === undefined ? this.#consume(buffer, job.owners, pieces) : undefined))
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .then(() => {
        this.#underWay--;
        for (const resolve of this.#waiters.splice(0)) resolve();
      });
  }

  /** A promise when enough jobs are under way: more would only take memory. */
  #pressure(): Promise<void> | undefined {
    return this.#underWay < this.#most ? undefined : this.#room();
  }

  async #room(): Promise<void> {
    const most = this.#most;
    while (this.#underWay >= most) await new Promise<void>((resolve) => this.#waiters.push(resolve));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Results of one job, in order: deduplicate, number, write. */
  async #consume(buffer: ArrayBuffer, owners: TreeNode[], pieces: Float64Array): Promise<void> {
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
    this.#free.push(buffer);
    this.#parts.progress(owners.length, bytes);
  }

  #find(key: string, records: JobRecords, record: number, size: number): TreeChunk | undefined {
    const { foreignChunk } = this.#parts;
    const known = foreignChunk?.(records.digest(record), size) ?? this.#known.get(key);
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

/** Paths of a job, each ended by a NUL. */
function joinPaths(paths: readonly Buffer[]): Uint8Array {
  let size = 0;
  for (const path of paths) size += path.length + 1;
  // a Buffer from the pool would carry the whole pool along in the message
  const joined = new Uint8Array(size);
  let at = 0;
  for (const path of paths) {
    joined.set(path, at);
    at += path.length + 1;
  }
  return joined;
}
