// Is a backend down, who asks whether it is back, and who waits for that. One reader probes with its own request, the others
// wait for how that ends; a backend that is gone is asked a few times a second at most, however many readers want it.
import { BackendError, messageOf, RegistryError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';

/** Waits between probes: short, so that readers go on promptly when the backend is back. */
const FIRST_PROBE_MS = 100;
const LONGEST_PROBE_MS = 1000;

/** What the metrics show about outages. */
export interface OutageMetrics {
  /** true while it is down */
  down: boolean;
  /** outages so far */
  outages: number;
  /** milliseconds that the backend was down, the present outage included */
  outage_millis_total: number;
  /** reads that wait for it */
  waiting: number;
}

/** Permission to ask the backend. Hand it back with `answered`, `failed` or `dropped`. */
export interface Turn {
  /** true: the backend is down, this request finds out whether it is back */
  readonly probing: boolean;
}

export interface EnterOptions {
  /** milliseconds of performance.now() at which waiting ends */
  until: number;
  /** false: others probe before it does */
  urgent: boolean;
  signal?: AbortSignal | undefined;
}

interface Waiter {
  urgent: boolean;
  until: number;
  grant: (turn: Turn) => void;
  refuse: (error: unknown) => void;
}

/** True for what a backend that is down looks like: no answer, a broken one, 5xx, 408, 429. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof RegistryError) || !error.retryable) return false;
  return error.status === 0 || error.status >= 500 || error.status === 408 || error.status === 429;
}

export class OutageGate {
  readonly #name: string;
  readonly #logger: Logger;
  readonly #waiters: Waiter[] = [];
  #error: Error | undefined;
  #since = 0;
  #prober: Turn | undefined;
  #probes = 0;
  #nextProbe = 0;
  #timer: NodeJS.Timeout | undefined;
  #outages = 0;
  #downMs = 0;
  #closed: Error | undefined;

  /** @param name what messages call the backend */
  constructor(name: string, logger: Logger) {
    this.#name = name;
    this.#logger = logger;
  }

  get isDown(): boolean {
    return this.#error !== undefined;
  }

  metrics(): OutageMetrics {
    const present = this.isDown ? performance.now() - this.#since : 0;
    return {
      down: this.isDown,
      outages: this.#outages,
      outage_millis_total: Math.floor(this.#downMs + present),
      waiting: this.#waiters.length,
    };
  }

  /**
   * Wait until the backend may be asked.
   *
   * @throws BackendError EIO  it is down and `until` is over; the reason of `signal` when that was aborted
   */
  enter({ until, urgent, signal }: EnterOptions): Promise<Turn> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    if (!this.isDown) return Promise.resolve({ probing: false });
    const now = performance.now();
    // without an outage policy a read asks at once, unless somebody is asking already
    if (this.#prober === undefined && (now >= this.#nextProbe || (urgent && until <= now)))
      return Promise.resolve(this.#probe());
    if (until <= now && (this.#prober === undefined || !urgent)) return Promise.reject(this.#downError());
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        const at = this.#waiters.indexOf(waiter);
        if (at >= 0) this.#waiters.splice(at, 1);
      };
      const waiter: Waiter = {
        urgent,
        until,
        grant: (turn) => {
          leave();
          resolve(turn);
        },
        refuse: (error) => {
          leave();
          reject(error instanceof Error ? error : new Error(String(error)));
        },
      };
      const onAbort = (): void => waiter.refuse(signal?.reason);
      // one whose time is over already waits for the probe that is under way, and no longer
      const timer = until > now ? setTimeout(() => waiter.refuse(this.#downError()), until - now) : undefined;
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.push(waiter);
      this.#plan();
    });
  }

  /** The backend gave an answer, whatever it says. */
  answered(turn: Turn): void {
    if (this.#prober === turn) this.#prober = undefined;
    if (!this.isDown) return;
    const millis = performance.now() - this.#since;
    this.#downMs += millis;
    this.#error = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#logger.warn(
      `${this.#name} is back after ${(millis / 1000).toFixed(1)} s, ${this.#waiters.length} reads go on`,
    );
    // readers first
    for (const urgent of [true, false])
      for (const waiter of this.#waiters.filter((one) => one.urgent === urgent))
        waiter.grant({ probing: false });
  }

  /** The backend could not be reached, after all retries. */
  failed(turn: Turn, error: unknown): void {
    if (this.#prober === turn) this.#prober = undefined;
    const now = performance.now();
    if (this.isDown && !turn.probing) return;
    if (!this.isDown) {
      this.#outages++;
      this.#since = now;
      this.#probes = 0;
      this.#logger.warn(`${this.#name} is down: ${messageOf(error)}`);
    }
    this.#error = error instanceof Error ? error : new Error(String(error));
    this.#nextProbe = now + Math.min(LONGEST_PROBE_MS, FIRST_PROBE_MS * 1.5 ** this.#probes++);
    for (const waiter of this.#waiters.filter(({ until }) => until <= now)) waiter.refuse(this.#downError());
    this.#plan();
  }

  /** The request was given up: it says nothing about the backend. */
  dropped(turn: Turn): void {
    if (this.#prober !== turn) return;
    this.#prober = undefined;
    this.#plan();
  }

  #probe(): Turn {
    this.#prober = { probing: true };
    return this.#prober;
  }

  #plan(): void {
    if (!this.isDown || this.#prober !== undefined || this.#waiters.length === 0) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        const next = this.#waiters.find(({ urgent }) => urgent) ?? this.#waiters[0];
        if (this.#prober === undefined && this.isDown) next?.grant(this.#probe());
      },
      Math.max(0, this.#nextProbe - performance.now()),
    );
  }

  #downError(): BackendError {
    const seconds = ((performance.now() - this.#since) / 1000).toFixed(1);
    return new BackendError(
      `${this.#name} is down for ${seconds} s: ${this.#error === undefined ? '' : messageOf(this.#error)}`,
      { cause: this.#error, hint: 'outage_wait of the backend says how long reads wait' },
    );
  }

  /** Everybody who waits gets this error, and so does whoever comes. */
  close(reason: Error): void {
    this.#closed = reason;
    clearTimeout(this.#timer);
    for (const waiter of this.#waiters.slice()) waiter.refuse(reason);
  }
}
