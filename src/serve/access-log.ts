// Which inodes are used, from workers to the main thread: a ring in shared memory per worker, one writer, one reader.
// Only there when a statistic of nydusd.md 6.2 is switched on.

const HEAD = 0;
const TAIL = 1;
const LOST = 2;
const HEADER_BYTES = 64;
/** words per record: ino, (index * 32 + what) * 2^33 + failed * 2^32 + size, seconds */
const RECORD_WORDS = 3;
/** records; a power of two */
const CAPACITY = 16384;
/** how long a worker waits for the main thread to empty a full ring before it drops the record */
const FULL_WAIT_MS = 20;

export const ACCESS_LOG_BYTES = HEADER_BYTES + CAPACITY * RECORD_WORDS * 8;

/** `what` of a record that stands for no operation: the inode was looked up or listed. */
export const ENTERED = 15;

/** Kinds of records: operations and ENTERED. */
const WHATS = 32;

/** Takes one record. */
export type AccessRecord = (
  index: number,
  what: number,
  ino: number,
  size: number,
  failed: boolean,
  seconds: number,
) => void;

/** One thread's ring. */
export class AccessLog {
  readonly #control: Int32Array;
  readonly #records: Float64Array;
  readonly #wake: () => void;

  /** @param wake called by the writer when the ring is half full or full: the reader should drain it */
  constructor(buffer: SharedArrayBuffer, wake: () => void = () => {}) {
    this.#control = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.#records = new Float64Array(buffer, HEADER_BYTES, CAPACITY * RECORD_WORDS);
    this.#wake = wake;
  }

  /** Note one operation, or ENTERED. @param index backend index */
  add(index: number, what: number, ino: number, size: number, failed: boolean): void {
    const control = this.#control;
    const head = Atomics.load(control, HEAD);
    const used = (head - Atomics.load(control, TAIL)) >>> 0;
    if (used === CAPACITY / 2) this.#wake();
    if (used >= CAPACITY) {
      this.#wake();
      Atomics.wait(control, TAIL, Atomics.load(control, TAIL), FULL_WAIT_MS);
      if ((head - Atomics.load(control, TAIL)) >>> 0 >= CAPACITY) {
        Atomics.add(control, LOST, 1);
        return;
      }
    }
    const at = (head & (CAPACITY - 1)) * RECORD_WORDS;
    this.#records[at] = ino;
    this.#records[at + 1] = (index * WHATS + what) * 2 ** 33 + (failed ? 2 ** 32 : 0) + size;
    this.#records[at + 2] = Date.now() / 1000;
    Atomics.store(control, HEAD, (head + 1) | 0);
  }

  /** Hand every waiting record to `use`, oldest first, and make room. */
  drain(use: AccessRecord): void {
    const control = this.#control;
    const head = Atomics.load(control, HEAD);
    let tail = Atomics.load(control, TAIL);
    for (; tail !== head; tail = (tail + 1) | 0) {
      const at = (tail & (CAPACITY - 1)) * RECORD_WORDS;
      const word = this.#records[at + 1] ?? 0;
      const rest = word % 2 ** 33;
      const key = Math.floor(word / 2 ** 33);
      use(
        Math.floor(key / WHATS),
        key % WHATS,
        this.#records[at] ?? 0,
        rest % 2 ** 32,
        rest >= 2 ** 32,
        this.#records[at + 2] ?? 0,
      );
    }
    Atomics.store(control, TAIL, tail);
    Atomics.notify(control, TAIL);
  }

  /** Records dropped because the reader was too slow. */
  get lost(): number {
    return Atomics.load(this.#control, LOST);
  }
}
