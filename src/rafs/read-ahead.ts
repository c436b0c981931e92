// Keeps a few MiB ahead of a reader that goes through a blob in order: while it copies what is local, the next chunks are
// fetched and decoded on the other core. Starts with the second miss in a row, ends when the reader stops.
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import { rangeOf } from '../storage/cache/fetch-plan.ts';
import { MIB } from '../base/limits.ts';

/** Plain bytes kept ready in front of the reader. Measured in docs/measured-first-read.md, like the numbers below. */
const AHEAD_BYTES = 12 * MIB;
/** Plain bytes of one step: one decode job. */
const STEP_BYTES = MIB;
/** Steps under way at the same time. */
const STEPS = 4;
/** How often the position of the reader is looked at while enough is ready: at 1 GB/s it takes a quarter of that meanwhile. */
const POLL_MS = 3;
/** A reader that did not move for this long has stopped. */
const QUIET_MS = 100;

/** What read-ahead needs of a blob cache. */
export type AheadCache = Pick<BlobCache, 'map' | 'table' | 'isMissing' | 'prefetch'>;

export class ReadAhead {
  readonly #cache: AheadCache;
  readonly #positions: Int32Array;
  readonly #blobIndex: number;
  /** chunk after those that the last miss brought; a miss there means reading in order */
  #expected = -1;
  #running = false;
  #stopped = false;

  /** @param positions chunk read last by blob index, kept by LocalReader */
  constructor(cache: AheadCache, positions: Int32Array, blobIndex: number) {
    this.#cache = cache;
    this.#positions = positions;
    this.#blobIndex = blobIndex;
  }

  /** The fetch of a chunk that a reader missed is over, with what came along. */
  fetched(index: number): void {
    if (!this.#running) this.#expected = this.#nextMissing(index);
  }

  /** A reader missed this chunk; call when its fetch has been started. @param _file a disk costs nothing to ask again */
  miss(index: number, _file?: unknown): void {
    if (index !== this.#expected || this.#running || this.#stopped) return;
    Atomics.store(this.#positions, this.#blobIndex, index);
    this.#running = true;
    this.#run()
      // what failed shows when a reader asks for it
      .catch(() => {})
      .finally(() => (this.#running = false));
  }

  stop(): void {
    this.#stopped = true;
  }

  #nextMissing(from: number): number {
    let index = from;
    while (index < this.#cache.map.count && !this.#cache.isMissing(index)) index++;
    return index;
  }

  async #run(): Promise<void> {
    const table = await this.#cache.table();
    const steps = new Set<Promise<void>>();
    let position = this.#position();
    let movedAt = performance.now();
    let next = this.#expected;
    while (!this.#stopped && next < table.count) {
      const now = this.#position();
      if (now !== position) {
        // far behind or far in front: somebody else reads, or the reader has jumped
        if (now < position - table.count / 2 || now > next) break;
        position = now;
        movedAt = performance.now();
      }
      if (steps.size >= STEPS) {
        // each catches its own failure: what failed shows when a reader asks for it
        await Promise.race(steps);
        continue;
      }
      if (table.plainOffset(next) - table.plainOffset(position) >= AHEAD_BYTES) {
        // with a slow backend the reader stands still because it waits for a step
        if (steps.size > 0) movedAt = performance.now();
        else if (performance.now() - movedAt > QUIET_MS) break;
        await new Promise((resolve) => void setTimeout(resolve, POLL_MS));
        continue;
      }
      const chunks: number[] = [];
      for (let bytes = 0; next < table.count && bytes < STEP_BYTES; next++) {
        if (!this.#cache.isMissing(next)) continue;
        chunks.push(next);
        bytes += table.plainSize(next);
      }
      if (chunks.length === 0) continue;
      const step = this.#cache
        .prefetch(rangeOf(table, chunks))
        .catch(() => {})
        .finally(() => steps.delete(step));
      steps.add(step);
    }
    this.#expected = next;
    await Promise.all(steps);
  }

  #position(): number {
    return Atomics.load(this.#positions, this.#blobIndex);
  }
}
