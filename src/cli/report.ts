// How a failure is shown: message, causes, place, hint, code. The shape of the first lines is upstream's, which tests
// and callers compare: `Error: `, the outermost message, a blank line, `Caused by:` and the chain (nydus-image 1.2).
import { getSystemErrorMap } from 'node:util';
import { NydusError, messageOf } from '../base/errors.ts';

/** A step that failed because of something deeper: the outer line of a report. Its exit status is always 1. */
export class CommandFailure extends Error {
  /** the next step */
  readonly hint: string | undefined;

  constructor(message: string, cause?: unknown, hint?: string) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'CommandFailure';
    this.hint = hint;
  }
}

/** An error of a system call as Node reports it. */
interface SystemError extends Error {
  errno: number;
  code: string;
  syscall?: string;
  path?: string;
  dest?: string;
}

function isSystemError(error: unknown): error is SystemError {
  return (
    error instanceof Error && typeof (error as Partial<SystemError>).errno === 'number' && 'code' in error
  );
}

/** strerror(3) of glibc where libuv words it differently. */
const GLIBC_TEXT: Record<string, string> = {
  EACCES: 'Permission denied',
  EADDRINUSE: 'Address already in use',
  EBADF: 'Bad file descriptor',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  EFBIG: 'File too large',
  EINVAL: 'Invalid argument',
  EIO: 'Input/output error',
  EISDIR: 'Is a directory',
  ELOOP: 'Too many levels of symbolic links',
  EMFILE: 'Too many open files',
  ENAMETOOLONG: 'File name too long',
  ENOENT: 'No such file or directory',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  ENOTCONN: 'Transport endpoint is not connected',
  ENOTDIR: 'Not a directory',
  ENOTEMPTY: 'Directory not empty',
  EPERM: 'Operation not permitted',
  EPIPE: 'Broken pipe',
  EROFS: 'Read-only file system',
  EXDEV: 'Invalid cross-device link',
};

/** `No such file or directory (os error 2)`: how upstream words a failed system call. */
export function systemErrorText(code: string, errno: number): string {
  const text = GLIBC_TEXT[code] ?? getSystemErrorMap().get(errno)?.[1] ?? code;
  return `${text[0]?.toUpperCase()}${text.slice(1)} (os error ${Math.abs(errno)})`;
}

/** One line of a report. */
export function lineOf(error: unknown): string {
  return isSystemError(error) ? systemErrorText(error.code, error.errno) : messageOf(error);
}

/** The errors below `error`, outermost first, itself included; stops at a loop. */
export function chainOf(error: unknown): unknown[] {
  const chain: unknown[] = [];
  for (let at = error; at !== undefined && at !== null && !chain.includes(at);) {
    chain.push(at);
    at = at instanceof Error ? at.cause : undefined;
  }
  return chain;
}

function placeOf(error: unknown): string[] {
  if (!isSystemError(error) || error.path === undefined) return [];
  const dest = error.dest === undefined ? '' : ` -> ${error.dest}`;
  return [`Path: ${error.path}${dest} (${error.syscall ?? 'system call'})`];
}

/**
 * The whole report of a failure.
 *
 * @param debug add the stack of every error in the chain, for `--log-level debug`
 * @returns lines with a line feed at the end
 */
export function reportOf(error: unknown, debug = false): string {
  const chain = chainOf(error);
  const [outer, ...causes] = chain;
  const lines = [`Error: ${lineOf(outer)}`];
  if (causes.length > 0) {
    lines.push('', 'Caused by:');
    causes.forEach((cause, i) => {
      const number = causes.length > 1 ? `${String(i).padStart(5)}: ` : '    ';
      lines.push(number + lineOf(cause));
    });
  }
  const extra = [...new Set(chain.flatMap(placeOf))];
  const hint = chain
    .map((e) => (e instanceof NydusError || e instanceof CommandFailure ? e.hint : undefined))
    .find((h) => h !== undefined);
  const code = chain.map((e) => (e instanceof NydusError ? e.code : undefined)).find((c) => c !== undefined);
  if (hint !== undefined) extra.push(`Hint: ${hint}`);
  if (code !== undefined) extra.push(`Code: ${code}`);
  if (extra.length > 0) lines.push('', ...extra);
  if (debug) {
    lines.push('');
    for (const e of chain) lines.push(e instanceof Error ? (e.stack ?? String(e)) : String(e));
  }
  return lines.join('\n') + '\n';
}
