// Keeps a cache directory below its size while images are served from it: unused blobs go first, then cold chunks of the blobs that
// this instance serves. Looks every few seconds, and gives way to readers, and to an outage of the backend.
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { formatSize } from '../../base/size.ts';
import type { BlobCache } from './blob-cache.ts';
import { evictBlobs } from './evict.ts';
import type { CacheMeter } from './meter.ts';
import { pinsOf } from './pins.ts';

const INTERVAL_MS = 5000;
/** What is made free beyond the limit, so that not every look has something to do. */
const LOW_WATER = 0.9;
/** How long readers are given way at most, so that a busy daemon does not fill the disk. */
const PATIENCE_MS = 1000;
const BUSY_POLL_MS = 5;

export interface KeeperOptions {
  workDir: string;
  maxBytes: number;
  caches: readonly BlobCache[];
  meter: CacheMeter;
  logger: Logger;
  /** true while a reader waits for a fetch */
  isBusy: () => boolean;
  /** true while the backend is known to be down: what goes now could not be fetched again */
  isDown: () => boolean;
  /** told after blobs were deleted */
  evicted?: (() => void) | undefined;
  intervalMs: number | undefined;
}

export class CacheKeeper {
  readonly #options: KeeperOptions;
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> | undefined;
  #stopped = false;
  #complained = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.run(), options.intervalMs ?? INTERVAL_MS);
    this.#timer.unref();
  }

  /** Look once. */
  run(): Promise<void> {
    this.#running ??= this.#look()
      .catch((error: unknown) =>
        this.#options.logger.warn(`garbage collection of ${this.#options.workDir}: ${messageOf(error)}`),
      )
      .finally(() => (this.#running = undefined));
    return this.#running;
  }

  async #look(): Promise<void> {
    const { workDir, maxBytes, caches, meter, logger, isBusy, isDown, intervalMs } = this.#options;
    const until = performance.now() + Math.min(PATIENCE_MS, intervalMs ?? INTERVAL_MS);
    while (isBusy() && performance.now() < until)
      await new Promise((resolve) => void setTimeout(resolve, BUSY_POLL_MS));
    // an outage fills no cache either
    if (this.#stopped || isDown()) return;
    const goal = maxBytes * LOW_WATER;
    const { before, after, evicted } = evictBlobs(workDir, { maxBytes, goalBytes: goal });
    if (before <= maxBytes) return;
    let size = after;
    for (const { blobId, bytes } of evicted)
      logger.info(`blob ${blobId} left the cache: ${formatSize(bytes)}`);
    if (evicted.length > 0) this.#options.evicted?.();
    for (const cache of caches) {
      if (size <= goal || this.#stopped) break;
      if (pinsOf(workDir, cache.blobId).length > 0) continue;
      size -= await cache.giveBack(size - goal);
    }
    meter.evicted += before - size;
    this.#complain(size);
  }

  #complain(size: number): void {
    const { workDir, maxBytes, logger } = this.#options;
    if (size > maxBytes && !this.#complained)
      logger.warn(
        `${workDir} has ${formatSize(size)}, more than max_size ${formatSize(maxBytes)}: the rest is in use or pinned`,
      );
    this.#complained = size > maxBytes;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#running;
  }
}
