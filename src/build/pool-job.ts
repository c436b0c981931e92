// The work of one job: read pieces of files (or find them in the buffer), digest, CRC, compress, in place.
// Runs in the workers of the pool and, for small builds, on the main thread: the bytes are the same.
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { UsageError } from '../base/errors.ts';
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

/** Bytes of one result record: stored size, crc (u32 each), 8 unused, digest. */
export const RECORD_SIZE = 48;
/** Records of a job, hence chunks of a job. */
export const MAX_JOB_CHUNKS = 2048;
const RECORDS_SIZE = RECORD_SIZE * MAX_JOB_CHUNKS;
/** Data of a job: large enough that a message costs nothing beside the work, small enough for flat memory. */
const JOB_DATA = 4 * 1024 * 1024;

/** Data bytes that fit into one job. */
export function jobCapacity(chunkSize: number): number {
  return Math.max(JOB_DATA, chunkSize);
}

/** A buffer for one job: result records, then data. */
export function newJobBuffer(chunkSize: number): ArrayBuffer {
  return new ArrayBuffer(RECORDS_SIZE + jobCapacity(chunkSize));
}

/** The data part of a job buffer. */
export function jobData(buffer: ArrayBuffer): Uint8Array {
  return new Uint8Array(buffer, RECORDS_SIZE);
}

/** The records of a job buffer. */
export function jobRecords(buffer: ArrayBuffer): Buffer {
  return Buffer.from(buffer, 0, RECORDS_SIZE);
}

/** One job on its way to a worker and back. */
export interface Job {
  /** records and data; it moves with the message, nobody shares it */
  buffer: ArrayBuffer;
  /** offset in the file and length of each piece, alternating; chunks are cut from the start of a piece */
  pieces: Float64Array;
  /** path of each piece, each ended by a NUL; undefined when the data is in the buffer already, piece after piece */
  paths: Uint8Array | undefined;
}

/** Reads pieces of files; keeps the last file open, as large files come in many pieces. */
class PieceReader {
  #fd = -1;
  #path: Uint8Array = Buffer.alloc(0);

  read(path: Uint8Array, offset: number, target: Uint8Array): void {
    if (this.#fd < 0 || Buffer.compare(this.#path, path) !== 0) {
      this.close();
      this.#fd = openSync(Buffer.from(path.buffer, path.byteOffset, path.byteLength), constants.O_RDONLY | constants.O_NOFOLLOW);
      this.#path = path;
    }
    for (let done = 0; done < target.length; ) {
      const got = readSync(this.#fd, target, done, target.length - done, offset + done);
      if (got === 0) {
        throw new UsageError(`file "${Buffer.from(path).toString()}" ended at ${offset + done} bytes, it had ${offset + target.length} when the build began`, {
          exitCode: 1,
          hint: 'build from a tree that does not change',
        });
      }
      done += got;
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

/** Does the jobs of one thread. */
export class JobRunner {
  readonly #settings: JobSettings;
  readonly #scratch: Uint8Array;

  constructor(settings: JobSettings) {
    this.#settings = settings;
    this.#scratch = settings.compressor === 'none' ? new Uint8Array(0) : new Uint8Array(compressBound(settings.chunkSize));
  }

  /**
   * Do a job: afterwards the records are filled and the data part holds the stored bytes of all chunks without gaps.
   *
   * @throws UsageError a file became shorter
   */
  run(job: Job): void {
    const data = jobData(job.buffer);
    const reader = new PieceReader();
    try {
      if (job.paths !== undefined) this.#read(job.pieces, job.paths, data, reader);
    } finally {
      reader.close();
    }
    this.#process(job.pieces, data, jobRecords(job.buffer));
  }

  #read(pieces: Float64Array, paths: Uint8Array, data: Uint8Array, reader: PieceReader): void {
    let path = 0;
    let at = 0;
    for (let i = 0; i < pieces.length; i += 2) {
      const length = pieces[i + 1] as number;
      const end = paths.indexOf(0, path);
      reader.read(paths.subarray(path, end), pieces[i] as number, data.subarray(at, at + length));
      path = end + 1;
      at += length;
    }
  }

  #process(pieces: Float64Array, data: Uint8Array, records: Buffer): void {
    const { chunkSize, compressor, digester, batchLimit } = this.#settings;
    let from = 0;
    let to = 0;
    let record = 0;
    for (let i = 0; i < pieces.length; i += 2) {
      const length = pieces[i + 1] as number;
      const raw = pieces[i] === 0 && length < batchLimit;
      for (let done = 0; done < length; done += chunkSize) {
        const size = Math.min(chunkSize, length - done);
        const chunk = data.subarray(from, from + size);
        const digest = digestOf(digester, chunk);
        records.writeUInt32LE(crc32c(chunk), record + 4);
        records.set(digest, record + 16);
        const packed = raw ? 0 : compressInto(compressor, chunk, this.#scratch);
        const stored = packed === 0 ? size : packed;
        // what is stored never starts behind what was read: compacting in place is safe
        if (packed !== 0) data.set(this.#scratch.subarray(0, packed), to);
        else if (to !== from) data.copyWithin(to, from, from + size);
        records.writeUInt32LE(stored, record);
        to += stored;
        from += size;
        record += RECORD_SIZE;
      }
    }
  }
}
