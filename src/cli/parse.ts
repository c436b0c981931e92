// Command line parser with the grammar of clap 4.5: `--opt v`, `--opt=v`, `-Xv`, `-X=v`, `-X v`, grouped flags, `--`; from the
// arguments of a program down to the command they name. Source: nydusd.md 1.2, nydus-image 1.1, golden cli/.
import type { Command } from './command.ts';
import { CommandLineError, Level, listed, refuse, unexpected, type Value } from './parse-level.ts';
import { similar } from './suggest.ts';
import { hasSubcommands, helpUsage, scopeOf, type Scope } from './usage.ts';

/** What a command line asks for. */
export type Parsed =
  | { kind: 'help'; scope: Scope }
  | { kind: 'version'; program: Command }
  | { kind: 'run'; scope: Scope; values: Record<string, unknown>; given: Set<string> };

/** The subcommand a word names; throws for words that name none, or may not stand here. */
function subcommandOf(level: Level, word: string): string {
  const { command } = level.scope;
  const usage = helpUsage(level.scope);
  const known = word in command.subcommands || word in command.refusedSubcommands || word === 'help';
  if (known && level.used.length > 0 && command.argsConflictWithSubcommands) {
    throw new CommandLineError(
      `the subcommand '${word}' cannot be used with${listed(level.scope, level.used)}`,
      {
        usage,
      },
    );
  }
  if (Object.hasOwn(command.refusedSubcommands, word)) {
    throw refuse(`the subcommand '${word}'`, command.refusedSubcommands[word] as string);
  }
  if (known) return word;
  if (level.used.length > 0 && command.argsConflictWithSubcommands)
    throw unexpected(level.scope, word, [], usage);
  const like = similar(word, [...Object.keys(command.subcommands), 'help']).reverse();
  const quoted = like.map((name) => `'${name}'`).join(', ');
  const tip =
    like.length === 1
      ? `tip: a similar subcommand exists: ${quoted}`
      : `tip: some similar subcommands exist: ${quoted}`;
  throw new CommandLineError(`unrecognized subcommand '${word}'`, {
    notes: like.length === 0 ? [] : [tip],
    usage,
  });
}

/** Help for `program help a b`. */
async function helpFor(
  command: Command,
  parents: readonly Command[],
  words: readonly string[],
): Promise<Parsed> {
  const [word] = words;
  if (word === undefined) return { kind: 'help', scope: scopeOf(command, parents) };
  const entry = command.subcommands[word];
  if (entry === undefined) {
    throw new CommandLineError(`unrecognized subcommand '${word}'`, {
      usage: helpUsage(scopeOf(command, parents)),
    });
  }
  return helpFor(await entry.load(), [...parents, command], words.slice(1));
}

/**
 * Parse the arguments of a program down to the command they name.
 *
 * @param argv arguments after the program's name
 * @throws CommandLineError exit 2; its `text` goes to stderr after `error: `
 */
export async function parseArgs(program: Command, argv: readonly string[]): Promise<Parsed> {
  const outer = new Map<string, Value | string[]>();
  const given = new Set<string>();
  let command = program;
  let parents: readonly Command[] = [];
  let level = new Level(scopeOf(program, []));
  // checked when the command below is in order, so that help needs nothing else
  const above: Level[] = [];
  let onlyValues = false;
  for (let i = 0; i < argv.length; i++) {
    const text = argv[i] as string;
    if (onlyValues) {
      level.positional(text);
      continue;
    }
    if (text === '--') {
      level.settle();
      onlyValues = true;
      continue;
    }
    if (text.startsWith('--') || (text.startsWith('-') && text !== '-')) {
      const asked = text.startsWith('--') ? level.long(text) : level.short(text);
      if (asked === 'help') return { kind: 'help', scope: level.scope };
      if (asked === 'version') return { kind: 'version', program };
      continue;
    }
    if (level.takeValue(text)) continue;
    if (!hasSubcommands(command)) {
      level.positional(text);
      continue;
    }
    const word = subcommandOf(level, text);
    if (word === 'help') return helpFor(command, parents, argv.slice(i + 1));
    if (command.subcommands[word]?.standalone !== true) above.push(level);
    for (const [name, value] of level.values) outer.set(name, value);
    for (const name of level.used) given.add(name);
    parents = [...parents, command];
    command = await (command.subcommands[word] as Command['subcommands'][string]).load();
    level = new Level(scopeOf(command, parents));
  }
  level.settle();
  level.validate();
  for (const each of above.toReversed()) each.requireAll();
  for (const name of level.used) given.add(name);
  return { kind: 'run', scope: level.scope, values: level.finish(outer), given };
}
