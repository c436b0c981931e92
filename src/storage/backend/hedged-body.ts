// A body that stalls after its headers: the rest of the range is asked for once more, over another connection or from another mirror.
// Both answers fill the target, each byte is taken from the one that brings it first, and the one that ends first ends the other.
import type { Hedge } from './hedge.ts';
import { readRange, UnannouncedBody, type Ask, type RangeTarget } from './http-range.ts';
import type { Link } from './link.ts';

/** A body is slow below this part of what the link has brought others, its share taken into account. */
const SLOW_PART = 1 / 16;
/** Bytes that a body gets the time for: on a slow link pieces come seldom. */
const PATIENT_BYTES = 64 * 1024;
/** Least bytes in that time while the rate is not known. */
const MIN_BYTES = 1024;

export interface HedgedBodyOptions {
  hedge: Hedge;
  link: Link;
  /** the request itself, and the one for the rest when it stalls. The signal ends it */
  ask: (signal: AbortSignal, second: boolean) => Ask;
  /** second requests that are left for others */
  reserve: number;
  /** told when the headers of the first answer are there */
  answered: () => void;
  signal: AbortSignal | undefined;
}

/** One answer on its way. */
interface Stream {
  /** resolves when the target is full, or the object ends */
  done: Promise<void>;
  end: () => void;
}

/** How long a body may bring next to nothing, and what that is; undefined while the host is not known. */
export function bodyPatience(hedge: Hedge, link: Link): { millis: number; bytes: number } | undefined {
  const base = hedge.patienceMs;
  if (base === undefined) return undefined;
  const { share } = link;
  if (share === undefined) return { millis: base, bytes: MIN_BYTES };
  const millis = Math.max(base, PATIENT_BYTES / share);
  return { millis, bytes: Math.max(1, share * millis * SLOW_PART) };
}

/**
 * Fill a target as `readRange` does, with a second request when the body of the first one stalls.
 *
 * @throws what the first request ended with; when a body is not what was announced, nothing of either counts
 */
export async function readHedged(target: RangeTarget, options: HedgedBodyOptions): Promise<void> {
  const { hedge, signal } = options;
  const before = target.done;
  let over = false;
  const isOver = (): boolean => over;
  const watch = new StallWatch(target, options);
  const start = (second: boolean): Stream => {
    const own = new AbortController();
    const either = signal === undefined ? own.signal : AbortSignal.any([signal, own.signal]);
    // times of the second request say nothing about the link
    const answered = second ? (): void => {} : (): void => watch.begin();
    const done = readRange(options.ask(either, second), target, { answered, isOver });
    return { done, end: () => own.abort(new Error('another request has brought the rest')) };
  };
  const first = start(false);
  try {
    if ((await Promise.race([first.done, watch.stalled])) !== 'stalled' || !hedge.spend(options.reserve))
      return await first.done;
    const second = start(true);
    const winner = await firstToEnd(first, second).finally(() => {
      over = true;
      first.end();
      second.end();
    });
    if (winner === second) hedge.won();
  } catch (error) {
    if (error instanceof UnannouncedBody) target.done = before;
    throw error;
  } finally {
    watch.end();
  }
}

async function firstToEnd(first: Stream, second: Stream): Promise<Stream> {
  const ends = [first, second].map((one) => one.done.then(() => one));
  // a server that does not keep to what it says: nothing that came is believed
  const lies = ends.map((one) =>
    one.catch((error: unknown) => {
      if (error instanceof UnannouncedBody) throw error;
      return new Promise<never>(() => {});
    }),
  );
  const any = Promise.any(ends).catch(() => first.done.then(() => first));
  return Promise.race([any, ...lies]);
}

/** Looks now and then whether a body gets on. */
class StallWatch {
  readonly stalled: Promise<'stalled'>;
  readonly #target: RangeTarget;
  readonly #options: HedgedBodyOptions;
  #timer: NodeJS.Timeout | undefined;
  #over = false;
  #stall: (value: 'stalled') => void = () => {};

  constructor(target: RangeTarget, options: HedgedBodyOptions) {
    this.#target = target;
    this.#options = options;
    this.stalled = new Promise((resolve) => (this.#stall = resolve));
  }

  /** The headers of an answer are there. */
  begin(): void {
    this.#options.answered();
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const patience = this.#over ? undefined : bodyPatience(this.#options.hedge, this.#options.link);
    if (patience === undefined) return;
    const { done } = this.#target;
    const look = (): void => {
      if (this.#target.done - done < patience.bytes) this.#stall('stalled');
      else this.#arm();
    };
    // a thread that was busy looks at its sockets first
    this.#timer = setTimeout(() => void setImmediate(look), patience.millis);
  }

  end(): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }
}
