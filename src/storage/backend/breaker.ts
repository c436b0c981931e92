// A way that has failed several times in a row is left out for a while, then tried with one request.

/** Failures in a row that open it. */
const FAILURES = 3;
/** How long it stays open at first, and at most; doubles with each trial that fails. */
const FIRST_OPEN_MS = 1000;
const LONGEST_OPEN_MS = 30_000;

export class Breaker {
  readonly #clock: () => number;
  #failures = 0;
  #openUntil = 0;

  /** @param clock milliseconds */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** May this way be tried now? While it is open one request per interval may. */
  allows(): boolean {
    if (this.#failures < FAILURES) return true;
    const now = this.#clock();
    if (now < this.#openUntil) return false;
    this.#openUntil = now + this.#interval();
    return true;
  }

  succeeded(): void {
    this.#failures = 0;
  }

  /** @returns true when it opens with this failure */
  failed(): boolean {
    this.#failures++;
    if (this.#failures >= FAILURES) this.#openUntil = this.#clock() + this.#interval();
    return this.#failures === FAILURES;
  }

  #interval(): number {
    return Math.min(LONGEST_OPEN_MS, FIRST_OPEN_MS * 2 ** (this.#failures - FAILURES));
  }
}
