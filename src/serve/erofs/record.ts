// What a successor must know to go on: which guardian holds what, which mounts there are. A small file beside the API socket,
// replaced as a whole, that survives a crash.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { bootId, type ProcessIdentity } from '../guardian/guardian.ts';
import type { KernelDriver } from './record-path.ts';

export { recordPath, type KernelDriver } from './record-path.ts';

/** A blob in the order in which the guardian holds its data file. */
export interface RecordedBlob {
  id: number;
  path: string;
}

/** A mount. */
export interface RecordedMount {
  mountpoint: string;
  /** `major:minor` of the superblock */
  device: string;
  /** identity of the bootstrap file: a changed one is another image */
  bootstrap: string;
  /** name of the superblock below /sys/fs/erofs, which is never used twice; undefined where it is not known */
  superblock?: string | undefined;
}

/**
 * With fanotify each guardian holds the group, the journal, then the data files; with fileio the connection, a file that the daemon at
 * work has locked, and the mount with the flat files.
 */
export interface FeedRecord {
  version: 3;
  driver: KernelDriver;
  boot: string;
  guardians: ProcessIdentity[];
  /** those before them, which may not have been ended yet */
  former?: readonly ProcessIdentity[] | undefined;
  blobs: RecordedBlob[];
  mounts: RecordedMount[];
}

/** How many descriptors a guardian of a record holds. */
export function heldCount({ driver, blobs }: FeedRecord): number {
  return driver === 'fanotify' ? 2 + blobs.length : 3;
}

/** The record of a daemon of this boot; undefined when there is none that can be read. */
export function readRecord(path: string): FeedRecord | undefined {
  try {
    return checkRecord(JSON.parse(readFileSync(path, 'utf8')));
  } catch {
    return undefined;
  }
}

/** A record of this boot, undefined when it is something else. */
export function checkRecord(value: unknown): FeedRecord | undefined {
  const record = value as FeedRecord;
  const whole =
    record.version === 3 &&
    (record.driver === 'fanotify' || record.driver === 'fileio') &&
    record.boot === bootId() &&
    Array.isArray(record.guardians) &&
    record.guardians.every(({ pid }) => Number.isSafeInteger(pid)) &&
    Array.isArray(record.blobs) &&
    Array.isArray(record.mounts);
  return whole ? record : undefined;
}

/** Replace the record: a crash leaves the old or the new one. */
export function writeRecord(path: string, record: FeedRecord): void {
  const draft = `${path}.new`;
  writeFileSync(draft, `${JSON.stringify(record)}\n`, { mode: 0o600 });
  renameSync(draft, path);
}

export function removeRecord(path: string): void {
  rmSync(path, { force: true });
}
