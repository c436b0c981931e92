// `--help`: summary, usage, arguments, options by group, subcommands, examples; all from the command tables.
import type { OptionSpec } from './command.ts';
import { valueName } from './command.ts';
import { helpUsage, showPositional, type Scope } from './usage.ts';

/** Narrowest and widest text; wider lines are hard to read. */
const MIN_WIDTH = 60;
const MAX_WIDTH = 110;

/** One entry of a help list: what to type, and what it does. */
export interface HelpEntry {
  term: string;
  text: string;
}

/** A headed list of entries. */
export interface HelpSection {
  title: string;
  entries: HelpEntry[];
}

/** Break text into lines of at most `width` characters at blanks. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

function optionEntry(name: string, option: OptionSpec): HelpEntry {
  const short = option.short === undefined ? '    ' : `-${option.short}, `;
  const value = option.type === 'flag' ? '' : ` <${valueName(name, option)}>`;
  const notes: string[] = [];
  if (option.aliases !== undefined)
    notes.push(`[aliases: ${option.aliases.map((a) => `--${a}`).join(', ')}]`);
  if (option.type === 'string') {
    if (option.default !== undefined) notes.push(`[default: ${option.default}]`);
    if (option.values !== undefined) notes.push(`[possible values: ${option.values.join(', ')}]`);
  }
  const term = option.shortOnly === true ? `-${option.short}${value}` : `${short}--${name}${value}`;
  return { term, text: [option.help, ...notes].join(' ') };
}

/** Everything `--help` lists for a command, in order. */
export function helpSections(scope: Scope): HelpSection[] {
  const { command, options } = scope;
  const groups = new Map<string, HelpEntry[]>([['Options', []]]);
  const global: HelpEntry[] = [];
  for (const [name, option] of Object.entries(options)) {
    if (option.hidden === true || option.refused !== undefined) continue;
    const title = option.group ?? 'Options';
    if (option.global === true && option.group === undefined) global.push(optionEntry(name, option));
    else groups.set(title, [...(groups.get(title) ?? []), optionEntry(name, option)]);
  }
  global.push({ term: '-h, --help', text: 'print this help' });
  if (command.versioned) global.push({ term: '-V, --version', text: 'print the version' });
  const sections: HelpSection[] = [];
  const commands = Object.entries(command.subcommands).map(([term, s]) => ({ term, text: s.summary }));
  if (commands.length > 0) commands.push({ term: 'help', text: 'Print the help of a subcommand' });
  sections.push({ title: 'Commands', entries: commands });
  const positionals = Object.entries(command.positionals);
  sections.push({
    title: 'Arguments',
    entries: positionals.map(([name, p]) => ({
      term: showPositional(name, p),
      text: p.values === undefined ? p.help : `${p.help} [possible values: ${p.values.join(', ')}]`,
    })),
  });
  for (const [title, entries] of groups) sections.push({ title, entries });
  sections.push({ title: 'General options', entries: global });
  return sections.filter((s) => s.entries.length > 0);
}

function formatSection(section: HelpSection, width: number): string {
  const longest = Math.max(...section.entries.map((e) => e.term.length));
  const column = Math.min(longest + 4, 34);
  const lines = section.entries.flatMap(({ term, text }) => {
    const wrapped = wrap(text, Math.max(30, width - column));
    const head = `  ${term}`;
    const indent = ' '.repeat(column);
    if (head.length + 2 > column) return [head, ...wrapped.map((l) => indent + l)];
    return wrapped.map((l, i) => (i === 0 ? head.padEnd(column) : indent) + l);
  });
  return `${section.title}:\n${lines.join('\n')}\n`;
}

/** The text of `--help`, with a line feed at its end. */
export function helpText(scope: Scope, columns = 100): string {
  const width = Math.min(MAX_WIDTH, Math.max(MIN_WIDTH, columns));
  const { command } = scope;
  const head = [
    command.summary,
    ...(command.description === undefined ? [] : ['', ...wrap(command.description, width)]),
  ];
  const blocks = [head.join('\n') + '\n', `Usage: ${helpUsage(scope)}\n`];
  for (const section of helpSections(scope)) blocks.push(formatSection(section, width));
  if (command.examples.length > 0) {
    blocks.push(`Examples:\n${command.examples.map((e) => `  $ ${e}`).join('\n')}\n`);
  }
  return blocks.join('\n');
}
