// From stored bytes to verified plain bytes in the data file: one job covers consecutive chunks of one ranged read.
// Runs on the main thread for small jobs and in decode-worker.ts for big ones; a job is structured-cloneable.
import { messageOf } from '../../base/errors.ts';
import { toHex } from '../../base/bytes.ts';
import type { CompressorName, DigesterName } from '../../codec/algorithms.ts';
import { decompressInto } from '../../codec/compress.ts';
import { crc32c } from '../../codec/crc32c.ts';
import { digestOf } from '../../codec/digest.ts';
import { isXtsKey, openPages, sealPages } from '../../codec/xts.ts';
import { cloneRange } from '../../native/clone-range.ts';
import { addressOf, preadFull, pwriteFull } from '../../native/file-io.ts';
import { bitOf } from './chunk-map.ts';

/** Where decoded chunks go: to a plain or an encrypted cache file, as stored bytes to a raw one, or only back to the caller. */
export type DecodeTarget = 'plain' | 'sealed' | 'raw' | 'memory';

/** Encryption of a cache file: one key for all chunks, or the digest of each chunk. Source: blob-and-cache.md 17.10. */
export interface Seal {
  key: Uint8Array | undefined;
}

/** Key of a chunk whose digest is no key, its halves being equal (17.10). */
const FIXED_KEY = Buffer.from('aced146994231eca448ced2f6b400c00fdbb3facddc7d9ee83f65cd93caa287c', 'hex');

/** Numbers per chunk in `DecodeJob.layout`. */
export const LAYOUT_FIELDS = 9;
/** Position of each number. Offsets into the blob are relative to `DecodeJob.offset`. */
export const Layout = {
  index: 0,
  storedOffset: 1,
  storedSize: 2,
  unitSize: 3,
  offsetInUnit: 4,
  plainSize: 5,
  plainOffset: 6,
  /** CRC-32C, or -1 */
  crc: 7,
  /** DecodeFlag */
  flags: 8,
} as const;

export const DecodeFlag = {
  compressed: 1,
  hasDigest: 2,
  /** the caller wants the plain bytes back even when they are in a file now */
  wanted: 4,
} as const;

export interface DecodeJob {
  /** file to read from, or -1 when `stored` has the bytes */
  sourceFd: number;
  /** bytes of the range, when they did not come from `sourceFd` */
  stored: Uint8Array | undefined;
  /** position of the range in the blob, and its length */
  offset: number;
  length: number;
  compressor: CompressorName;
  digester: DigesterName;
  target: DecodeTarget;
  /** data file; -1 for `memory` */
  dataFd: number;
  /** in-process ready bits, set after the data was written */
  ready: Uint8Array;
  /** LAYOUT_FIELDS numbers a chunk, in order of their stored offsets */
  layout: Float64Array;
  /** 32 bytes a chunk; zero where there is none */
  digests: Uint8Array;
  /** for the target `sealed`, and for `opens` */
  seal?: Seal | undefined;
  /** the source is an encrypted cache file */
  opens?: boolean | undefined;
  /** the source is a plain cache file: once verified, its blocks may be shared instead of written again */
  clones?: boolean | undefined;
}

/** What happened to one chunk. */
export const ChunkOutcome = { bad: 0, cached: 1, decoded: 2 } as const;

export interface ChunkFailure {
  /** chunk index in the blob */
  index: number;
  /** what is wrong: both values */
  problem: string;
}

export interface DecodeResult {
  /** ChunkOutcome by position in the job: bad, in the data file, or decoded but not written */
  outcomes: Uint8Array;
  failures: ChunkFailure[];
  /** plain bytes of wanted chunks, by chunk index */
  plain: Map<number, Uint8Array>;
  /** bytes read from the source: negative errno on failure, short when the blob is shorter */
  got: number;
  /** milliseconds of the read from `sourceFd` */
  readMillis: number;
  /** milliseconds of the whole job */
  millis: number;
  /** errno of a failed write to the data file, else 0 */
  writeErrno: number;
  /** plain bytes that passed their check */
  plainBytes: number;
  /** bytes whose blocks are shared with the source */
  cloned: number;
}

/** Written in one go at most; also the usual size of the scratch buffers. */
const RUN_BYTES = 2 * 1024 * 1024;
/** Chunks of v6 start at block boundaries: the padding between two of them is written with them, as zeros. */
const BLOCK = 4096;
/** Less than this is written rather than shared: an extent of its own costs more than the bytes. */
const MIN_CLONE = 64 * 1024;

/** Buffers that live as long as the thread. */
export class DecodeScratch {
  #source = new Uint8Array(0);
  #run = new Uint8Array(0);
  #unit = new Uint8Array(0);

