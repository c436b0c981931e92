// The work of one job: read pieces of files (or find them in the buffer), digest, CRC, compress, in place.
// Runs in the workers of the pool and, for small builds, on the main thread: the bytes are the same.
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { messageOf, UsageError } from '../base/errors.ts';
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';
import { compressBound, compressInto } from '../codec/compress-into.ts';
import { crc32c } from '../codec/crc32c.ts';
import { digestOf } from '../codec/digest.ts';

/** What all jobs of a build have in common. */
export interface JobSettings {
  chunkSize: number;
  compressor: CompressorName;
  digester: DigesterName;
  /** single chunks of files smaller than this are left raw: they go into a batch (blob-and-cache 8.3); 0 = none */
  batchLimit: number;
}

/** Bytes of one result record: stored size and CRC (u32 of this machine each), 8 unused, digest. */
const RECORD_SIZE = 48;
const DIGEST_AT = 16;
/** Records of a job, hence chunks of a job. */
export const MAX_JOB_CHUNKS = 2048;
const RECORDS_SIZE = RECORD_SIZE * MAX_JOB_CHUNKS;
/** Data of a job: large enough that a message costs nothing beside the work, small enough for flat memory. */
const JOB_DATA = 2 * 1024 * 1024;

const SPARE = 8;

/** Data bytes that fit into one job. */
export function jobCapacity(chunkSize: number): number {
  return Math.max(JOB_DATA, chunkSize);
}

/** A buffer for one job: result records, data, and a spare byte for `readPiece`. */
export function newJobBuffer(chunkSize: number): ArrayBuffer {
  return new ArrayBuffer(RECORDS_SIZE + jobCapacity(chunkSize) + SPARE);
}

/** The data part of a job buffer. */
export function jobData(buffer: ArrayBuffer): Uint8Array {
  return new Uint8Array(buffer, RECORDS_SIZE, buffer.byteLength - RECORDS_SIZE - SPARE);
}

/** The records of a job buffer, one after the other. */
export class JobRecords {
  readonly #words: Uint32Array;
  readonly #bytes: Buffer;
  #next = 0;

  constructor(buffer: ArrayBuffer) {
    this.#words = new Uint32Array(buffer, 0, RECORDS_SIZE / 4);
    this.#bytes = Buffer.from(buffer, 0, RECORDS_SIZE);
  }

  /** Write the next record. */
  push(stored: number, crc32: number, digest: Uint8Array): void {
    const at = this.#next;
    this.#words[at / 4] = stored;
    this.#words[at / 4 + 1] = crc32;
    this.#bytes.set(digest, at + DIGEST_AT);
    this.#next = at + RECORD_SIZE;
  }

  /** Stored size of record `i`. */
  stored(i: number): number {
    return this.#words[(i * RECORD_SIZE) / 4] as number;
  }

  crc32(i: number): number {
    return this.#words[(i * RECORD_SIZE) / 4 + 1] as number;
  }

  /** Digest as text, one character a byte: a key for maps. */
  digestKey(i: number): string {
    return this.#bytes.toString('latin1', i * RECORD_SIZE + DIGEST_AT, (i + 1) * RECORD_SIZE);
  }

  /** Digest, a view of the job's memory. */
  digest(i: number): Uint8Array {
    return this.#bytes.subarray(i * RECORD_SIZE + DIGEST_AT, (i + 1) * RECORD_SIZE);
  }

  /** Copy a digest. */
  copyDigest(i: number, target: Buffer, offset: number): void {
    this.#bytes.copy(target, offset, i * RECORD_SIZE + DIGEST_AT, (i + 1) * RECORD_SIZE);
  }
}

/** Numbers that describe a piece in `Job.pieces`. */
export const PIECE_FIELDS = 3;

