// The limit of open files: raised as upstream does, but a limit that may not be raised is a warning, not the end.
// Source: nydusd.md 2.1.
import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import { MAX_NOFILE } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { RLIMIT_NOFILE, getResourceLimit, setResourceLimit, type ResourceLimit } from '../native/process.ts';

/** Files left to the rest of the machine. */
export const RESERVED_FILES = 16384;
/** Below this `fs.file-max` the machine is too tight for a daemon of ours. */
export const MIN_FILE_MAX = 32768;

/** How the limit is read and set; tests bring their own. */
export interface LimitCalls {
  fileMax(): number;
  get(): ResourceLimit;
  set(limit: ResourceLimit): void;
}

const SYSTEM: LimitCalls = {
  // more than 2^53 on most machines: the number is only compared
  fileMax: () => Number(readFileSync('/proc/sys/fs/file-max', 'utf8')),
  get: () => getResourceLimit(RLIMIT_NOFILE),
  set: (limit) => setResourceLimit(RLIMIT_NOFILE, limit),
};

/** Set the limit of open files to `wanted`, as far as the machine allows; 0 leaves it alone. */
export function raiseFileLimit(wanted: number, logger: Logger, calls: LimitCalls = SYSTEM): void {
  if (wanted === 0) return;
  const fileMax = calls.fileMax();
  if (fileMax < MIN_FILE_MAX) {
    logger.warn(`fs.file-max is ${fileMax}, too low (at least ${MIN_FILE_MAX}): raise it with sysctl`);
    return;
  }
  const now = calls.get();
  const ceiling = Math.max(Math.min(fileMax - RESERVED_FILES, MAX_NOFILE), now.soft);
  const target = Math.min(wanted, ceiling);
  try {
    calls.set({ soft: target, hard: target });
    logger.info(`Set rlimit-nofile to ${target}, maximum ${ceiling}`);
  } catch (error) {
    logger.warn(
      `cannot raise the limit of open files from ${now.hard} to ${target} (${messageOf(error)}), going on with ` +
        `${now.hard}: grant CAP_SYS_RESOURCE, raise the service's LimitNOFILE, or pass --rlimit-nofile 0`,
    );
    if (now.soft < Math.min(target, now.hard))
      calls.set({ soft: Math.min(target, now.hard), hard: now.hard });
  }
}
