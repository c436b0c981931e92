// The link to one backend: how long a round trip takes, how much it carries, and who may use it. Reads that somebody waits for
// start at once; read-ahead and prefetch start only while the link has room, so that a reader never queues behind them.
import { WindowedMin } from './windowed-min.ts';

/** Rates that the estimate looks back on. */
const SAMPLES = 12;
/** How long the shortest round trip is believed. */
const RTT_WINDOW_MS = 10_000;
/** What part of a round trip a body is taken to need at least: the estimate of the round trip may be too long by that much. */
const LEAST_BODY = 1 / 4;
/** Weight of the last decode job in the average. */
const DIGEST_WEIGHT = 1 / 8;
/** Part of a thread's time for what may be in vain: the program that reads wants the processor too. */
const DIGEST_PART = 1 / 2;
/** Jobs below this are mostly overhead. */
const MIN_DIGEST = 32 * 1024;
/** Bodies below this say nothing about bandwidth. */
const MIN_BODY = 32 * 1024;
/** A request costs this much even where the network is free: system calls, HTTP, our own code. */
const MIN_RTT_MS = 1;
/** What is in flight at the same time as long as nothing is known. */
const UNKNOWN_BDP = 256 * 1024;
/** Largest product that is believed, so that one odd sample cannot flood a link. */
const MAX_BDP = 16 * 1024 * 1024;
/** Part of a round trip that the link may be taken ahead of time, so that it does not run dry. */
const SLACK = 1 / 8;

/** What may be under way with work that nobody waits for, in round trips: a reader who comes next shares the link with all of it. */
const MOST_UNDER_WAY = 1.25;

/** Who wants the link, most urgent first. */
export const Urgency = {
  /** next to what a reader has just asked for */
  readAhead: 0,
  /** nobody has asked for it */
  prefetch: 1,
} as const;
export type Urgency = (typeof Urgency)[keyof typeof Urgency];

interface Waiting {
  bytes: number;
  urgency: Urgency;
  admit: () => void;
  refuse: (reason: unknown) => void;
}

/** One request as the link sees it. */
export interface Transfer {
  /** the headers of the answer are there */
  answered(): void;
  /** bytes that have arrived so far, of this attempt */
  progress(bytes: number): void;
  /** it is over; `ok` false when its times mean nothing */
  end(ok: boolean): void;
}

export class Link {
  readonly #now: () => number;
  /** milliseconds from a request to the headers of its answer */
  readonly #rtts = new WindowedMin(RTT_WINDOW_MS);
  /** bytes per millisecond */
  readonly #rates: number[] = [];
  readonly #waiting: Waiting[] = [];
  /** bytes that have been asked for and have not arrived */
  #outstanding = 0;
  /** bytes of admitted work whose request has not started yet */
  #admitted = 0;
  #requests = 0;
  #received = 0;
  /** bytes that a decode thread takes in a millisecond */
  #digested: number | undefined;
  /** when the far end has sent all that was asked for, if the estimates hold */
  #freeAt = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param now clock in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Round trip in milliseconds, the shortest of the last seconds; undefined until one was measured. */
  get rttMs(): number | undefined {
    const { value } = this.#rtts;
    return value === undefined ? undefined : Math.max(MIN_RTT_MS, value);
  }

  /** Bytes per millisecond, the most of the last ones; undefined until it was measured. */
  get bytesPerMs(): number | undefined {
    return this.#rates.length === 0 ? undefined : Math.max(...this.#rates);
  }

