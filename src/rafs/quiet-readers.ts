// When to fetch what nobody has asked for: while no reader misses. A program that starts misses again and again, and what is decoded for
// nobody meanwhile takes the cores that it wants (docs/measured-network.md).

/** Readers are quiet when none has missed for so long: a few round trips of a slow link. */
const QUIET_MS = 250;
/** Readers that never are quiet are not waited for longer than this. */
const PATIENCE_MS = 2000;
const LOOK_MS = 10;

export interface QuietReadersOptions {
  /** true while a reader waits for a fetch */
  isBusy: () => boolean;
  /** bytes that readers have fetched so far */
  userBytes: () => number;
  signal: AbortSignal;
}

/** Watches the readers of an image; from its making on they count as not quiet. */
export class QuietReaders {
  readonly #options: QuietReadersOptions;
  #seen = -1;
  #since = 0;

  constructor(options: QuietReadersOptions) {
    this.#options = options;
    this.#look();
  }

  /** @returns milliseconds without a miss, as far as was looked */
  #look(): number {
    const { isBusy, userBytes } = this.#options;
    const bytes = userBytes();
    const now = performance.now();
    if (isBusy() || bytes !== this.#seen) this.#since = now;
    this.#seen = bytes;
    return now - this.#since;
  }

  /** Resolves when readers are quiet, when they have not been for PATIENCE_MS, or when the signal aborts. */
  async wait(): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    while (this.#look() < QUIET_MS && performance.now() < end && !this.#options.signal.aborted)
      await new Promise((resolve) => void setTimeout(resolve, LOOK_MS));
  }
}
