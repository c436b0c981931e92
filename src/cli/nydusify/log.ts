// Log lines as users of nydusify know them: `time="…" level=info msg="…"`, in colour on a terminal.
// Source: nydus-image-and-nydusify.md 8.1.
import { appendFileSync } from 'node:fs';
import type { LogLevel, Logger } from '../../base/log.ts';
import { LOG_LEVELS } from '../../base/log.ts';

/** Our level for each that the flag takes. */
export const LEVELS: Readonly<Record<string, LogLevel>> = {
  panic: 'error',
  fatal: 'error',
  error: 'error',
  warn: 'warn',
  warning: 'warn',
  info: 'info',
  debug: 'debug',
  trace: 'trace',
};

type Shown = Exclude<LogLevel, 'off'> | 'fatal';
const NAMES: Record<Shown, string> = {
  fatal: 'fatal',
  error: 'error',
  warn: 'warning',
  info: 'info',
  debug: 'debug',
  trace: 'trace',
};
const COLORS: Record<Shown, number> = { fatal: 31, error: 31, warn: 33, info: 36, debug: 37, trace: 37 };

/** A logger that can also tell why the program ends. */
export interface ProgramLog extends Logger {
  level: LogLevel;
  /** the last line: a failure with its fields */
  fatal(message: string, fields?: Readonly<Record<string, string>>): void;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}

/** Local time as RFC 3339, seconds. */
export function logTime(date: Date): string {
  const minutes = -date.getTimezoneOffset();
  const zone =
    minutes === 0
      ? 'Z'
      : `${minutes < 0 ? '-' : '+'}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}` +
    `T${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${zone}`
  );
}

export interface LogOptions {
  level: LogLevel;
  write: (line: string) => void;
  /** layout for a terminal */
  color: boolean;
  now?: () => Date;
}

/** A log of lines. */
export function createLog(options: LogOptions): ProgramLog {
  const { write, color, now = () => new Date() } = options;
  const line = (level: Shown, message: string, fields: Readonly<Record<string, string>> = {}): void => {
    const time = logTime(now());
    const extra = Object.entries(fields).map(
      ([key, value]) => ` ${key}=${/^[\w./-]+$/.test(value) ? value : JSON.stringify(value)}`,
    );
    if (color) {
      const name = NAMES[level].toUpperCase().slice(0, 4);
      write(`\x1b[${COLORS[level]}m${name}\x1b[0m[${time}] ${message}${extra.join('')}\n`);
    } else {
      write(`time="${time}" level=${NAMES[level]} msg=${JSON.stringify(message)}${extra.join('')}\n`);
    }
  };
  const emit = (level: Exclude<LogLevel, 'off'>, message: string): void => {
    if (LOG_LEVELS.indexOf(level) <= LOG_LEVELS.indexOf(log.level)) line(level, message);
  };
  const log: ProgramLog = {
    level: options.level,
    error: (message) => emit('error', message),
    warn: (message) => emit('warn', message),
    info: (message) => emit('info', message),
    debug: (message) => emit('debug', message),
    trace: (message) => emit('trace', message),
    fatal: (message, fields) => line('fatal', message, fields),
  };
  return log;
}

/** Appends lines to a file. */
export function fileWriter(path: string): (line: string) => void {
  appendFileSync(path, '', { mode: 0o666 });
  return (line) => appendFileSync(path, line, { mode: 0o666 });
}
