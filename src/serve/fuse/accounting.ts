// Statistics per inode, gathered from the workers' rings on the main thread. Source: nydusd.md 6.2.
import { ENTERED, type AccessLog, type AccessRecord } from '../access-log.ts';
import { BUCKETS, Fop, FOP_COUNT, sizeBucket } from '../counters.ts';

/** Which statistics are kept. */
export interface AccountingOptions {
  /** per inode counters: `iostats_files` */
  files: boolean;
  /** number and time of reads per inode: `access_pattern` */
  pattern: boolean;
  /** inodes read lately: `latest_read_files` */
  latest: boolean;
}

/** Counters of one inode. */
export interface FileStats {
  total_fops: number;
  data_read: number;
  block_count_read: number[];
  fop_hits: number[];
  fop_errors: number[];
}

/** First use of one inode. */
export interface AccessPattern {
  ino: number;
  nr_read: number;
  first_access_time_secs: number;
  first_access_time_nanos: number;
}

/** Inodes kept in each table; stops an image with very many files from filling the memory. */
export const MAX_ACCOUNTED_INODES = 1_000_000;

const DRAIN_INTERVAL_MS = 100;

/** Keeps the statistics of all mounts of a session. */
export class Accounting {
  readonly #logs: AccessLog[] = [];
  readonly #mounts = new Map<number, MountAccounting>();
  readonly #timer: NodeJS.Timeout;

  constructor() {
    this.#timer = setInterval(() => this.drain(), DRAIN_INTERVAL_MS);
    this.#timer.unref();
  }

  /** Gather from this ring too. */
  add(log: AccessLog): void {
    this.#logs.push(log);
  }

  /** Keep statistics of a backend index from now on, from nothing; undefined options end it. */
  setMount(index: number, options: AccountingOptions | undefined): void {
    if (this.#mounts.size > 0) this.drain();
    if (options === undefined) this.#mounts.delete(index);
    else if (isWanted(options)) this.#mounts.set(index, new MountAccounting(options));
  }

  /** The statistics of a backend index; undefined where none is kept. */
  mount(index: number): MountAccounting | undefined {
    this.drain();
    return this.#mounts.get(index);
  }

  /** Take what waits in the rings. */
  drain(): void {
    if (this.#mounts.size > 0) for (const log of this.#logs) log.drain(this.record);
  }

  stop(): void {
    clearInterval(this.#timer);
    this.drain();
  }

  /** Count one operation. `what` is a Fop number or ENTERED. */
  readonly record: AccessRecord = (index, what, ino, size, failed, seconds) => {
    this.#mounts.get(index)?.record(what, ino, size, failed, seconds);
  };
}

/** Whether anything is to be kept. */
export function isWanted({ files, pattern, latest }: AccountingOptions): boolean {
  return files || pattern || latest;
}

/** Statistics of one mount. */
export class MountAccounting {
  readonly #options: AccountingOptions;
  readonly #files = new Map<number, FileStats>();
  readonly #patterns = new Map<number, AccessPattern>();
  readonly #latest = new Set<number>();

  constructor(options: AccountingOptions) {
    this.#options = options;
  }

  /** Count one operation. `what` is a Fop number or ENTERED. */
  record(what: number, ino: number, size: number, failed: boolean, seconds: number): void {
    if (this.#options.files) this.#count(what, ino, size, failed);
    if (what !== Fop.read || failed) return;
    if (this.#options.pattern) this.#notePattern(ino, seconds);
    if (this.#options.latest && this.#latest.size < MAX_ACCOUNTED_INODES) this.#latest.add(ino);
  }

  #count(what: number, ino: number, size: number, failed: boolean): void {
    let stats = this.#files.get(ino);
    if (stats === undefined) {
      if (this.#files.size >= MAX_ACCOUNTED_INODES) return;
      const zeros = (length: number): number[] => Array.from({ length }, () => 0);
      stats = {
        total_fops: 0,
        data_read: 0,
        block_count_read: zeros(BUCKETS),
        fop_hits: zeros(FOP_COUNT),
        fop_errors: zeros(FOP_COUNT),
      };
      this.#files.set(ino, stats);
    }
    if (what === ENTERED) return;
    stats.total_fops++;
    const list = failed ? stats.fop_errors : stats.fop_hits;
    list[what] = (list[what] ?? 0) + 1;
    if (what !== Fop.read || failed) return;
    const bucket = sizeBucket(size);
    stats.data_read += size;
    stats.block_count_read[bucket] = (stats.block_count_read[bucket] ?? 0) + 1;
  }

  #notePattern(ino: number, seconds: number): void {
    const known = this.#patterns.get(ino);
    if (known !== undefined) known.nr_read++;
    else if (this.#patterns.size < MAX_ACCOUNTED_INODES) {
      const whole = Math.floor(seconds);
      this.#patterns.set(ino, {
        ino,
        nr_read: 1,
        first_access_time_secs: whole,
        first_access_time_nanos: Math.floor((seconds - whole) * 1e9),
      });
    }
  }

  /** Counters by inode number. */
  files(): Record<string, FileStats> {
    return Object.fromEntries(this.#files);
  }

  /** Inodes that were read. */
  pattern(): AccessPattern[] {
    return [...this.#patterns.values()];
  }

  /** Ranges of inodes read since the last call: `[first, last]` or `[single]`, ascending. */
  takeLatest(): number[][] {
    const ranges: number[][] = [];
    for (const ino of [...this.#latest].sort((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last !== undefined && (last[1] ?? last[0]) === ino - 1) last[1] = ino;
      else ranges.push([ino]);
    }
    this.#latest.clear();
    return ranges;
  }
}
