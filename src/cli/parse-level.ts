// One level of a command line: the options and positionals of one command, taken as they come, then checked together, with the
// messages of clap 4.5. Source: nydusd.md 1.2, nydus-image 1.1, golden cli/.
import { UsageError } from '../base/errors.ts';
import type { OptionSpec, ValueOption } from './command.ts';
import { similar } from './suggest.ts';
import {
  helpUsage,
  orderArguments,
  showArgument,
  showOption,
  showPositional,
  smartUsage,
  type Scope,
} from './usage.ts';

/** A mistake on the command line; `text` is the whole message as it is printed after `error: `. */
export class CommandLineError extends UsageError {
  readonly text: string;

  constructor(problem: string, rest: { notes?: string[]; usage?: string; help?: boolean } = {}) {
    super(problem.split('\n')[0] as string);
    const parts = [problem, ...(rest.notes ?? []).map((note) => `  ${note}`)];
    if (rest.usage !== undefined) parts.push(`Usage: ${rest.usage}`);
    if (rest.help !== false) parts.push("For more information, try '--help'.");
    this.text = parts.join('\n\n') + '\n';
  }
}

/** What stands for an option: its value, or that the flag is there. */
export type Value = string | true;

/** The arguments of one command. */
export class Level {
  readonly scope: Scope;
  /** explicit arguments in order of first mention */
  readonly used: string[] = [];
  readonly values = new Map<string, Value | string[]>();
  #pending: string | undefined;
  readonly #longs = new Map<string, string>();
  readonly #shorts = new Map<string, string>();

  constructor(scope: Scope) {
    this.scope = scope;
    for (const [name, option] of Object.entries(scope.options)) {
      if (option.shortOnly !== true) this.#longs.set(name, name);
      for (const alias of option.aliases ?? []) this.#longs.set(alias, name);
      if (option.short !== undefined) this.#shorts.set(option.short, name);
    }
  }

  get waitsForValue(): boolean {
    return this.#pending !== undefined;
  }

