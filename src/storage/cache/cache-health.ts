// Whether a cache file takes data. One that refuses is left alone for a while and tried again: meanwhile the blob is served
// without caching, which one log line and the metrics say.
import { errnoName } from '../../base/errno.ts';
import type { Logger } from '../../base/log.ts';

/** A cache that refused data is tried again after this time. */
export const RETRY_MS = 30_000;

export class CacheHealth {
  readonly #path: string;
  readonly #retryMs: number;
  readonly #logger: Logger;
  #brokenUntil = 0;
  #isBroken = false;
  #writeErrors = 0;

  constructor(path: string, retryMs: number, logger: Logger) {
    this.#path = path;
    this.#retryMs = retryMs;
    this.#logger = logger;
  }

  /** True when data may be written now. */
  get isUsable(): boolean {
    return performance.now() >= this.#brokenUntil;
  }

  /** True from a refusal until the file takes data again. */
  get isDegraded(): boolean {
    return this.#isBroken;
  }

  /** Writes that were refused. */
  get writeErrors(): number {
    return this.#writeErrors;
  }

  /** The file refused data. */
  failed(errno: number): void {
    this.#writeErrors++;
    this.#brokenUntil = performance.now() + this.#retryMs;
    if (this.#isBroken) return;
    this.#isBroken = true;
    this.#logger.warn(
      `cache file ${this.#path} cannot be written (${errnoName(errno)}): its blob is served without caching`,
    );
  }

  /** The file took data. */
  succeeded(): void {
    if (!this.#isBroken) return;
    this.#isBroken = false;
    this.#logger.info(`cache file ${this.#path} takes data again`);
  }
}
