// Command tables: one value per command feeds the parser, `--help`, `docs/cli/` and the types of the parsed values.
// The grammar is clap 4.5's, which the users of these command lines know (nydusd.md 1.2, nydus-image 1.1).
import type { Readable, Writable } from 'node:stream';

interface OptionBase {
  /** one letter, without the dash */
  short?: string;
  /** further long names, without the dashes */
  aliases?: readonly string[];
  /** has no long name: messages and help show the short one; its key names the value */
  shortOnly?: true;
  /** one sentence, lower case, no full stop */
  help: string;
  /** parsed, but named nowhere */
  hidden?: boolean;
  /** accepted before and after the subcommand */
  global?: boolean;
  required?: boolean;
  /** required unless one of these options or positionals is given */
  requiredUnless?: readonly string[];
  /** other options that must be given too; a missing one is reported as a missing argument */
  requires?: readonly string[];
  /** options or positionals that may not be given together with this one; counts in both directions */
  conflicts?: readonly string[];
  /** heading in `--help`; options without one come first */
  group?: string;
  /** a known option of the program we replace that this version does not serve; says why, or what to use instead */
  refused?: string;
}

/** An option without value; false unless given. */
export interface FlagOption extends OptionBase {
  type: 'flag';
}

/** An option with one value. */
export interface ValueOption extends OptionBase {
  type: 'string';
  /** name of the value in messages and help; the option's own name when absent, as upstream shows it */
  value?: string;
  default?: string;
  /** the only values accepted */
  values?: readonly string[];
  /** values accepted but left out of help and messages, such as an old spelling */
  hiddenValues?: readonly string[];
  /** values of the program we replace that this version does not serve, each with the reason */
  refusedValues?: Readonly<Record<string, string>>;
  /** may be given several times; the value is then an array */
  repeatable?: boolean;
  /** problem of a value as the parser reports it, undefined when it is fine */
  check?: (text: string) => string | undefined;
}

export type OptionSpec = FlagOption | ValueOption;
export type Options = Readonly<Record<string, OptionSpec>>;

/** An argument without a name before it. The last one of a command may be repeatable. */
export interface PositionalSpec {
  help: string;
  required?: boolean;
  requiredUnless?: readonly string[];
  conflicts?: readonly string[];
  repeatable?: boolean;
  /** the only values accepted */
  values?: readonly string[];
}
export type Positionals = Readonly<Record<string, PositionalSpec>>;

/** One of the values that the table lists, or any text. */
type OneOf<S> = S extends { values: readonly (infer V extends string)[] } ? V : string;

type OptionValue<S> = S extends { type: 'flag' }
  ? boolean
  : S extends { repeatable: true }
    ? string[]
    : S extends { default: string } | { required: true }
      ? OneOf<S>
      : OneOf<S> | undefined;

type PositionalValue<S> = S extends { repeatable: true }
  ? string[]
  : S extends { required: true }
    ? OneOf<S>
    : OneOf<S> | undefined;

/** Values of a parsed command line, by long option name and positional name. Every key is present. */
export type Values<O, P = unknown> = { [K in keyof O]: OptionValue<O[K]> } & {
  [K in keyof P]: PositionalValue<P[K]>;
};

/** What a command may touch; nothing global. */
export interface CommandContext {
  stdin: Readable & { isTTY?: boolean };
  /** results only */
  stdout: Writable & { isTTY?: boolean };
  /** messages for people */
  stderr: Writable & { isTTY?: boolean };
  env: Readonly<Record<string, string | undefined>>;
  /** aborted by SIGINT and SIGTERM; a second signal ends the process */
  signal: AbortSignal;
  /** long names of the options, and names of the positionals, that stood on the command line */
  given: ReadonlySet<string>;
  /** the arguments after the program's name */
  argv: readonly string[];
}

export interface CommandSpec<O extends Options, P extends Positionals> {
  /** program and subcommand: `nydus-image check` */
  name: string;
  /** one sentence, no full stop */
  summary: string;
  /** further paragraphs of help, if the summary is not enough */
  description?: string;
  options: O;
  positionals?: P;
  /** command lines a user can copy */
  examples: readonly string[];
  /** @returns the exit status */
  run: (ctx: CommandContext, values: Values<O, P>) => Promise<number> | number;
}

/** A subcommand as its program lists it; the table is loaded when it is called. */
export interface SubcommandEntry {
  summary: string;
  load: () => Promise<Command>;
  /** as OptionSpec.refused; such a subcommand is not in help */
  refused?: string;
  /** works without the required options of the program */
  standalone?: true;
}

/** A command whose value types are erased, as parser, help and docs see it. */
export interface Command {
  name: string;
  summary: string;
  description?: string;
  options: Options;
  positionals: Positionals;
  examples: readonly string[];
  subcommands: Readonly<Record<string, SubcommandEntry>>;
  /** subcommands that this version does not serve, with the reason */
  refusedSubcommands: Readonly<Record<string, string>>;
  /** options of this command may not stand before a subcommand (nydusd.md 1.2) */
  argsConflictWithSubcommands: boolean;
  /** has `--version` */
  versioned: boolean;
  run: (ctx: CommandContext, values: Record<string, never>) => Promise<number> | number;
}

/** A command without subcommands. */
export function command<const O extends Options, const P extends Positionals = Record<never, never>>(
  spec: CommandSpec<O, P>,
): Command {
  return {
    name: spec.name,
    summary: spec.summary,
    ...(spec.description === undefined ? {} : { description: spec.description }),
    options: spec.options,
    positionals: spec.positionals ?? {},
    examples: spec.examples,
    subcommands: {},
    refusedSubcommands: {},
    argsConflictWithSubcommands: false,
    versioned: false,
    // the parser fills every key of both tables, with the types that Values derives from them
    run: spec.run as unknown as Command['run'],
  };
}

export interface ProgramSpec<O extends Options> extends Omit<
  CommandSpec<O, Record<never, never>>,
  'positionals'
> {
  subcommands: Readonly<Record<string, SubcommandEntry>>;
  refusedSubcommands?: Readonly<Record<string, string>>;
  argsConflictWithSubcommands?: boolean;
}

/** A program: the command of a binary, with subcommands and `--version`. */
export function program<const O extends Options>(spec: ProgramSpec<O>): Command {
  return {
    ...command(spec),
    subcommands: spec.subcommands,
    refusedSubcommands: spec.refusedSubcommands ?? {},
    argsConflictWithSubcommands: spec.argsConflictWithSubcommands ?? false,
    versioned: true,
  };
}

/** Name of an option's value in help and messages. */
export function valueName(name: string, option: OptionSpec): string {
  return (option.type === 'string' ? option.value : undefined) ?? name;
}
