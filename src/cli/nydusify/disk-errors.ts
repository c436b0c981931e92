// Failures of disks in words that say where. Node's error of a failed write names no path, and of what goes where only the command
// knows. Source: write(2), open(2).
import { statfsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { UsageError } from '../../base/errors.ts';

interface SystemError extends Error {
  code: string;
  path?: string;
}

/** Less than this is as good as nothing, bytes: file systems keep some blocks to themselves. */
const NEARLY_FULL = 1024 * 1024;

/** Room on the file system of a path that need not be there yet, in bytes. */
function roomAt(path: string): number {
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      const { bavail, bsize } = statfsSync(at);
      return bavail * bsize;
    } catch {
      if (at === dirname(at)) return Number.POSITIVE_INFINITY;
    }
  }
}

function isSystemError(error: unknown): error is SystemError {
  return (
    error instanceof Error && typeof (error as Partial<SystemError>).code === 'string' && 'errno' in error
  );
}

/**
 * What to tell of a failure.
 *
 * @param places where the command writes, by what the user calls them: `--work-dir` and the like
 * @returns a UsageError that names the place, for a disk that is full or must not be written; else the error itself
 */
export function explainDiskError(error: unknown, places: Readonly<Record<string, string>>): unknown {
  if (!isSystemError(error)) return error;
  const { code, path } = error;
  const names = Object.keys(places).join(' or ');
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const full = Object.values(places).filter((place) => roomAt(place) < NEARLY_FULL);
    const where = full[0] ?? path ?? Object.values(places).join(' or ');
    return new UsageError(`cannot write to ${where}: its disk is full`, {
      exitCode: 1,
      cause: error,
      hint: `make room, or choose another place with ${names}`,
    });
  }
  if ((code === 'EROFS' || code === 'EACCES' || code === 'EPERM') && path !== undefined)
    return new UsageError(`cannot write ${path}`, {
      exitCode: 1,
      cause: error,
      hint: `choose another place with ${names}, or a user who may write there`,
    });
  return error;
}
