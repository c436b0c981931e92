// From an argument list to an exit status: dispatch, help, version, signals, and how failures are reported.
import { versionText } from '../base/version.ts';
import type { Command, CommandContext } from './command.ts';
import { CommandLineError } from './parse-level.ts';
import { parseArgs } from './parse.ts';

/** Exit status of a process that a signal ended, as shells report it. */
export const SIGNAL_STATUS = { SIGINT: 130, SIGTERM: 143 } as const;
type Signal = keyof typeof SIGNAL_STATUS;

/** What `runProgram` needs from its process. */
export type ProgramIo = Omit<CommandContext, 'signal' | 'given' | 'argv'> & { signal?: AbortSignal };

/** Why the work was stopped, when a signal did it. */
export class Interrupted extends Error {
  readonly signal: Signal;

  constructor(signal: Signal) {
    super(`stopped by ${signal}`);
    this.name = 'Interrupted';
    this.signal = signal;
  }
}

function wantsDebug(values: Record<string, unknown>): boolean {
  return values['log-level'] === 'debug' || values['log-level'] === 'trace';
}

/** Streams are reached through getters, as opening stdin of a process is work that most commands do not need. */
export function contextOf(
  io: ProgramIo,
  signal: AbortSignal,
  given: Set<string>,
  argv: readonly string[],
): CommandContext {
  return {
    get stdin() {
      return io.stdin;
    },
    get stdout() {
      return io.stdout;
    },
    get stderr() {
      return io.stderr;
    },
    env: io.env,
    signal,
    given,
    argv,
  };
}

/**
 * Run a program.
 *
 * @param argv arguments after the program's name
 * @returns exit status: 0 done, 1 failed, 2 the command line is wrong, or what the command decides
 */
export async function runProgram(program: Command, argv: readonly string[], io: ProgramIo): Promise<number> {
  let values: Record<string, unknown> = {};
  const signal = io.signal ?? new AbortController().signal;
  try {
    const parsed = await parseArgs(program, argv);
    switch (parsed.kind) {
      case 'version':
        io.stdout.write(versionText(program.name));
        return 0;
      case 'help': {
        const { helpText } = await import('./help.ts');
        io.stdout.write(helpText(parsed.scope, (io.stdout as { columns?: number }).columns));
        return 0;
      }
      case 'run': {
        values = parsed.values;
        const context = contextOf(io, signal, parsed.given, argv);
        return await parsed.scope.command.run(context, parsed.values as Record<string, never>);
      }
    }
  } catch (error) {
    if (error instanceof CommandLineError) {
      io.stderr.write(`error: ${error.text}`);
      return error.exitCode;
    }
    const { reportOf } = await import('./report.ts');
    const stop: unknown = signal.reason;
    if (signal.aborted && stop instanceof Interrupted) {
      io.stderr.write(wantsDebug(values) ? reportOf(error, true) : `${stop.message}\n`);
      return SIGNAL_STATUS[stop.signal];
    }
    io.stderr.write(reportOf(error, wantsDebug(values)));
    return 1;
  }
}

/**
 * Run something as this process: real arguments, streams and signals, and an end that flushes nothing twice.
 * The first SIGINT or SIGTERM aborts the work, the second one ends the process at once.
 *
 * @param run returns the exit status
 */
export async function runAsProcess(
  run: (argv: readonly string[], io: ProgramIo) => Promise<number>,
): Promise<void> {
  const stop = new AbortController();
  for (const name of Object.keys(SIGNAL_STATUS) as Signal[]) {
    process.on(name, () => {
      if (stop.signal.aborted) process.exit(SIGNAL_STATUS[name]);
      stop.abort(new Interrupted(name));
    });
  }
  // a reader that has seen enough (`| head`) is no failure
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(0);
  });
  const io: ProgramIo = {
    get stdin() {
      return process.stdin;
    },
    get stdout() {
      return process.stdout;
    },
    get stderr() {
      return process.stderr;
    },
    env: process.env,
    signal: stop.signal,
  };
  const status = await run(process.argv.slice(2), io);
  // a pipe whose reader is slow has not taken everything yet, and `exit` would drop the rest
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0) await new Promise<void>((resolve) => stream.write('', () => resolve()));
  }
  process.exit(status);
}

/** Run a program as this process. */
export function main(program: Command): Promise<void> {
  return runAsProcess((argv, io) => runProgram(program, argv, io));
}