  source(size: number): Uint8Array {
    if (this.#source.length < size) this.#source = new Uint8Array(Math.max(size, RUN_BYTES / 2));
    return this.#source;
  }

  run(size: number): Uint8Array {
    if (this.#run.length < size) this.#run = new Uint8Array(Math.max(size, RUN_BYTES));
    return this.#run;
  }

  unit(size: number): Uint8Array {
    if (this.#unit.length < size) this.#unit = new Uint8Array(size);
    return this.#unit;
  }

  /** Give the memory back. */
  release(): void {
    this.#source = this.#run = this.#unit = new Uint8Array(0);
  }
}

/** Decoded chunks that follow each other in the data file, written with one call. */
interface Run {
  start: number;
  length: number;
  /** positions in the job */
  chunks: number[];
}

class Decoder {
  readonly #job: DecodeJob;
  readonly #scratch: DecodeScratch;
  readonly #buffer: Uint8Array;
  readonly #result: DecodeResult;
  #stored: Uint8Array = new Uint8Array(0);
  #run: Run = { start: 0, length: 0, chunks: [] };
  /** stored offset of the batch that is decoded in the unit buffer */
  #unitAt = -1;
  /** stored offset that was written to the raw file last: chunks of one batch share it */
  #rawAt = -1;
  /** the filesystem shares no blocks between the two files */
  #cannotClone = false;

  constructor(job: DecodeJob, scratch: DecodeScratch) {
    this.#job = job;
    this.#scratch = scratch;
    const count = job.layout.length / LAYOUT_FIELDS;
    let largest = 0;
    for (let i = 0; i < count; i++) largest = Math.max(largest, this.#get(i, Layout.plainSize));
    this.#buffer = scratch.run(Math.max(RUN_BYTES, largest));
    this.#result = {
      outcomes: new Uint8Array(count),
      failures: [],
      plain: new Map(),
      got: 0,
      readMillis: 0,
      millis: 0,
      writeErrno: 0,
      plainBytes: 0,
      cloned: 0,
    };
  }

  #get(at: number, field: number): number {
    return this.#job.layout[at * LAYOUT_FIELDS + field] ?? 0;
  }

  run(): DecodeResult {
    const result = this.#result;
    const started = performance.now();
    if (!this.#load()) return result;
    for (let at = 0; at < result.outcomes.length; at++) this.#chunk(at);
    this.#flush();
    result.millis = performance.now() - started;
    return result;
  }

  #load(): boolean {
    const { sourceFd, stored, offset, length } = this.#job;
    const result = this.#result;
    if (stored !== undefined) {
      this.#stored = stored;
      result.got = stored.length;
      return true;
    }
    const buffer = this.#scratch.source(length);
    const started = performance.now();
    result.got = preadFull(sourceFd, addressOf(buffer), length, offset);
    result.readMillis = performance.now() - started;
    if (result.got < 0) return false;
    this.#stored = buffer.subarray(0, result.got);
    return true;
  }

  #chunk(at: number): void {
    const size = this.#get(at, Layout.plainSize);
    const start = this.#get(at, Layout.plainOffset);
    if (!this.#continuesRun(at, start, size)) this.#flush();
    const run = this.#run;
    if (run.chunks.length === 0) run.start = start;
    const from = start - run.start;
    const target = this.#buffer.subarray(from, from + size);
    const problem = this.#decode(at, target) ?? this.#verify(at, target);
    if (problem !== undefined) {
      this.#result.failures.push({ index: this.#get(at, Layout.index), problem });
      return;
    }
    this.#buffer.fill(0, run.length, from);
    this.#result.plainBytes += size;
    run.length = from + size;
    run.chunks.push(at);
  }

  /**
   * True when a chunk can be written together with the run. Only neighbours by index join over a gap: what lies between
   * two others may be a chunk that another daemon has put there.
   */
  #continuesRun(at: number, start: number, size: number): boolean {
    const { chunks, start: runStart, length } = this.#run;
    const last = chunks.at(-1);
    if (last === undefined) return true;
    if (this.#job.target !== 'plain' || start + size - runStart > this.#buffer.length) return false;
    const gap = start - (runStart + length);
    if (this.#job.clones === true) return gap === 0 && this.#shift(last) === this.#shift(at);
    if (gap === 0) return true;
    return (
      gap > 0 &&
      gap < BLOCK &&
      last === at - 1 &&
      this.#get(last, Layout.index) + 1 === this.#get(at, Layout.index)
    );
  }

  /** From the place of a chunk in its file to that in the source. */
  #shift(at: number): number {
    return this.#job.offset + this.#get(at, Layout.storedOffset) - this.#get(at, Layout.plainOffset);
  }

  /** @returns what is wrong */
  #decode(at: number, target: Uint8Array): string | undefined {
    const flags = this.#get(at, Layout.flags);
    const storedAt = this.#get(at, Layout.storedOffset);
    const storedSize = this.#get(at, Layout.storedSize);
    const unitSize = this.#get(at, Layout.unitSize);
    if (storedAt + storedSize > this.#stored.length) {
      return `needs ${storedSize} bytes at ${this.#job.offset + storedAt}, the blob ends at ${this.#job.offset + this.#stored.length}`;
    }
    const stored = this.#stored.subarray(storedAt, storedAt + storedSize);
    const compressor = (flags & DecodeFlag.compressed) !== 0 ? this.#job.compressor : 'none';
    try {
      if (this.#job.opens === true) {
        const key = this.#key(at);
        if (key === undefined) return 'has no digest to decrypt it with';
        openPages(key, stored, target);
        return undefined;
      }
      if (unitSize === target.length) {
        decompressInto(compressor, stored, target);
        return undefined;
      }
      const unit = this.#scratch.unit(unitSize).subarray(0, unitSize);
      if (this.#unitAt !== storedAt) {
        this.#unitAt = -1;
        decompressInto(compressor, stored, unit);
        this.#unitAt = storedAt;
      }
      const from = this.#get(at, Layout.offsetInUnit);
      target.set(unit.subarray(from, from + target.length));
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }

  /** Key of a chunk in an encrypted cache file; undefined when it would be a digest that is not known. */
  #key(at: number): Uint8Array | undefined {
    const { seal, digests } = this.#job;
    if (seal?.key !== undefined) return seal.key;
    if ((this.#get(at, Layout.flags) & DecodeFlag.hasDigest) === 0) return undefined;
    const digest = digests.subarray(at * 32, at * 32 + 32);
    return isXtsKey(digest) ? digest : FIXED_KEY;
  }

  /** @returns what is wrong */
  #verify(at: number, plain: Uint8Array): string | undefined {
    if ((this.#get(at, Layout.flags) & DecodeFlag.hasDigest) !== 0) {
      const expected = this.#job.digests.subarray(at * 32, at * 32 + 32);
      const got = digestOf(this.#job.digester, plain);
      return got.equals(expected) ? undefined : `digest ${toHex(got)}, expected ${toHex(expected)}`;
    }
    const expected = this.#get(at, Layout.crc);
    if (expected < 0) return undefined;
    const got = crc32c(plain);
    return got === expected ? undefined : `crc ${got.toString(16)}, expected ${expected.toString(16)}`;
  }

  #flush(): void {
    const { chunks, start, length } = this.#run;
    if (chunks.length === 0) return;
    this.#run = { start: 0, length: 0, chunks: [] };
    const cached = this.#write(chunks, start, length);
    for (const at of chunks) {
      const index = this.#get(at, Layout.index);
      this.#result.outcomes[at] = cached ? ChunkOutcome.cached : ChunkOutcome.decoded;
      if (cached) Atomics.or(this.#job.ready, index >> 3, bitOf(index));
      const fileIsEnough = cached && this.#job.target === 'plain';
      if (fileIsEnough || (this.#get(at, Layout.flags) & DecodeFlag.wanted) === 0) continue;
      const from = this.#get(at, Layout.plainOffset) - start;
      this.#result.plain.set(index, this.#buffer.slice(from, from + this.#get(at, Layout.plainSize)));
    }
  }

  /**
   * Share the blocks of the source where the filesystem can. Whole blocks only: what follows in the last one is another chunk's.
   *
   * @returns bytes from the start that need no writing
   */
  #clone(from: number, to: number, length: number): number {
    const { clones, sourceFd, dataFd } = this.#job;
    if (clones !== true || this.#cannotClone || length < MIN_CLONE) return 0;
    if (from % BLOCK !== 0 || to % BLOCK !== 0) return 0;
    const whole = length - (length % BLOCK);
    this.#cannotClone = cloneRange(dataFd, to, sourceFd, from, whole) !== 0;
    if (this.#cannotClone) return 0;
    this.#result.cloned += whole;
    return whole;
  }

  #write(chunks: readonly number[], start: number, length: number): boolean {
    const { target, dataFd, offset } = this.#job;
    if (target === 'memory' || dataFd < 0 || this.#result.writeErrno !== 0) return false;
    const at = chunks[0] ?? 0;
    if (target === 'plain') {
      const done = this.#clone(start + this.#shift(at), start, length);
      const address = addressOf(this.#buffer) + done;
      this.#result.writeErrno = pwriteFull(dataFd, address, length - done, start + done);
      return this.#result.writeErrno === 0;
    }
    if (target === 'sealed') {
      const key = this.#key(at);
      if (key === undefined) return false;
      const sealed = sealPages(key, this.#buffer.subarray(0, length));
      this.#result.writeErrno = pwriteFull(dataFd, addressOf(sealed), sealed.length, start);
      return this.#result.writeErrno === 0;
    }
    const from = this.#get(at, Layout.storedOffset);
    if (this.#rawAt === from) return true;
    const address = addressOf(this.#stored) + from;
    this.#result.writeErrno = pwriteFull(dataFd, address, this.#get(at, Layout.storedSize), offset + from);
    if (this.#result.writeErrno === 0) this.#rawAt = from;
    return this.#result.writeErrno === 0;
  }
}

/**
 * Read, decode, verify and write the chunks of a job. A chunk that fails its check is neither written nor given back;
 * the others are. Never throws for bad data.
 */
export function runDecode(job: DecodeJob, scratch: DecodeScratch): DecodeResult {
  return new Decoder(job, scratch).run();
}
