// What the main thread and the thread that reads events tell each other.
import type { RangeMemory } from '../../rafs/blob-ranges.ts';

/** Requests that a thread answered by itself, and their bytes, in `FedBlob.allowed`. */
export function countAllowed(counts: Float64Array, bytes: number): void {
  counts[0] = (counts[0] ?? 0) + 1;
  counts[1] = (counts[1] ?? 0) + bytes;
}

/** What the thread is started with. */
export interface FeedStart {
  /** fanotify group, blocking */
  groupFd: number;
  journalFd: number;
  /** FeedWords */
  words: SharedArrayBuffer;
  mainTid: number;
}

/** News for the thread; fetched when the generation word has moved. */
export type FeedNews =
  /** a blob whose events come */
  | {
      type: 'blob';
      id: number;
      dev: number;
      ino: number;
      ready: SharedArrayBuffer;
      allowed: SharedArrayBuffer;
    }
  /** where its chunks are: until then every event of it goes to the main thread */
  | { type: 'ranges'; id: number; memory: RangeMemory }
  | { type: 'drop'; id: number };

/** An event whose bytes are not known to be local; the main thread answers it. */
export interface NeedReport {
  type: 'need';
  slot: number;
  fd: number;
  /** UNKNOWN_BLOB: look at the file behind `fd` */
  blob: number;
  offset: number;
  count: number;
}

export type FeedReport = NeedReport | { type: 'error'; message: string } | { type: 'end'; errno: number };

/** What the thread that serves flat files is started with. */
export interface FlatStart {
  /** /dev/fuse, blocking */
  deviceFd: number;
  /** FeedWords */
  words: SharedArrayBuffer;
}

/** News for it; `size` and `fd` are those of the data file. */
export type FlatNews =
  | {
      type: 'blob';
      id: number;
      size: number;
      fd: number;
      ready: SharedArrayBuffer;
      allowed: SharedArrayBuffer;
    }
  | { type: 'ranges'; id: number; memory: RangeMemory }
  | { type: 'drop'; id: number };

/** A read that the main thread answers. */
export interface FlatNeed {
  type: 'need';
  id: number;
  uniqueLow: number;
  uniqueHigh: number;
  offset: number;
  size: number;
}

export type FlatReport = FlatNeed | { type: 'ready' } | { type: 'end'; errno: number };

const STOP = 0;
const GENERATION = 1;
const TID = 2;
const DONE = 3;
const ALLOWED = 2;
const BYTES = 3;

/** Words shared by the two threads. */
export class FeedWords {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(64)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#doubles = new Float64Array(buffer);
  }

  get stopping(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }

  stop(): void {
    Atomics.store(this.#words, STOP, 1);
  }

  /** Counts the news. */
  get generation(): number {
    return Atomics.load(this.#words, GENERATION);
  }

  announce(): void {
    Atomics.add(this.#words, GENERATION, 1);
  }

  /** Kernel id of the thread; 0 before it has begun. */
  get tid(): number {
    return Atomics.load(this.#words, TID);
  }

  set tid(id: number) {
    Atomics.store(this.#words, TID, id);
  }

  get done(): boolean {
    return Atomics.load(this.#words, DONE) !== 0;
  }

  setDone(): void {
    Atomics.store(this.#words, DONE, 1);
  }

  /** Events that the thread answered by itself, and their bytes; written by it alone. */
  countAllowed(bytes: number): void {
    this.#doubles[ALLOWED] = (this.#doubles[ALLOWED] ?? 0) + 1;
    this.#doubles[BYTES] = (this.#doubles[BYTES] ?? 0) + bytes;
  }

  get allowed(): number {
    return this.#doubles[ALLOWED] ?? 0;
  }

  get allowedBytes(): number {
    return this.#doubles[BYTES] ?? 0;
  }
}