/** One job on its way to a worker and back. */
export interface Job {
  /** records and data; it moves with the message, nobody shares it */
  buffer: ArrayBuffer;
  /** offset in the file, length, and size of the file, three numbers a piece; chunks are cut from the start of a piece */
  pieces: Float64Array;
  /** path of each piece, each ended by a NUL; undefined when the data is in the buffer already, piece after piece */
  paths: Uint8Array | undefined;
}

/**
 * Fill `data` from `at` to `at + length` with a piece of a file.
 *
 * @param isEnd the file ends behind the piece: one byte more is asked for, which tells a file that grew. `data` has room
 * @throws UsageError the file cannot be read, or has another size than it had
 */
function readPiece(
  path: Buffer,
  offset: number,
  data: Uint8Array,
  at: number,
  length: number,
  isEnd: boolean,
): void {
  const ask = isEnd ? length + 1 : length;
  let done = 0;
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      while (done < length) {
        const got = readSync(fd, data, at + done, ask - done, offset + done);
        if (got === 0) break;
        done += got;
      }
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new UsageError(`cannot read "${path.toString()}": ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
  if (done === length) return;
  throw new UsageError(
    `file "${path.toString()}" ${done < length ? 'ended at' : 'has more than'} ${offset + Math.min(done, length)} bytes` +
      (done < length
        ? `, ${offset + length} or more were there when the build began`
        : ' it had when the build began'),
    { exitCode: 1, hint: 'build from a tree that does not change' },
  );
}

/** Does the jobs of one thread. */
export class JobRunner {
  readonly #settings: JobSettings;
  readonly #scratch: Uint8Array;

  constructor(settings: JobSettings) {
    this.#settings = settings;
    this.#scratch =
      settings.compressor === 'none' ? new Uint8Array(0) : new Uint8Array(compressBound(settings.chunkSize));
  }

  /**
   * Do a job: afterwards the records are filled and the data part holds the stored bytes of all chunks without gaps.
   *
   * @throws UsageError a file cannot be read, or has another size than it had
   */
  run(job: Job): void {
    const { pieces, paths } = job;
    const data = jobData(job.buffer);
    const whole = new Uint8Array(job.buffer, RECORDS_SIZE);
    const records = new JobRecords(job.buffer);
    const { batchLimit } = this.#settings;
    let from = 0;
    let to = 0;
    let path = 0;
    for (let i = 0; i < pieces.length; i += PIECE_FIELDS) {
      const offset = pieces[i] as number;
      const length = pieces[i + 1] as number;
      const piece = data.subarray(from, from + length);
      // each piece is digested right after it was read, while it is in the caches of the core
      if (paths !== undefined) {
        const end = paths.indexOf(0, path);
        const name = Buffer.from(paths.buffer, paths.byteOffset + path, end - path);
        readPiece(name, offset, whole, from, length, offset + length === pieces[i + 2]);
        path = end + 1;
      }
      to = this.#chunks(piece, data, from, to, records, offset === 0 && length < batchLimit);
      from += length;
    }
  }

  /** Chunks of one piece; `data` is filled up to `to` with stored bytes, the piece lies at `from`. Returns the new `to`. */
  #chunks(
    piece: Uint8Array,
    data: Uint8Array,
    from: number,
    to: number,
    records: JobRecords,
    raw: boolean,
  ): number {
    const { chunkSize, compressor, digester } = this.#settings;
    for (let done = 0; done < piece.length; done += chunkSize) {
      const chunk =
        piece.length <= chunkSize ? piece : piece.subarray(done, Math.min(piece.length, done + chunkSize));
      const digest = digestOf(digester, chunk);
      const crc = crc32c(chunk);
      const packed = raw ? 0 : compressInto(compressor, chunk, this.#scratch);
      const stored = packed === 0 ? chunk.length : packed;
      // what is stored never starts behind what was read: compacting in place is safe
      if (packed !== 0) data.set(this.#scratch.subarray(0, packed), to);
      else if (to !== from + done) data.copyWithin(to, from + done, from + done + stored);
      records.push(stored, crc, digest);
      to += stored;
    }
    return to;
  }
}
