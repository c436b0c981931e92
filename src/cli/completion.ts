// Shell completion from the command tables: the script knows every program, subcommand, option and value.
import type { Command, OptionSpec } from './command.ts';

/** Shells we write scripts for. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

interface Entry {
  /** program and subcommands, separated by blanks */
  path: string;
  command: Command;
  /** options of the programs above that may stand here too */
  inherited: readonly (readonly [string, OptionSpec])[];
}

async function entriesOf(command: Command, path: string, inherited: Entry['inherited']): Promise<Entry[]> {
  const entries: Entry[] = [{ path, command, inherited }];
  const global = Object.entries(command.options).filter(([, option]) => option.global === true);
  for (const [word, entry] of Object.entries(command.subcommands)) {
    entries.push(...(await entriesOf(await entry.load(), `${path} ${word}`, [...inherited, ...global])));
  }
  return entries;
}

function optionsOf({ command, inherited }: Entry): (readonly [string, OptionSpec])[] {
  const all: (readonly [string, OptionSpec])[] = [...Object.entries(command.options), ...inherited];
  return all.filter(([, o]) => o.hidden !== true && o.refused === undefined);
}

function wordsOf(name: string, option: OptionSpec): string[] {
  const long = option.shortOnly === true ? [] : [`--${name}`];
  return option.short === undefined ? long : [...long, `-${option.short}`];
}

function valuesOf(option: OptionSpec): readonly string[] {
  return option.type === 'string' ? (option.values ?? []) : [];
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function bashCases(entries: readonly Entry[]): string {
  const words: string[] = [];
  const values: string[] = [];
  for (const entry of entries) {
    const options = optionsOf(entry);
    const positionals = Object.values(entry.command.positionals).flatMap((p) => p.values ?? []);
    const all = [
      ...Object.keys(entry.command.subcommands),
      ...positionals,
      ...options.flatMap(([name, option]) => wordsOf(name, option)),
      '--help',
      ...(entry.command.versioned ? ['--version'] : []),
    ];
    words.push(`    ${quote(entry.path)}) words=${quote(all.join(' '))} ;;`);
    for (const [name, option] of options) {
      if (option.type === 'flag') continue;
      const patterns = wordsOf(name, option).map((word) => quote(`${entry.path} ${word}`));
      values.push(`    ${patterns.join('|')}) files=yes; words=${quote(valuesOf(option).join(' '))} ;;`);
    }
  }
  return `  case "$path" in\n${words.join('\n')}\n  esac\n  case "$path $previous" in\n${values.join('\n')}\n  esac`;
}

function bashScript(programs: readonly string[], entries: readonly Entry[]): string {
  const paths = entries.map(({ path }) => quote(path)).join('|');
  return `_nydus_complete() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}" path="\${1##*/}" words='' files='' word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in ${paths}) path="$path $word" ;; esac
  done
${bashCases(entries)}
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -z "$words" ] || { [ -z "$files" ] && [ "\${current#-}" = "$current" ] && [ \${#COMPREPLY[@]} -eq 0 ]; }; then
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _nydus_complete ${programs.join(' ')}
`;
}

function fishScript(entries: readonly Entry[]): string {
  const lines: string[] = [];
  for (const entry of entries) {
    const [program = '', ...words] = entry.path.split(' ');
    const seen = words.map((word) => `__fish_seen_subcommand_from ${word}`);
    const condition = words.length === 0 ? '__fish_use_subcommand' : seen.join('; and ');
    const head = `complete -c ${program} -n ${quote(condition)}`;
    for (const [word, sub] of Object.entries(entry.command.subcommands)) {
      lines.push(`${head} -f -a ${word} -d ${quote(sub.summary)}`);
    }
    for (const spec of Object.values(entry.command.positionals)) {
      if (spec.values !== undefined)
        lines.push(`${head} -f -a ${quote(spec.values.join(' '))} -d ${quote(spec.help)}`);
    }
    for (const [name, option] of optionsOf(entry)) {
      const long = option.shortOnly === true ? '' : ` -l ${name}`;
      const short = option.short === undefined ? '' : ` -s ${option.short}`;
      const values = valuesOf(option);
      const value =
        option.type === 'flag' ? '' : values.length === 0 ? ' -r' : ` -x -a ${quote(values.join(' '))}`;
      lines.push(`${head}${long}${short}${value} -d ${quote(option.help)}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** The completion script of a shell for several programs. */
export async function completionScript(shell: Shell, programs: readonly Command[]): Promise<string> {
  const lists = await Promise.all(programs.map((program) => entriesOf(program, program.name, [])));
  const entries = lists.flat();
  if (shell === 'fish') return fishScript(entries);
  const script = bashScript(
    programs.map(({ name }) => name),
    entries,
  );
  return shell === 'bash' ? script : `autoload -Uz +X bashcompinit && bashcompinit\n${script}`;
}
