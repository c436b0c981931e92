// Counters of one backend, spelled as `/metrics/backend` shows them. Source: nydusd.md 6.3; `outage` and `hedge` are ours.
import type { HedgeMetrics } from './hedge.ts';
import type { OutageMetrics } from './outage.ts';

/** Content of `/metrics/backend`. */
export interface BackendMetrics {
  backend_type: string;
  read_count: number;
  read_errors: number;
  /** bytes */
  read_amount_total: number;
  read_cumulative_latency_millis_total: number;
  /** by size bucket */
  read_cumulative_latency_millis_dist: number[];
  /** by size bucket */
  read_count_block_size_dist: number[];
  /** by size bucket, then latency bucket */
  read_latency_sizes_dist: number[][];
  /** HTTP backends only */
  outage?: OutageMetrics;
  hedge?: HedgeMetrics;
}

/** Lower bounds of the size buckets after the first, in bytes, inclusive. */
const SIZE_BOUNDS = [1024, 4096, 16384, 65536, 131072, 524288, 1048576];
/** Upper bounds of the latency buckets but the last, in milliseconds, inclusive. */
const LATENCY_BOUNDS = [1, 20, 50, 100, 500, 1000, 2000];

function sizeBucket(size: number): number {
  let bucket = 0;
  while (bucket < SIZE_BOUNDS.length && size >= (SIZE_BOUNDS[bucket] ?? 0)) bucket++;
  return bucket;
}

function latencyBucket(millis: number): number {
  let bucket = 0;
  while (bucket < LATENCY_BOUNDS.length && millis > (LATENCY_BOUNDS[bucket] ?? 0)) bucket++;
  return bucket;
}

const BUCKETS = 8;

function zeros(): number[] {
  return new Array<number>(BUCKETS).fill(0);
}

export class BackendMeter {
  /** set by backends that can be down */
  outage: (() => OutageMetrics) | undefined;
  /** set by backends that send stalled requests again; counts for the host */
  hedge: (() => HedgeMetrics) | undefined;
  #reads = 0;
  #errors = 0;
  #bytes = 0;
  #millis = 0;
  readonly #millisBySize = zeros();
  readonly #countBySize = zeros();
  readonly #latencyBySize = Array.from({ length: BUCKETS }, zeros);

  /** One finished read. @param bytes what arrived, negative when it failed */
  record(bytes: number, millis: number): void {
    this.#reads++;
    if (bytes < 0) {
      this.#errors++;
      return;
    }
    const size = sizeBucket(bytes);
    this.#bytes += bytes;
    this.#millis += millis;
    this.#millisBySize[size] = (this.#millisBySize[size] ?? 0) + millis;
    this.#countBySize[size] = (this.#countBySize[size] ?? 0) + 1;
    const latencies = this.#latencyBySize[size];
    const latency = latencyBucket(millis);
    if (latencies !== undefined) latencies[latency] = (latencies[latency] ?? 0) + 1;
  }

  metrics(type: string): BackendMetrics {
    return {
      backend_type: type,
      read_count: this.#reads,
      read_errors: this.#errors,
      read_amount_total: this.#bytes,
      read_cumulative_latency_millis_total: Math.floor(this.#millis),
      read_cumulative_latency_millis_dist: this.#millisBySize.map(Math.floor),
      read_count_block_size_dist: [...this.#countBySize],
      read_latency_sizes_dist: this.#latencyBySize.map((row) => [...row]),
      ...(this.outage === undefined ? {} : { outage: this.outage() }),
      ...(this.hedge === undefined ? {} : { hedge: this.hedge() }),
    };
  }
}
