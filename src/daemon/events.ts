// The ring of error events that the API shows. Source: nydusd.md 5.5.

/** Most entries, and most bytes of text, that are kept. */
export const MAX_EVENTS = 500;
export const MAX_EVENT_BYTES = 51200;

export interface EventsReport {
  max_errors: number;
  total_errors: number;
  max_size: number;
  total_size: number;
  errors: string[];
}

/** Recent errors, oldest first; the oldest make room. */
export class EventRing {
  #entries: string[] = [];
  #bytes = 0;
  readonly #now: () => Date;

  constructor(now: () => Date = () => new Date()) {
    this.#now = now;
  }

  add(text: string): void {
    const entry = `${this.#now().toUTCString()} - ${text}`.slice(0, MAX_EVENT_BYTES / 4);
    this.#entries.push(entry);
    this.#bytes += Buffer.byteLength(entry);
    while (this.#entries.length > MAX_EVENTS || this.#bytes > MAX_EVENT_BYTES) {
      this.#bytes -= Buffer.byteLength(this.#entries.shift() ?? '');
    }
  }

  report(): EventsReport {
    return {
      max_errors: MAX_EVENTS,
      total_errors: this.#entries.length,
      max_size: MAX_EVENT_BYTES,
      total_size: this.#bytes,
      errors: [...this.#entries],
    };
  }
}