  #option(name: string): OptionSpec {
    const option = this.scope.options[name];
    if (option === undefined)
      throw new RangeError(`no option ${name} in the table of ${this.scope.command.name}`);
    return option;
  }

  #helpUsage(): { usage: string } {
    return { usage: helpUsage(this.scope) };
  }

  #missingValue(name: string): never {
    const option = this.#option(name) as ValueOption;
    const problem = `a value is required for '${showOption(name, option)}' but none was supplied`;
    throw new CommandLineError(problem + possibleValues(option.values));
  }

  /** An option that still waits for its value gets none. */
  settle(): void {
    if (this.#pending !== undefined) this.#missingValue(this.#pending);
  }

  #use(name: string): void {
    if (!this.used.includes(name)) this.used.push(name);
  }

  #set(name: string, value: Value): void {
    const option = this.#option(name);
    if (option.type === 'string' && option.repeatable === true) {
      const list = this.values.get(name);
      this.#checkValue(name, option, value as string);
      this.values.set(name, Array.isArray(list) ? [...list, value as string] : [value as string]);
    } else {
      if (this.values.has(name)) {
        const problem = `the argument '${showOption(name, option)}' cannot be used multiple times`;
        throw new CommandLineError(problem, this.#helpUsage());
      }
      if (option.type === 'string') this.#checkValue(name, option, value as string);
      this.values.set(name, value);
    }
    this.#use(name);
  }

  #checkValue(name: string, option: ValueOption, text: string): void {
    const shown = `invalid value '${text}' for '${showOption(name, option)}'`;
    if (option.values !== undefined && !option.values.includes(text)) {
      if (option.hiddenValues?.includes(text) === true) return;
      if (option.refusedValues !== undefined && Object.hasOwn(option.refusedValues, text)) return;
      const like = similar(text, option.values).at(-1);
      const notes = like === undefined ? [] : [`tip: a similar value exists: '${like}'`];
      throw new CommandLineError(shown + possibleValues(option.values), { notes });
    }
    const problem = option.check?.(text);
    if (problem !== undefined) throw new CommandLineError(`${shown}: ${problem}`);
  }

  /** @returns true when the argument was the value an option waited for */
  takeValue(text: string): boolean {
    const name = this.#pending;
    if (name === undefined) return false;
    this.#pending = undefined;
    this.#set(name, text);
    return true;
  }

  /** `--name` or `--name=value`. @returns what the argument asks for at once, such as help */
  long(text: string): 'help' | 'version' | undefined {
    const equals = text.indexOf('=');
    const word = equals < 0 ? text.slice(2) : text.slice(2, equals);
    const name = this.#longs.get(word);
    if (name === undefined) {
      if (equals < 0 && word === 'help') return (this.settle(), 'help');
      if (equals < 0 && word === 'version' && this.scope.command.versioned) return (this.settle(), 'version');
      this.#unknownLong(word);
    }
    this.settle();
    this.#start(name, equals < 0 ? undefined : text.slice(equals + 1));
    return undefined;
  }

  #start(name: string, attached: string | undefined): void {
    const option = this.#option(name);
    if (option.type === 'string') {
      if (attached === undefined) this.#pending = name;
      else this.#set(name, attached);
      return;
    }
    if (attached !== undefined) {
      const problem = `unexpected value '${attached}' for '--${name}' found; no more were expected`;
      throw new CommandLineError(problem, this.#helpUsage());
    }
    this.#set(name, true);
  }

  /** `-Xv`, `-X=v`, `-X`, or several flags behind one dash. */
  short(text: string): 'help' | 'version' | undefined {
    for (let i = 1; i < text.length; i++) {
      const letter = text[i] as string;
      const name = this.#shorts.get(letter);
      if (name === undefined) {
        if (letter === 'h') return (this.settle(), 'help');
        if (letter === 'V' && this.scope.command.versioned) return (this.settle(), 'version');
        throw unexpected(this.scope, `-${letter}`, [], helpUsage(this.scope));
      }
      this.settle();
      if (this.#option(name).type === 'string') {
        const rest = text.slice(i + 1);
        this.#start(name, rest === '' ? undefined : rest.startsWith('=') ? rest.slice(1) : rest);
        return undefined;
      }
      if (text[i + 1] === '=') this.#start(name, text.slice(i + 2));
      this.#start(name, undefined);
    }
    return undefined;
  }

  #unknownLong(word: string): never {
    const longs = Object.entries(this.scope.options).filter(
      ([, o]) => o.hidden !== true && o.refused === undefined,
    );
    const names = [
      ...longs.map(([name]) => name),
      'help',
      ...(this.scope.command.versioned ? ['version'] : []),
    ];
    const like = similar(word, names).at(-1);
    const used = like !== undefined && like in this.scope.options ? [...this.used, like] : this.used;
    const notes = like === undefined ? undefined : [`tip: a similar argument exists: '--${like}'`];
    throw unexpected(this.scope, `--${word}`, notes ?? [], smartUsage(this.scope, this.required(), used));
  }

  /** An argument without a name. */
  positional(text: string): void {
    for (const [name, spec] of Object.entries(this.scope.command.positionals)) {
      const value = this.values.get(name);
      if (spec.values?.includes(text) === false && (spec.repeatable === true || value === undefined)) {
        const problem = `invalid value '${text}' for '${showPositional(name, spec)}'`;
        throw new CommandLineError(problem + possibleValues(spec.values));
      }
      if (spec.repeatable === true) {
        this.values.set(name, Array.isArray(value) ? [...value, text] : [text]);
      } else if (value === undefined) {
        this.values.set(name, text);
      } else {
        continue;
      }
      this.#use(name);
      return;
    }
    throw new CommandLineError(`unexpected argument '${text}' found`, this.#helpUsage());
  }

  /** Arguments that must be there whatever else is given. */
  required(): string[] {
    const { options, command } = this.scope;
    const names = Object.keys(options).filter((name) => options[name]?.required === true);
    return [
      ...names,
      ...Object.keys(command.positionals).filter((name) => command.positionals[name]?.required),
    ];
  }

  #conflictsOf(id: string): string[] {
    const { options, command } = this.scope;
    const listed = (name: string): readonly string[] =>
      (options[name] ?? command.positionals[name])?.conflicts ?? [];
    return this.used.filter(
      (other) => other !== id && (listed(id).includes(other) || listed(other).includes(id)),
    );
  }

  /** Conflicts first, then what is missing, then what this version refuses. */
  validate(): void {
    for (const id of this.used) {
      const others = this.#conflictsOf(id);
      if (others.length === 0) continue;
      const rest = this.used.filter((name) => !others.includes(name));
      throw new CommandLineError(
        `the argument '${showArgument(this.scope, id)}' cannot be used with${listed(this.scope, others)}`,
        {
          usage: smartUsage(
            this.scope,
            this.required().filter((name) => !others.includes(name)),
            rest,
          ),
        },
      );
    }
    this.#checkRequired();
    this.#checkRefused();
  }

  /** Of a program whose subcommand was named: what it demands itself. */
  requireAll(): void {
    if (!this.scope.command.argsConflictWithSubcommands) this.#checkRequired();
  }

  #checkRequired(): void {
    const { options, command } = this.scope;
    const demanded = [...this.required(), ...this.used.flatMap((id) => options[id]?.requires ?? [])];
    const missing = new Set(
      demanded.filter((id) => !this.values.has(id) && this.#conflictsOf(id).length === 0),
    );
    for (const [id, spec] of [...Object.entries(options), ...Object.entries(command.positionals)]) {
      if (spec.requiredUnless === undefined || this.values.has(id)) continue;
      if (!spec.requiredUnless.some((other) => this.values.has(other))) missing.add(id);
    }
    if (missing.size === 0) return;
    const { options: named, positionals } = orderArguments(this.scope, [...missing]);
    const lines = named
      .filter((id) => !this.values.has(id))
      .map((id) => showArgument(this.scope, id))
      .concat(positionals.map((id) => showPositional(id, command.positionals[id] ?? { help: '' }, true)));
    const problem = `the following required arguments were not provided:\n${lines.map((l) => `  ${l}`).join('\n')}`;
    throw new CommandLineError(problem, {
      usage: smartUsage(this.scope, demanded, [...this.used, ...missing]),
    });
  }

  #checkRefused(): void {
    for (const id of this.used) {
      const option = this.scope.options[id];
      if (option === undefined) continue;
      if (option.refused !== undefined)
        throw refuse(`the argument '${showOption(id, option)}'`, option.refused);
      const value = this.values.get(id);
      if (option.type !== 'string' || typeof value !== 'string') continue;
      const table = option.refusedValues ?? {};
      if (Object.hasOwn(table, value)) throw refuse(`'--${id} ${value}'`, table[value] as string);
    }
  }

  /** Every key of both tables with its value or default, and what the programs above demand. */
  finish(outer: ReadonlyMap<string, Value | string[]>): Record<string, unknown> {
    const out: Record<string, unknown> = {};
    for (const { options } of this.scope.parents) {
      for (const [name, option] of Object.entries(options))
        if (option.required === true) out[name] = outer.get(name);
    }
    for (const [name, option] of Object.entries(this.scope.options)) {
      const value = this.values.get(name) ?? (option.global === true ? outer.get(name) : undefined);
      if (option.type === 'flag') out[name] = value === true;
      else out[name] = value ?? option.default ?? (option.repeatable === true ? [] : undefined);
    }
    for (const [name, spec] of Object.entries(this.scope.command.positionals)) {
      out[name] = this.values.get(name) ?? (spec.repeatable === true ? [] : undefined);
    }
    return out;
  }
}

function possibleValues(values: readonly string[] | undefined): string {
  return values === undefined ? '' : `\n  [possible values: ${values.join(', ')}]`;
}

/** Arguments that stand in the way of another one, as a message goes on with them. */
export function listed(scope: Scope, ids: readonly string[]): string {
  if (ids.length === 1) return ` '${showArgument(scope, ids[0] as string)}'`;
  return `:\n${ids.map((id) => `  ${showArgument(scope, id)}`).join('\n')}`;
}

/** Something known that this version does not serve. */
export function refuse(what: string, reason: string): CommandLineError {
  return new CommandLineError(`${what} is not supported by this version`, { notes: [`tip: ${reason}`] });
}

/** An argument that means nothing here. */
export function unexpected(scope: Scope, text: string, notes: string[], usage: string): CommandLineError {
  const trailing = notes.length === 0 && Object.keys(scope.command.positionals).length > 0;
  const tips = trailing ? [`tip: to pass '${text}' as a value, use '-- ${text}'`] : notes;
  return new CommandLineError(`unexpected argument '${text}' found`, { notes: tips, usage });
}
