// Why an image did not mount, in the words of upstream's API. Source: nydusd.md 5.2, golden/api.
import { errnoOf } from '../base/errno.ts';
import { BackendError, NydusError, UsageError, messageOf } from '../base/errors.ts';
import { DaemonError, debugString } from './api-error.ts';

const OS_TEXTS: Record<string, string> = {
  ENOENT: 'No such file or directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EISDIR: 'Is a directory',
  ENOTDIR: 'Not a directory',
  EIO: 'Input/output error',
  EINVAL: 'Invalid argument',
  ENOSPC: 'No space left on device',
  EMFILE: 'Too many open files',
  ECONNREFUSED: 'Connection refused',
};

/** Text of a failed system call as Rust prints it: `No such file or directory (os error 2)`. */
export function osErrorText(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  if (error instanceof NydusError || typeof code !== 'string') return undefined;
  const text = OS_TEXTS[code];
  return text === undefined ? undefined : `${text} (os error ${errnoOf(error)})`;
}

/** What Rust calls the kind of a system error. */
const OS_KINDS: Record<string, string> = {
  ENOENT: 'NotFound',
  ECONNREFUSED: 'ConnectionRefused',
  EACCES: 'PermissionDenied',
  EPERM: 'PermissionDenied',
};

/** The same in Rust's debug form: `Os { code: 2, kind: NotFound, message: "No such file or directory" }`. */
export function osErrorDebug(error: unknown): string | undefined {
  const code = String((error as { code?: unknown } | null)?.code);
  const [kind, text] = [OS_KINDS[code], OS_TEXTS[code]];
  if (kind === undefined || text === undefined) return undefined;
  return `Os { code: ${errnoOf(error)}, kind: ${kind}, message: ${debugString(text)} }`;
}

/** The system error that lies at the bottom of a chain of causes, if any. */
function rootSystemError(error: unknown): unknown {
  let at = error;
  for (let depth = 0; depth < 8 && at instanceof Error && at.cause !== undefined; depth++) at = at.cause;
  return at;
}

/** A RAFS failure: `RAFS failed to handle request, <step>: <text>` and upstream's stray backtick. */
export function openFailure(step: string, error: unknown): DaemonError {
  if (error instanceof DaemonError) return error;
  const text = osErrorText(rootSystemError(error)) ?? messageOf(error);
  return DaemonError.other(`RAFS failed to handle request, ${step}: ${text}\``, { cause: error });
}

/** Step at which opening an image failed: its bootstrap is read first, then its storage is set up. */
export function openStep(error: unknown): string {
  const storage =
    error instanceof UsageError || (error instanceof BackendError && /\bblob\b/.test(error.message));
  return storage ? 'Failed to configure device' : 'Failed to fill superBlock';
}

/** A directory that cannot be shared: `passthroughfs failed to handle request, <text>`. */
export function shareFailure(error: unknown): DaemonError {
  const text = osErrorText(rootSystemError(error)) ?? messageOf(error);
  return DaemonError.other(`passthroughfs failed to handle request, ${text}`, { cause: error });
}

/** What kept something that was opened from being shown: no place for it. */
export function attachFailure(error: unknown): unknown {
  if (error instanceof DaemonError || !(error instanceof UsageError)) return error;
  return DaemonError.other(`VFS failed to handle request, ${messageOf(error)}`, { cause: error });
}
