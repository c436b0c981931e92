// Limits the bandwidth of prefetch. Source: blob-and-cache.md 20.3; unlike there a limit below 16 MiB/s is kept.

/** Tokens are bytes; they come back at a steady rate, up to one second's worth. */
export class TokenBucket {
  readonly #rate: number;
  readonly #now: () => number;
  #tokens: number;
  #at: number;

  /**
   * @param rate bytes per second
   * @param now  clock in milliseconds
   */
  constructor(rate: number, now: () => number = () => performance.now()) {
    this.#rate = rate;
    this.#now = now;
    this.#tokens = rate;
    this.#at = now();
  }

  /**
   * Take tokens; the balance may go below zero, by two seconds' worth at most.
   *
   * @returns milliseconds to wait before the bytes may be asked for
   */
  take(bytes: number): number {
    const now = this.#now();
    this.#tokens = Math.min(this.#rate, this.#tokens + ((now - this.#at) * this.#rate) / 1000);
    this.#at = now;
    this.#tokens -= Math.min(bytes, 2 * this.#rate);
    return this.#tokens >= 0 ? 0 : (-this.#tokens * 1000) / this.#rate;
  }
}
