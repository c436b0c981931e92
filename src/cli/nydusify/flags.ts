// Flags with the grammar that users of nydusify know: one or two dashes, `=` or blank, booleans as `=true`, flags before
// arguments, a value from the environment where the command line has none. Source: nydus-image-and-nydusify.md 8.1.
import { UsageError } from '../../base/errors.ts';
import type { OptionSpec, Options } from '../command.ts';

/** An option that may come from an environment variable, or from the first of several that is set: `A,B`. */
export type Flag = OptionSpec & { env?: string };
export type Flags = Readonly<Record<string, Flag>>;

/** A mistake in the flags themselves: usage is printed with it. */
export class FlagError extends UsageError {
  constructor(message: string) {
    super(message, { exitCode: 1 });
  }
}

/** Values by flag name, and which of them somebody set. */
export interface FlagValues {
  /** text of a flag, its default, or undefined */
  text(name: string): string | undefined;
  on(name: string): boolean;
  /** given on the command line or by the environment */
  isSet(name: string): boolean;
}

export interface ParsedFlags {
  values: FlagValues;
  /** what follows the flags */
  rest: string[];
  help: boolean;
  version: boolean;
}

/** The table as help and docs show it: with the names of environment variables. */
export function shownOptions(flags: Flags): Options {
  return Object.fromEntries(
    Object.entries(flags).map(([name, { env, ...option }]) => [
      name,
      env === undefined
        ? option
        : { ...option, help: `${option.help} [${env.replace(/[^,]+/g, '$$$&').replaceAll(',', ', ')}]` },
    ]),
  );
}

const TRUE = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const FALSE = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

function boolean(text: string, complain: () => FlagError): boolean {
  if (TRUE.has(text)) return true;
  if (FALSE.has(text)) return false;
  throw complain();
}

/** Name of a flag by each of its spellings. */
function spellings(flags: Flags): Map<string, string> {
  const names = new Map<string, string>();
  for (const [name, flag] of Object.entries(flags)) {
    for (const spelling of [name, ...(flag.aliases ?? []), ...(flag.short === undefined ? [] : [flag.short])])
      names.set(spelling, name);
  }
  return names;
}

/**
 * Parse the flags at the front of an argument list.
 *
 * @param versioned `--version` and `-v` are flags
 * @throws FlagError
 */
export function parseFlags(
  flags: Flags,
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  versioned: boolean,
): ParsedFlags {
  const names = spellings(flags);
  const given = new Map<string, string | boolean>();
  const spelledAs = new Map<string, string>();
  let help = false;
  let version = false;
  let at = 0;
  for (; at < argv.length; at++) {
    const argument = argv[at] as string;
    if (argument === '--') {
      at++;
      break;
    }
    if (!argument.startsWith('-') || argument === '-') break;
    const text = argument.replace(/^--?/, '');
    const equals = text.indexOf('=');
    const spelling = equals < 0 ? text : text.slice(0, equals);
    const attached = equals < 0 ? undefined : text.slice(equals + 1);
    const name = names.get(spelling);
    if (name === undefined) {
      if (spelling === 'help' || spelling === 'h') help = true;
      else if (versioned && (spelling === 'version' || spelling === 'v')) version = true;
      else throw new FlagError(`flag provided but not defined: -${spelling}`);
      continue;
    }
    const other = spelledAs.get(name);
    if (other !== undefined && other !== spelling)
      throw new FlagError(`Cannot use two forms of the same flag: ${other} ${spelling}`);
    spelledAs.set(name, spelling);
    if (flags[name]?.type === 'flag') {
      const complain = (): FlagError =>
        new FlagError(`invalid boolean value "${attached}" for -${spelling}: parse error`);
      given.set(name, attached === undefined ? true : boolean(attached, complain));
    } else if (attached !== undefined) {
      given.set(name, attached);
    } else {
      at++;
      const value = argv[at];
      if (value === undefined) throw new FlagError(`flag needs an argument: -${spelling}`);
      given.set(name, value);
    }
  }
  takeEnvironment(flags, given, env);
  return { values: valuesOf(flags, given), rest: argv.slice(at), help, version };
}

function takeEnvironment(
  flags: Flags,
  given: Map<string, string | boolean>,
  env: Readonly<Record<string, string | undefined>>,
): void {
  for (const [name, flag] of Object.entries(flags)) {
    // an empty variable is how scripts take a value back
    const variable = flag.env?.split(',').find((one) => (env[one] ?? '') !== '');
    const text = variable === undefined ? undefined : env[variable];
    if (text === undefined || given.has(name)) continue;
    const complain = (): FlagError =>
      new FlagError(
        `could not parse "${text}" as bool value from environment variable "${variable}" for flag ${name}`,
      );
    given.set(name, flag.type === 'flag' ? boolean(text, complain) : text);
  }
}

function valuesOf(flags: Flags, given: ReadonlyMap<string, string | boolean>): FlagValues {
  return {
    text: (name) => {
      const flag = flags[name];
      const value = given.get(name);
      if (typeof value === 'string') return value;
      return flag?.type === 'string' ? flag.default : undefined;
    },
    on: (name) => given.get(name) === true,
    isSet: (name) => given.has(name),
  };
}

/** @throws FlagError `Required flag "x" not set` */
export function checkRequired(flags: Flags, values: FlagValues): void {
  const missing = Object.keys(flags).filter((name) => flags[name]?.required === true && !values.isSet(name));
  if (missing.length === 0) return;
  throw new FlagError(
    missing.length === 1
      ? `Required flag "${missing[0]}" not set`
      : `Required flags "${missing.join(', ')}" not set`,
  );
}
