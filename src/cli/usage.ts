// Usage lines and the spelling of arguments in messages, as clap 4.5 prints them.
import { valueName, type Command, type OptionSpec, type Options, type PositionalSpec } from './command.ts';

/** A command with everything its parser needs: the global options of its parents among its own. */
export interface Scope {
  command: Command;
  /** outermost first; empty for a program */
  parents: readonly Command[];
  options: Options;
}

/** The scope of a command below `parents`. */
export function scopeOf(command: Command, parents: readonly Command[]): Scope {
  const inherited = parents.flatMap((p) => Object.entries(p.options).filter(([, o]) => o.global === true));
  return { command, parents, options: { ...command.options, ...Object.fromEntries(inherited) } };
}

/** `--blob-dir <blob-dir>`, `--encrypt`. */
export function showOption(name: string, option: OptionSpec): string {
  const word = option.shortOnly === true ? `-${option.short}` : `--${name}`;
  return option.type === 'flag' ? word : `${word} <${valueName(name, option)}>`;
}

/** `<SOURCE>...`, or `[BOOTSTRAP]` when it may be left out. */
export function showPositional(
  name: string,
  spec: PositionalSpec,
  required = spec.required === true,
): string {
  return (required ? `<${name}>` : `[${name}]`) + (spec.repeatable === true ? '...' : '');
}

/** An option or positional by its name, as it is shown in messages. */
export function showArgument(scope: Scope, id: string): string {
  const option = scope.options[id];
  if (option !== undefined) return showOption(id, option);
  return showPositional(id, scope.command.positionals[id] ?? { help: '' });
}

function isShown(option: OptionSpec | undefined): boolean {
  return option !== undefined && option.hidden !== true;
}

/** Program and subcommand words; a parent's required options stand before the subcommand. */
function invocation(scope: Scope): string {
  const parent = scope.parents.at(-1);
  if (parent === undefined || parent.argsConflictWithSubcommands) return scope.command.name;
  const required = Object.entries(parent.options).filter(([, o]) => o.required === true && o.global !== true);
  const word = scope.command.name.slice(parent.name.length + 1);
  return [parent.name, ...required.map(([name, o]) => showOption(name, o)), word].join(' ');
}

/** Whether a table offers subcommands to users. */
export function hasSubcommands(command: Command): boolean {
  return Object.keys(command.subcommands).length > 0;
}

/** The general usage: `nydus-image create [OPTIONS] <SOURCE>`. */
export function helpUsage(scope: Scope): string {
  const { command, options } = scope;
  const words = [invocation(scope)];
  const shown = Object.entries(options).filter(([, o]) => isShown(o) && o.refused === undefined);
  // help and version are options too, so there is always one that may be left out
  words.push('[OPTIONS]');
  for (const [name, o] of shown) if (o.required === true) words.push(showOption(name, o));
  for (const [name, p] of Object.entries(command.positionals)) words.push(showPositional(name, p));
  if (!hasSubcommands(command)) return words.join(' ');
  if (command.argsConflictWithSubcommands) return `${words.join(' ')}\n       ${command.name} <COMMAND>`;
  return `${words.join(' ')} [COMMAND]`;
}

/** What `--x` demands, directly and through others, deepest first. */
function unroll(scope: Scope, id: string, seen: Set<string>): string[] {
  seen.add(id);
  const next = (scope.options[id]?.requires ?? []).filter((name) => !seen.has(name));
  return next.flatMap((name) => [...unroll(scope, name, seen), name]);
}

/** `names` and what they demand, options in order of first mention, then positionals in table order. */
export function orderArguments(
  scope: Scope,
  names: readonly string[],
): { options: string[]; positionals: string[] } {
  const all = new Set<string>();
  for (const id of names) {
    for (const deep of unroll(scope, id, new Set())) all.add(deep);
    all.add(id);
  }
  const options = [...all].filter((id) => id in scope.options);
  const positionals = Object.keys(scope.command.positionals).filter((id) => all.has(id));
  return { options, positionals };
}

/**
 * The usage that repeats what the user gave: required arguments, then those used.
 * Falls back to the general usage when nothing was used.
 *
 * @param required arguments that are demanded, in the order in which the demand arose
 * @param used     arguments given, or missing, in order
 */
export function smartUsage(scope: Scope, required: readonly string[], used: readonly string[]): string {
  const given = used.filter((id) => scope.options[id]?.hidden !== true);
  if (given.length === 0) return helpUsage(scope);
  const demanded = orderArguments(scope, required);
  const options = new Set([...demanded.options, ...given.filter((id) => id in scope.options)]);
  const words = [invocation(scope)];
  for (const id of options) words.push(showArgument(scope, id));
  for (const [name, p] of Object.entries(scope.command.positionals)) {
    words.push(showPositional(name, p, p.required === true || given.includes(name)));
  }
  return words.join(' ');
}
