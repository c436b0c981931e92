// A logger that keeps what a check should tell: warnings and errors, once each.
import type { Logger } from '../../base/log.ts';

const MAX_NOTES = 5;

export class Notes implements Logger {
  readonly lines: string[] = [];

  #note(text: string): void {
    if (this.lines.length < MAX_NOTES && !this.lines.includes(text)) this.lines.push(text);
  }

  error(text: string): void {
    this.#note(text);
  }

  warn(text: string): void {
    this.#note(text);
  }

  info(): void {}
  debug(): void {}
  trace(): void {}
}