  /**
   * What is worth fetching during one round trip: what the link carries, or no more than half a core decodes where that is less. That is
   * what a gap or a batch may be before a request of its own is cheaper.
   */
  get product(): number {
    const { rttMs, bytesPerMs } = this;
    if (rttMs === undefined || bytesPerMs === undefined) return UNKNOWN_BDP;
    const carried = Math.min(MAX_BDP, rttMs * bytesPerMs);
    return Math.min(carried, Math.max(UNKNOWN_BDP, rttMs * (this.#digested ?? Infinity) * DIGEST_PART));
  }

  /** A decode thread has worked on bytes that came over this link. */
  digested(bytes: number, millis: number): void {
    if (bytes < MIN_DIGEST || millis <= 0) return;
    const rate = bytes / millis;
    this.#digested = (this.#digested ?? rate) + DIGEST_WEIGHT * (rate - (this.#digested ?? rate));
  }

  /** What each request under way may expect of the rate; undefined until it was measured. */
  get share(): number | undefined {
    const { bytesPerMs } = this;
    return bytesPerMs === undefined ? undefined : bytesPerMs / Math.max(1, this.#requests);
  }

  /** True once both estimates have been measured. */
  get known(): boolean {
    return this.#rtts.value !== undefined && this.#rates.length > 0;
  }

  /** A request starts. @param bytes that it asks for */
  start(bytes: number): Transfer {
    const sent = this.#now();
    const receivedBefore = this.#received;
    const older = this.#outstanding;
    let got = 0;
    let over = false;
    this.#outstanding += bytes;
    this.#requests++;
    this.#freeAt = Math.max(this.#freeAt, sent) + bytes / (this.bytesPerMs ?? Infinity);
    return {
      answered: () => {
        const now = this.#now();
        this.#rtts.add(now - sent, now);
      },
      progress: (total) => {
        const more = Math.max(0, Math.min(total, bytes) - got);
        got += more;
        this.#received += more;
        this.#outstanding -= more;
        this.#serve();
      },
      end: (ok) => {
        if (over) return;
        over = true;
        const now = this.#now();
        this.#outstanding -= bytes - got;
        // nothing is on its way: the model starts anew
        if (--this.#requests === 0) this.#freeAt = now;
        const during = this.#received - receivedBefore;
        if (ok && got >= MIN_BODY) this.#keepRate(during, Math.max(got, during - older), now - sent);
        this.#serve();
      },
    };
  }

  /**
   * Two ways to look at a request, neither of which can say too much when this process was not on time: all that came while it was under
   * way, and what was asked for no earlier than it, which had a round trip to go first.
   */
  #keepRate(during: number, younger: number, millis: number): void {
    const rtt = this.rttMs ?? 0;
    const body = Math.max(rtt * LEAST_BODY, millis - rtt);
    this.#rates.push(
      Math.max(during / Math.max(millis, MIN_RTT_MS), younger / Math.max(body, MIN_RTT_MS / 4)),
    );
    if (this.#rates.length > SAMPLES) this.#rates.shift();
  }

  /**
   * Wait until the link has room for work that nobody waits for. Newer requests of one urgency go first: what a reader
   * touched last is what it needs next.
   *
   * @returns to be called when the request has been started
   */
  admit(bytes: number, urgency: Urgency, signal?: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => waiting.refuse(signal?.reason);
      const leave = (): void => {
        signal?.removeEventListener('abort', onAbort);
        const at = this.#waiting.indexOf(waiting);
        if (at >= 0) this.#waiting.splice(at, 1);
      };
      const waiting: Waiting = {
        bytes,
        urgency,
        admit: () => {
          leave();
          this.#admitted += bytes;
          let done = false;
          resolve(() => {
            if (done) return;
            done = true;
            this.#admitted -= bytes;
            this.#serve();
          });
        },
        refuse: (reason) => {
          leave();
          reject(reason instanceof Error ? reason : new Error(String(reason)));
        },
      };
      if (signal?.aborted === true) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.unshift(waiting);
      this.#serve();
    });
  }

  /**
   * Milliseconds until work of this size may start. It is asked for just in time: when the far end has sent what readers wait
   * for, its bytes follow. So a reader who comes next waits for one such piece at most, and the link does not idle.
   */
  #roomIn(bytes: number): number {
    if (this.#requests === 0 && this.#admitted === 0) return 0;
    const { rttMs, product } = this;
    if (rttMs === undefined || !this.known) return Infinity;
    // slower than estimated: what is under way has to arrive first
    if (this.#outstanding + this.#admitted + bytes > MOST_UNDER_WAY * product + bytes / 2) return Infinity;
    const admitted = this.#admitted / (this.bytesPerMs ?? Infinity);
    return Math.max(0, Math.max(this.#freeAt, this.#now()) + admitted - rttMs * SLACK - this.#now());
  }

  #serve(): void {
    for (;;) {
      const next =
        this.#waiting.find(({ urgency }) => urgency === Urgency.readAhead) ??
        this.#waiting.find(({ urgency }) => urgency === Urgency.prefetch);
      if (next === undefined) return;
      const wait = this.#roomIn(next.bytes);
      // without a time it is looked at again when something has arrived
      if (wait > 0) return wait === Infinity ? undefined : this.#later(wait);
      next.admit();
    }
  }

  #later(millis: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#serve(), Math.ceil(millis));
    this.#timer.unref();
  }

  /** Nobody is admitted any more. */
  close(reason: Error): void {
    clearTimeout(this.#timer);
    for (const waiting of this.#waiting.slice()) waiting.refuse(reason);
  }
}
