// File data on its way to the pool: cut into jobs, at most so many under way, and given to the placer in source order.
// Source: blob-and-cache.md 3.2-3.4.
import { FormatError, UsageError } from '../base/errors.ts';
import type { TreeNode } from '../tree/node.ts';
import type { ChunkPlacer } from './chunk-placer.ts';
import type { ChunkSink } from './chunk-sink.ts';
import { jobCapacity, jobData, MAX_JOB_CHUNKS, newJobBuffer } from './pool-job.ts';
import type { WorkerPool } from './pool.ts';

/** Jobs done on the main thread before workers are worth their start. */
const INLINE_JOBS = 2;
/** Files of one job: bounds the size of its message. */
const MAX_JOB_PIECES = 1024;

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

/** Stores file data in call order; see ChunkSink for how to feed it. */
export class ChunkStore implements ChunkSink {
  readonly #chunkSize: number;
  readonly #pool: WorkerPool;
  readonly #placer: ChunkPlacer;
  readonly #free: ArrayBuffer[] = [];
  #open: OpenJob | undefined;
  #submitted = 0;
  #underWay = 0;
  #tail: Promise<void> = Promise.resolve();
  #failure: { error: unknown } | undefined;
  #waiters: (() => void)[] = [];
  /** file that `write` gives data of, and how much of it came */
  #file: { node: TreeNode; given: number; offset: number; length: number } | undefined;

  constructor(chunkSize: number, pool: WorkerPool, placer: ChunkPlacer) {
    this.#chunkSize = chunkSize;
    this.#pool = pool;
    this.#placer = placer;
  }

  get #most(): number {
    return this.#pool.width + 2;
  }

  /** Store a file that the workers read themselves, through `node.sourcePath`. A promise means: wait. */
  addPath(node: TreeNode): Promise<void> | undefined {
    const path = node.sourcePath;
    if (path === undefined)
      throw new UsageError(`no source for the data of "${node.name.toString()}"`, { exitCode: 1 });
    if (node.size > jobCapacity(this.#chunkSize)) return this.#addLarge(node, path);
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
    const chunkSize = this.#chunkSize;
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
    const chunkSize = this.#chunkSize;
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
    await this.#placer.finish();
  }

  /** The open job if `size` bytes, or at least one chunk of them, still fit; else a new one. */
  #jobWithRoom(size: number): OpenJob {
    const chunkSize = this.#chunkSize;
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
    job.chunks += Math.ceil(length / this.#chunkSize);
  }

  /** Hand the open job to the pool. */
  #submit(): void {
    const job = this.#open;
    if (job === undefined) return;
    this.#open = undefined;
    if (this.#failure !== undefined) throw this.#failure.error;
    const pool = this.#pool;
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
      .then((buffer) => (this.#failure === undefined ? this.#place(buffer, job.owners, pieces) : undefined))
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .then(() => {
        this.#underWay--;
        for (const resolve of this.#waiters.splice(0)) resolve();
      });
  }

  async #place(buffer: ArrayBuffer, owners: TreeNode[], pieces: Float64Array): Promise<void> {
    await this.#placer.place(buffer, owners, pieces);
    this.#free.push(buffer);
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
