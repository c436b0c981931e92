// Whether a cache file takes data. One that refuses is left alone for a while and tried again: meanwhile the blob is served
// without caching, which one log line and the metrics say.
import { errnoName } from '../../base/errno.ts';
import type { Logger } from '../../base/log.ts';
import type { CacheMeter } from './meter.ts';

/** A cache that refused data is tried again after this time. */
export const RETRY_MS = 30_000;

export class CacheHealth {
  readonly #path: string;
  readonly #retryMs: number;
  readonly #meter: CacheMeter;
  readonly #logger: Logger;
  #brokenUntil = 0;
  #isBroken = false;

  constructor(path: string, retryMs: number, meter: CacheMeter, logger: Logger) {
    this.#path = path;
    this.#retryMs = retryMs;
    this.#meter = meter;
    this.#logger = logger;
  }

  /** True when data may be written now. */
  get isUsable(): boolean {
    return performance.now() >= this.#brokenUntil;
  }

  /** The file refused data. */
  failed(errno: number): void {
    this.#meter.writeErrors++;
    this.#brokenUntil = performance.now() + this.#retryMs;
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#meter.degraded++;
    this.#logger.warn(
      `cache file ${this.#path} cannot be written (${errnoName(errno)}): its blob is served without caching`,
    );
  }

  /** The file took data. */
  succeeded(): void {
    if (!this.#isBroken) return;
    this.end();
    this.#logger.info(`cache file ${this.#path} takes data again`);
  }

  /** The file is closed: it counts no longer. */
  end(): void {
    if (this.#isBroken) this.#meter.degraded--;
    this.#isBroken = false;
  }
}
