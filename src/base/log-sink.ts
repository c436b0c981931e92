// Where log lines go: stderr, or a file that may rotate. Lines: `[YYYY-MM-DD HH:MM:SS.ffffff +HH:MM] LEVEL message`;
// levels other than INFO name the caller as `[file:line]`. Source: nydusd.md 3.
import { closeSync, openSync, writeSync } from 'node:fs';
import { dirname, extname } from 'node:path';
import { UsageError, messageOf } from './errors.ts';
import { makeDirectories } from './make-directories.ts';
import { LOG_LEVELS, type LogLevel, type Logger } from './log.ts';

/** Rotated files that are kept (nydusd.md 3). */
export const KEPT_LOG_FILES = 10;

const COLOR: Record<LogLevel, string> = {
  off: '',
  error: '\x1b[31m',
  warn: '\x1b[33m',
  info: '\x1b[32m',
  debug: '\x1b[36m',
  trace: '\x1b[90m',
};

/** What takes finished lines. `close` resolves when everything is written. */
export interface LogTarget {
  write(line: string): void;
  close(): Promise<void>;
}

/** A logger whose level can change while it runs. */
export interface LogSink extends Logger {
  level: LogLevel;
  /** write what is buffered; log calls after it go nowhere */
  close(): Promise<void>;
}

export interface LogSinkOptions {
  level: LogLevel;
  target: LogTarget;
  color?: boolean;
  /** clock, for tests */
  now?: () => Date;
  /** write `[file:line]` before messages of levels other than INFO; default on */
  places?: boolean;
}

function two(value: number): string {
  return value < 10 ? `0${value}` : `${value}`;
}

/** Local time as `YYYY-MM-DD HH:MM:SS.ffffff +HH:MM`; `micros` are the microseconds below the millisecond. */
export function formatLogTime(time: Date, micros = 0): string {
  const offset = -time.getTimezoneOffset();
  const sign = offset < 0 ? '-' : '+';
  const minutes = Math.abs(offset);
  const fraction = String(time.getMilliseconds() * 1000 + micros).padStart(6, '0');
  return (
    `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ` +
    `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${fraction} ` +
    `${sign}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`
  );
}

/** Path of a log file as given by a user: one without an extension gets `.log`. */
export function logFilePath(path: string): string {
  return extname(path) === '' ? `${path}.log` : path;
}

/** `file:line` of the function that called `below`; empty when the stack does not tell. */
function callerOf(below: (...args: never[]) => unknown): string {
  const holder: { stack?: string } = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 1;
  Error.captureStackTrace(holder, below);
  Error.stackTraceLimit = limit;
  const place = /([^/\s(]+):(\d+):\d+\)?$/.exec((holder.stack ?? '').trimEnd());
  return place === null ? '' : `[${place[1]}:${place[2]}] `;
}

/** A logger that writes formatted lines to a target. */
export function createLogSink(options: LogSinkOptions): LogSink {
  const { target, color = false, places = true } = options;
  let open = true;
  const emit = (
    level: Exclude<LogLevel, 'off'>,
    message: string,
    caller: (message: string) => void,
  ): void => {
    if (!open || LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(sink.level)) return;
    const precise = performance.timeOrigin + performance.now();
    const time = options.now?.() ?? new Date(precise);
    const micros = options.now === undefined ? Math.floor((precise % 1) * 1000) : 0;
    const place = level === 'info' || !places ? '' : callerOf(caller);
    const name = level.toUpperCase();
    const shown = color ? `${COLOR[level]}${name}\x1b[0m` : name;
    target.write(`[${formatLogTime(time, micros)}] ${shown} ${place}${message}\n`);
  };
  const sink: LogSink = {
    level: options.level,
    error: (message) => emit('error', message, sink.error),
    warn: (message) => emit('warn', message, sink.warn),
    info: (message) => emit('info', message, sink.info),
    debug: (message) => emit('debug', message, sink.debug),
    trace: (message) => emit('trace', message, sink.trace),
    close: async () => {
      if (!open) return;
      open = false;
      await target.close();
    },
  };
  return sink;
}

/** Lines go to a file descriptor, each with one write call, so that lines of several processes do not mix. */
export function fdTarget(fd: number, closeFd = false): LogTarget {
  return {
    write: (line) => {
      try {
        writeSync(fd, line);
      } catch {
        // a full disk or a closed terminal must not end the daemon
      }
    },
    close: async () => {
      if (closeFd) closeSync(fd);
    },
  };
}

/** Lines are appended to a file, which is created when missing. UsageError, exit 1, when it cannot be opened. */
export function fileTarget(path: string): LogTarget {
  const file = logFilePath(path);
  try {
    return fdTarget(openSync(file, 'a', 0o644), true);
  } catch (error) {
    throw new UsageError(`cannot open the log file ${file}: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: 'name a file in an existing directory you may write to with --log-file',
    });
  }
}

/** Name of a rotated file: `<path>.<time>.gz`, the plain path for the file being written. */
export function rotatedName(path: string, time: Date | null, index = 1): string {
  if (time === null) return path;
  const stamp = time.toISOString().slice(0, 19).replaceAll(':', '-');
  return `${path}.${stamp}${index > 1 ? `.${index}` : ''}.gz`;
}

/**
 * Lines are appended to a file that is set aside, compressed, after `megabytes` MiB; the last ten are kept.
 * Loads its library only here: rotation is rare, start-up is not.
 */
export async function rotatingTarget(path: string, megabytes: number): Promise<LogTarget> {
  const file = logFilePath(path);
  fileTarget(path)
    .close()
    .catch(() => {}); // the same early error as without rotation
  const { createStream } = await import('rotating-file-stream');
  makeDirectories(dirname(file));
  const stream = createStream(
    (time: number | Date | null, index?: number) =>
      rotatedName(file, time === null ? null : new Date(time), index),
    { size: `${megabytes}M`, compress: 'gzip', maxFiles: KEPT_LOG_FILES, history: `${file}.history` },
  );
  stream.on('error', () => {}); // as above: logging trouble is not the daemon's end
  return {
    write: (line) => void stream.write(line),
    close: () => new Promise((resolve) => stream.end(() => resolve())),
  };
}

export interface OpenLogOptions {
  level: LogLevel;
  /** absent: stderr, in colour on a terminal */
  file?: string | undefined;
  /** MiB; 0 turns rotation off */
  rotationMegabytes?: number;
  env?: NodeJS.ProcessEnv;
}

/** The log of a daemon as its command line asks for it. */
export async function openLog(options: OpenLogOptions): Promise<LogSink> {
  const { level, file, rotationMegabytes = 0, env = process.env } = options;
  if (file === undefined) {
    const color = process.stderr.isTTY === true && (env['NO_COLOR'] ?? '') === '';
    return createLogSink({ level, target: fdTarget(2), color });
  }
  const target = rotationMegabytes > 0 ? await rotatingTarget(file, rotationMegabytes) : fileTarget(file);
  return createLogSink({ level, target });
}
