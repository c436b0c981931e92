// A pinged peer of HTTP backends: is it well? Source: blob-and-cache.md 21.3 (proxy) and 21.5 (mirrors).
import type { HttpClient } from '../../registry/http.ts';

export interface HealthOptions {
  /** '' = never pinged */
  pingUrl: string;
  intervalSeconds: number;
  /** no pings when nothing was asked for longer than this */
  pauseSeconds: number;
  timeoutSeconds: number;
  /** statuses below this are healthy */
  belowStatus: number;
  /** ping only while it is unwell */
  onlyWhenUnwell: boolean;
  http: HttpClient;
  clock: () => number;
}

/** Shortest pause between pings, whatever the configuration says; milliseconds. */
const MIN_INTERVAL_MS = 100;
const MAX_INTERVAL_MS = 86_400_000;

/** State of one peer. Pings start with the first use and stop with `close`. */
export class Health {
  healthy = true;
  /** told about every change */
  onChange: (healthy: boolean) => void = () => {};
  readonly #options: HealthOptions;
  #lastUse = 0;
  #timer: NodeJS.Timeout | undefined;
  #started = false;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** A request is about to use the peer. */
  use(): void {
    this.#lastUse = this.#options.clock();
    if (this.#started || this.#options.pingUrl === '') return;
    this.#started = true;
    this.#plan(this.#options.onlyWhenUnwell ? undefined : 0);
  }

  set(healthy: boolean): void {
    if (healthy === this.healthy) return;
    this.healthy = healthy;
    this.onChange(healthy);
  }

  #plan(delayMs?: number): void {
    const interval = Math.min(
      Math.max(this.#options.intervalSeconds * 1000, MIN_INTERVAL_MS),
      MAX_INTERVAL_MS,
    );
    this.#timer = setTimeout(() => void this.#tick(), delayMs ?? interval);
    this.#timer.unref();
  }

  async #tick(): Promise<void> {
    const { pauseSeconds, onlyWhenUnwell, clock } = this.#options;
    const idle = clock() - this.#lastUse > pauseSeconds * 1000;
    if (!idle && !(onlyWhenUnwell && this.healthy)) this.set(await this.#ping());
    if (this.#timer !== undefined) this.#plan();
  }

  async #ping(): Promise<boolean> {
    const { http, pingUrl, timeoutSeconds, belowStatus } = this.#options;
    try {
      const answer = await http.send({
        method: 'GET',
        url: new URL(pingUrl),
        totalTimeoutMs: timeoutSeconds * 1000,
      });
      await answer.discard();
      return answer.status >= 200 && answer.status < belowStatus;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#started = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
