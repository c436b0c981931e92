// From an argument list to an exit status, as nydusify has it: 0 or 1, one fatal line for a failure, 128 + signal for an
// interruption. Source: nydus-image-and-nydusify.md 8.1.
import { NydusError, UsageError } from '../../base/errors.ts';
import { versionInfo } from '../../base/version.ts';
import type { Command } from '../command.ts';
import { helpText } from '../help.ts';
import { chainOf, lineOf } from '../report.ts';
import { contextOf, Interrupted, runAsProcess, SIGNAL_STATUS, type ProgramIo } from '../run.ts';
import { scopeOf } from '../usage.ts';
import { buildFlags } from './build.ts';
import { checkFlags } from './check.ts';
import { chunkdictGenerateFlags } from './chunkdict-generate.ts';
import { convertFlags } from './convert.ts';
import { copyFlags } from './copy.ts';
import type { NydusifyContext } from './context.ts';
import { checkRequired, FlagError, parseFlags, type Flags, type FlagValues } from './flags.ts';
import { createLog, fileWriter, LEVELS, type ProgramLog } from './log.ts';
import { mountFlags } from './mount.ts';
import { globalFlags, nydusify } from './program.ts';
import { serveRegistryFlags } from './serve-registry.ts';

const FLAGS: Readonly<Record<string, Flags>> = {
  convert: convertFlags,
  build: buildFlags,
  check: checkFlags,
  copy: copyFlags,
  mount: mountFlags,
  view: mountFlags,
  pack: buildFlags,
  'serve-registry': serveRegistryFlags,
  'chunkdict generate': chunkdictGenerateFlags,
};

/** Text of `--version`. */
export function versionText(): string {
  const { package_ver: version, git_commit: revision, build_time: time } = versionInfo();
  return `\nVersion\t: ${version}\nRevision\t: ${revision}\nGo version\t: node ${process.version}\nBuild time\t: ${time}\n`;
}

function openLog(io: ProgramIo, values: FlagValues): ProgramLog {
  const debug = values.on('debug');
  const wanted = values.text('log-level') ?? 'info';
  const file = debug ? undefined : values.text('log-file');
  const toFile = file !== undefined && file !== '';
  const log = createLog({
    level: debug ? 'debug' : (LEVELS[wanted] ?? 'info'),
    write: toFile ? fileWriter(file) : (line) => void io.stderr.write(line),
    color: !toFile && io.stderr.isTTY === true && (io.env['NO_COLOR'] ?? '') === '',
  });
  if (!debug && LEVELS[wanted] === undefined)
    log.warn(`failed to parse log level(${wanted}): not a valid level, info is used`);
  return log;
}

/** One line for a failure: message and causes, next step, code. */
function reportFailure(log: ProgramLog, error: unknown): void {
  const chain = chainOf(error);
  const lines = chain.map(lineOf);
  const message = lines.filter((line, i) => i === 0 || !lines[i - 1]?.includes(line)).join(': ');
  const errors = chain.filter((e) => e instanceof NydusError);
  const hint = errors.find((e) => e.hint !== undefined)?.hint;
  const code = errors[0]?.code;
  log.fatal(message, { ...(hint === undefined ? {} : { hint }), ...(code === undefined ? {} : { code }) });
  if (log.level === 'debug' || log.level === 'trace') {
    for (const e of chain) if (e instanceof Error && e.stack !== undefined) log.debug(e.stack);
  }
}

interface Invocation {
  command: Command;
  /** the commands it stands below */
  parents: Command[];
  flags: Flags;
  argv: readonly string[];
}

/** The command that words name: one below another, as `chunkdict generate`, has both names. */
async function commandOf(rest: readonly string[]): Promise<Invocation> {
  let command: Command = nydusify;
  const parents: Command[] = [];
  let words = 0;
  for (let word = rest[0]; word !== undefined; word = rest[words]) {
    if (Object.keys(command.subcommands).length === 0) break;
    const flag = parents.length > 0 && word.startsWith('-');
    if (flag || (parents.length > 0 && (word === 'help' || word === 'h'))) break;
    const refused = command.refusedSubcommands[word];
    if (refused !== undefined)
      throw new UsageError(`the command ${word} is not supported yet`, { exitCode: 1, hint: refused });
    const entry = Object.hasOwn(command.subcommands, word) ? command.subcommands[word] : undefined;
    if (entry === undefined) throw new FlagError(`unknown command "${word}"`);
    parents.push(command);
    command = await entry.load();
    words++;
  }
  return { command, parents, flags: FLAGS[rest.slice(0, words).join(' ')] ?? {}, argv: rest.slice(words) };
}

/**
 * Run nydusify.
 *
 * @param argv arguments after the program's name
 * @returns exit status
 */
export async function runNydusify(argv: readonly string[], io: ProgramIo): Promise<number> {
  const signal = io.signal ?? new AbortController().signal;
  const columns = (io.stdout as { columns?: number }).columns;
  let log = createLog({ level: 'info', write: (line) => void io.stderr.write(line), color: false });
  let shown = scopeOf(nydusify, []);
  try {
    const outer = parseFlags(globalFlags, argv, io.env, true);
    if (outer.version) return (io.stdout.write(versionText()), 0);
    log = openLog(io, outer.values);
    const asksHelp = outer.rest[0] === 'help' || outer.rest[0] === 'h';
    const words = asksHelp ? outer.rest.slice(1) : outer.rest;
    if (words.length === 0 || outer.help) return (io.stdout.write(helpText(shown, columns)), 0);
    const { command, parents, flags, argv: own } = await commandOf(words);
    shown = scopeOf(command, parents);
    const inner = parseFlags(flags, own, io.env, false);
    const asksBelow = Object.keys(command.subcommands).length > 0;
    if (inner.help || asksHelp || asksBelow) return (io.stdout.write(helpText(shown, columns)), 0);
    checkRequired(flags, inner.values);
    if (inner.rest.length > 0) throw new FlagError(`unexpected argument "${inner.rest[0]}"`);
    if (process.arch !== 'x64' && process.arch !== 'arm64')
      throw new UsageError("Nydusify can only work under architecture 'amd64' and 'arm64'", { exitCode: 1 });
    const given = new Set(Object.keys(flags).filter((name) => inner.values.isSet(name)));
    const context: NydusifyContext = Object.assign(contextOf(io, signal, given, own), {
      log,
      values: inner.values,
    });
    // the table says how its command is run; its values are in the context
    return await command.run(context, {});
  } catch (error) {
    const stop: unknown = signal.reason;
    if (signal.aborted && stop instanceof Interrupted) {
      log.error(stop.message);
      return SIGNAL_STATUS[stop.signal];
    }
    if (error instanceof FlagError) {
      io.stdout.write(`Incorrect Usage: ${error.message}\n\n${helpText(shown, columns)}`);
    }
    reportFailure(log, error);
    return 1;
  }
}

/** Run nydusify as this process. The first SIGINT or SIGTERM ends the work, the second one the process. */
export function main(): Promise<void> {
  return runAsProcess(runNydusify);
}
