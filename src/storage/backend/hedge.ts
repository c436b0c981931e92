// A request that stalls is sent once more: no first byte after a multiple of what answers take here, and a second one goes over another
// connection, or to another mirror. The first good answer wins, the other is cancelled. A budget keeps the extra load at a few per cent
// of the requests, also when the far end is slow for everybody. Bodies that stall draw on the same budget (hedged-body.ts).

/** Times that the estimate looks back on, and how many it needs. */
const SAMPLES = 100;
const ENOUGH = 16;
const QUANTILE = 0.95;
const MULTIPLE = 3;
/** Shortest wait: below it a busy machine looks like a stalled server. */
const FLOOR_MS = 200;
/** Second requests per request, and how many may be saved up. */
const SHARE = 0.03;
const MAX_SAVED = 3;

/** What the metrics show. */
export interface HedgeMetrics {
  /** requests that were sent a second time */
  requests: number;
  /** times the second one answered first */
  wins: number;
}

/** One of the two: it must end when the signal is aborted. @param second the first one stalls: go another way */
export type Send<T> = (signal: AbortSignal, second: boolean) => Promise<T>;

export class Hedge {
  readonly #floorMs: number;
  readonly #now: () => number;
  readonly #times: number[] = [];
  #saved = 1;
  #requests = 0;
  #wins = 0;

  /** @param now clock in milliseconds */
  constructor(floorMs: number = FLOOR_MS, now: () => number = () => performance.now()) {
    this.#floorMs = floorMs;
    this.#now = now;
  }

  metrics(): HedgeMetrics {
    return { requests: this.#requests, wins: this.#wins };
  }

  /** Milliseconds after which a request without an answer is sent again; undefined while too little is known. */
  get patienceMs(): number | undefined {
    if (this.#times.length < ENOUGH) return undefined;
    const sorted = this.#times.toSorted((a, b) => a - b);
    const high = sorted[Math.floor(sorted.length * QUANTILE)] ?? 0;
    return Math.max(this.#floorMs, MULTIPLE * high);
  }

  /**
   * Take a second request from the budget. @param reserve how many must be left after it
   *
   * @returns false when there is none
   */
  spend(reserve = 0): boolean {
    if (this.#saved < 1 + reserve) return false;
    this.#saved--;
    this.#requests++;
    return true;
  }

  /** A second request was the one that helped. */
  won(): void {
    this.#wins++;
  }

  #keep(millis: number): void {
    this.#times.push(millis);
    if (this.#times.length > SAMPLES) this.#times.shift();
  }

  /**
   * Send a request, and once more when it stalls.
   *
   * @param isGood  false: an answer that says no more than that the other one is to be waited for
   * @param discard what is done with an answer that comes too late
   * @throws what the first request ended with, when both failed
   */
  async run<T>(
    send: Send<T>,
    isGood: (answer: T) => boolean,
    discard: (answer: T) => void,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    this.#saved = Math.min(MAX_SAVED, this.#saved + SHARE);
    const first = this.#start(send, false, signal);
    const patience = this.patienceMs;
    if (patience === undefined || !(await stalls(first.answer, patience)) || !this.spend())
      return first.answer;
    const second = this.#start(send, true, signal);
    const pairs = [
      [first, second],
      [second, first],
    ] as const;
    const good = pairs.map(async ([one, other]) => {
      const answer = await one.answer;
      if (!isGood(answer)) throw new Error('no good answer');
      return { one, other, answer };
    });
    try {
      const { one, other, answer } = await Promise.any(good);
      if (one === second) this.won();
      other.end();
      other.answer.then(discard, () => {});
      return answer;
    } catch {
      second.end();
      second.answer.then(discard, () => {});
      return first.answer;
    }
  }

  #start<T>(
    send: Send<T>,
    second: boolean,
    signal: AbortSignal | undefined,
  ): { answer: Promise<T>; end: () => void } {
    const own = new AbortController();
    const sent = this.#now();
    const answer = send(signal === undefined ? own.signal : AbortSignal.any([signal, own.signal]), second);
    answer.then(
      () => this.#keep(this.#now() - sent),
      () => {},
    );
    return { answer, end: () => own.abort(new Error('another request was answered first')) };
  }
}

/** True when a promise does not settle in time. */
async function stalls(promise: Promise<unknown>, millis: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    // a thread that was busy looks at its sockets first
    timer = setTimeout(() => void setImmediate(() => resolve(true)), millis);
  });
  const settled = promise.then(
    () => false,
    () => false,
  );
  const result = await Promise.race([settled, late]);
  clearTimeout(timer);
  return result;
}
