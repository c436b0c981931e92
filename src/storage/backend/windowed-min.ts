// The smallest value of the last seconds, whatever came in between: a busy machine or a full link makes times longer, never shorter.

export class WindowedMin {
  readonly #windowMs: number;
  /** values that get larger: only those can be the smallest once the ones before them are too old */
  readonly #values: { at: number; value: number }[] = [];

  constructor(windowMs: number) {
    this.#windowMs = windowMs;
  }

  /** The smallest one; the last one is never too old. */
  get value(): number | undefined {
    return this.#values[0]?.value;
  }

  add(value: number, now: number): void {
    while ((this.#values.at(-1)?.value ?? -Infinity) >= value) this.#values.pop();
    this.#values.push({ at: now, value });
    while (this.#values.length > 1 && now - (this.#values[0]?.at ?? now) > this.#windowMs)
      this.#values.shift();
  }
}
