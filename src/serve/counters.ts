// Filesystem counters in shared memory: one block per thread, written by that thread alone, summed by whoever reads.
// Numbers are doubles (exact to 2^53), so an increment needs no atomic operation. Source: nydusd.md 6.1.

/** Operations in the order of `fop_hits`. */
export const Fop = {
  getattr: 0,
  readlink: 1,
  open: 2,
  release: 3,
  read: 4,
  statfs: 5,
  getxattr: 6,
  listxattr: 7,
  opendir: 8,
  lookup: 9,
  readdir: 10,
  readdirplus: 11,
  access: 12,
  forget: 13,
  batchForget: 14,
} as const;

export const FOP_COUNT = 15;
export const BUCKETS = 8;

const DATA_READ = 0;
const NR_OPENS = 1;
const BLOCK_COUNT = 2;
const HITS = BLOCK_COUNT + BUCKETS;
const ERRORS = HITS + FOP_COUNT;
const LATENCY = ERRORS + FOP_COUNT;
const LATENCY_DIST = LATENCY + FOP_COUNT;
const WORDS = LATENCY_DIST + BUCKETS;

/** Bytes of one block, a multiple of 64 so that threads do not share a cache line. */
export const COUNTER_BYTES = Math.ceil((WORDS * 8) / 64) * 64;

/** Backend indexes, 0 among them. */
export const BACKENDS = 256;
export const COUNTER_SET_BYTES = COUNTER_BYTES * BACKENDS;

/** Counter fields of the API's `/metrics`. */
export interface FsStats {
  nr_opens: number;
  data_read: number;
  block_count_read: number[];
  fop_hits: number[];
  fop_errors: number[];
  fop_cumulative_latency_total: number[];
  read_latency_dist: number[];
}

/** Bucket of a read by size: `<1K, 1K~, 4K~, 16K~, 64K~, 128K~, 512K~, 1M~`. */
export function sizeBucket(size: number): number {
  if (size < 16384) return size < 1024 ? 0 : size < 4096 ? 1 : 2;
  if (size < 131072) return size < 65536 ? 3 : 4;
  return size < 524288 ? 5 : size < 1048576 ? 6 : 7;
}

/** Bucket of a read by duration: at most 200 µs, 1, 20, 50, 500 ms, 1, 2 s, longer. */
export function latencyBucket(micros: number): number {
  if (micros <= 50_000) return micros <= 200 ? 0 : micros <= 1000 ? 1 : micros <= 20_000 ? 2 : 3;
  return micros <= 500_000 ? 4 : micros <= 1_000_000 ? 5 : micros <= 2_000_000 ? 6 : 7;
}

/** One thread's block. */
export class Counters {
  readonly #words: Float64Array;

  constructor(buffer: ArrayBufferLike, offset = 0) {
    this.#words = new Float64Array(buffer, offset, WORDS);
  }

  /** An operation other than READ is done. */
  count(fop: number, micros: number, success: boolean): void {
    const words = this.#words;
    const at = (success ? HITS : ERRORS) + fop;
    words[at] = (words[at] ?? 0) + 1;
    words[LATENCY + fop] = (words[LATENCY + fop] ?? 0) + micros;
    if (fop === Fop.open && success) words[NR_OPENS] = (words[NR_OPENS] ?? 0) + 1;
  }

  /** Back to zero; only while no thread serves what is counted. */
  reset(): void {
    this.#words.fill(0);
  }

  /** A READ is done. @param size bytes returned; counted when it succeeded */
  countRead(size: number, micros: number, success: boolean): void {
    const words = this.#words;
    this.count(Fop.read, micros, success);
    if (success) {
      const block = BLOCK_COUNT + sizeBucket(size);
      words[block] = (words[block] ?? 0) + 1;
      words[DATA_READ] = (words[DATA_READ] ?? 0) + size;
    }
    const bucket = LATENCY_DIST + latencyBucket(micros);
    words[bucket] = (words[bucket] ?? 0) + 1;
  }

  /** Add this block to a sum. */
  addTo(sum: FsStats): void {
    const words = this.#words;
    const add = (list: number[], start: number): void => {
      for (let i = 0; i < list.length; i++) list[i] = (list[i] ?? 0) + Math.floor(words[start + i] ?? 0);
    };
    sum.nr_opens += words[NR_OPENS] ?? 0;
    sum.data_read += words[DATA_READ] ?? 0;
    add(sum.block_count_read, BLOCK_COUNT);
    add(sum.fop_hits, HITS);
    add(sum.fop_errors, ERRORS);
    add(sum.fop_cumulative_latency_total, LATENCY);
    add(sum.read_latency_dist, LATENCY_DIST);
  }
}

/** The blocks of one thread, one for each backend index; 0 counts what belongs to no backend. */
export class CounterSet {
  readonly #buffer: ArrayBufferLike;
  readonly #offset: number;
  readonly #blocks: (Counters | undefined)[] = Array.from({ length: BACKENDS });

  /** @param buffer COUNTER_SET_BYTES from `offset` on */
  constructor(buffer: ArrayBufferLike, offset = 0) {
    this.#buffer = buffer;
    this.#offset = offset;
  }

  /** Counters of a backend index. */
  at(index: number): Counters {
    return (this.#blocks[index] ??= new Counters(this.#buffer, this.#offset + index * COUNTER_BYTES));
  }
}

/** Counters at zero. */
export function emptyStats(): FsStats {
  const zeros = (length: number): number[] => Array.from({ length }, () => 0);
  return {
    nr_opens: 0,
    data_read: 0,
    block_count_read: zeros(BUCKETS),
    fop_hits: zeros(FOP_COUNT),
    fop_errors: zeros(FOP_COUNT),
    fop_cumulative_latency_total: zeros(FOP_COUNT),
    read_latency_dist: zeros(BUCKETS),
  };
}
