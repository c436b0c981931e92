// Typed access to one section of a configuration document. Every complaint names the full path of the key and its line;
// keys nobody asked for are reported once the section is done. Values of secrets never appear in messages.
import { UsageError } from '../base/errors.ts';

/** A parsed document: its plain value, and where each key stands. */
export interface ConfigDocument {
  value: Record<string, unknown>;
  /** line of a key by its path, undefined when the key does not stand in the text */
  lineOf(path: string): number | undefined;
  /** how messages about wrong values begin */
  complaint: string;
  warnings: string[];
}

export interface IntegerLimits {
  min?: number;
  max: number;
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'boolean') return `the boolean ${value}`;
  if (typeof value === 'number' || typeof value === 'bigint') return `the number ${value}`;
  if (typeof value === 'string') return 'a string';
  return 'an object';
}

/** ` (line N)` of a key, or of the nearest section around it that stands in the text. */
function lineText(document: ConfigDocument, path: string): string {
  for (let p = path; ; p = p.slice(0, Math.max(0, Math.max(p.lastIndexOf('.'), p.lastIndexOf('['))))) {
    const line = document.lineOf(p);
    if (line !== undefined) return ` at line ${line}`;
    if (p === '') return '';
  }
}

/** Error about one key. */
export function keyError(document: ConfigDocument, path: string, problem: string, hint?: string): UsageError {
  return new UsageError(`${document.complaint}: \`${path}\`${lineText(document, path)}: ${problem}`, {
    exitCode: 1,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** One object of the document. Read keys through it, then call `done`. */
export class Section {
  readonly document: ConfigDocument;
  readonly path: string;
  readonly values: Record<string, unknown>;
  readonly seen = new Set<string>();

  constructor(document: ConfigDocument, path: string, values: Record<string, unknown>) {
    this.document = document;
    this.path = path;
    this.values = values;
  }

  pathOf(key: string): string {
    return this.path === '' ? key : `${this.path}.${key}`;
  }

  fail(key: string, problem: string, hint?: string): never {
    throw keyError(this.document, this.pathOf(key), problem, hint);
  }

  /** Value of a key; `null` counts as absent. */
  raw(key: string): unknown {
    this.seen.add(key);
    return this.values[key] ?? undefined;
  }

  has(key: string): boolean {
    return (this.values[key] ?? undefined) !== undefined;
  }

  /** Keys that old or foreign tools write and that have no effect: no warning about them. */
  ignore(...keys: string[]): void {
    for (const key of keys) this.seen.add(key);
  }

  string(key: string, fallback?: string): string {
    const value = this.raw(key);
    if (value === undefined) return fallback ?? this.fail(key, 'is missing, it must be a string');
    if (typeof value !== 'string') return this.fail(key, `must be a string, found ${kindOf(value)}`);
    return value;
  }

  /** A string, or null when absent. */
  text(key: string): string | null {
    return this.has(key) ? this.string(key) : (this.raw(key), null);
  }

  /** A string that must not be empty. */
  filled(key: string, fallback?: string): string {
    const value = this.string(key, fallback);
    if (value === '') this.fail(key, 'must not be empty');
    return value;
  }

  choice<T extends string>(key: string, choices: readonly T[], fallback?: T): T {
    const value = this.string(key, fallback);
    const chosen = choices.find((choice) => choice === value);
    const list = choices.map((choice) => (choice === '' ? 'an empty string' : choice)).join(', ');
    return chosen ?? this.fail(key, `\`${value}\` is not one of ${list}`);
  }

  boolean(key: string, fallback?: boolean): boolean {
    const value = this.raw(key);
    if (value === undefined) return fallback ?? this.fail(key, 'is missing, it must be true or false');
    if (typeof value !== 'boolean') return this.fail(key, `must be true or false, found ${kindOf(value)}`);
    return value;
  }

  integer(key: string, fallback: number, limits: IntegerLimits): number {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    const number = typeof value === 'bigint' ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isSafeInteger(number)) {
      return this.fail(key, `must be a whole number, found ${kindOf(value)}`);
    }
    const min = limits.min ?? 0;
    if (number < min || number > limits.max) {
      return this.fail(key, `${number} is out of range, it must be ${min} to ${limits.max}`);
    }
    return number;
  }

  strings(key: string): string[] {
    const value = this.raw(key);
    if (value === undefined) return [];
    if (!Array.isArray(value)) return this.fail(key, `must be a list of strings, found ${kindOf(value)}`);
    for (const [index, item] of value.entries()) {
      if (typeof item !== 'string') this.fail(`${key}[${index}]`, `must be a string, found ${kindOf(item)}`);
    }
    return value as string[];
  }

  list(key: string): unknown[] {
    const value = this.raw(key);
    if (value === undefined) return [];
    return Array.isArray(value) ? value : this.fail(key, `must be a list, found ${kindOf(value)}`);
  }

  /** A section inside this one, or undefined when absent. */
  section(key: string): Section | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) {
      return this.fail(key, `must be an object, found ${kindOf(value)}`);
    }
    return new Section(this.document, this.pathOf(key), value as Record<string, unknown>);
  }

  required(key: string): Section {
    return this.section(key) ?? this.fail(key, 'is missing, it must be an object');
  }

  /** Warn about the keys nobody asked for. */
  done(): void {
    for (const key of Object.keys(this.values)) {
      if (this.seen.has(key)) continue;
      const path = this.pathOf(key);
      this.document.warnings.push(`unknown key \`${path}\`${lineText(this.document, path)} is ignored`);
    }
  }
}
