// A writable layer over what is mounted: the kernel's own overlayfs, put on top of it. Decision 0004.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { makeDirectories } from '../../base/make-directories.ts';
import { mountInfoOf, type MountInfo } from '../fuse/mount-info.ts';
import { bootId, isAlive, startTimeOf, type ProcessIdentity } from '../guardian/guardian.ts';
import {
  MNT_DETACH,
  mount,
  MS_NOATIME,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  unmount,
} from '../../native/mount.ts';

/** First word of the source of our overlays, before the process that made them. */
const SOURCE = 'nydusd-overlay';

export interface OverlayOptions {
  /** directory that is covered; also where the result appears */
  place: string;
  upperDir: string;
  workDir: string;
  writable: boolean;
}

/** Backslashes, commas and colons mean something in overlay options. */
function escape(path: string): string {
  return path.replace(/[\\,:]/g, '\\$&');
}

/**
 * Put a writable layer over a directory. What the kernel asks of the file system below meanwhile, workers of ours may have to answer;
 * they do so without this thread, as no file is read.
 *
 * @throws UsageError EINVAL the directories cannot be used as layers
 */
export function mountOverlay(options: OverlayOptions): void {
  const { place, upperDir, workDir, writable } = options;
  try {
    for (const dir of [upperDir, workDir]) makeDirectories(dir);
    const layers = `lowerdir=${escape(place)},upperdir=${escape(upperDir)},workdir=${escape(workDir)}`;
    const flags = (writable ? 0 : MS_RDONLY) | MS_NOSUID | MS_NODEV | MS_NOATIME;
    mount(`${SOURCE}:${process.pid}:${startTimeOf(process.pid) ?? ''}`, place, 'overlay', flags, layers);
  } catch (error) {
    throw new UsageError(`cannot put the overlay of ${upperDir} over ${place}: ${messageOf(error)}`, {
      cause: error,
      hint: 'upper_dir and work_dir must be empty or of an earlier run, on one file system that is no overlay itself, and root is needed',
    });
  }
}

/** Take it away, also while files are open on it. */
export function unmountOverlay(place: string): void {
  const info = mountInfoOf(place);
  unmount(place, MNT_DETACH);
  if (info !== undefined) rmSync(claimPath(info), { force: true });
}

/** Whose an overlay is now: its source names who made it, which is not to be changed. */
interface Claim {
  boot: string;
  source: string;
  owner: ProcessIdentity;
  /** record of the guardian that keeps what lies below it */
  keptBy: string;
}

/** The system's directory for what is gone after a boot. */
function claimPath({ major, minor }: MountInfo): string {
  return `/run/nydusd-overlay-${major}:${minor}`;
}

/**
 * Say that the overlay at a place is this process's, whoever made it.
 *
 * @param keptBy path of the record of a guardian; while that one lives the overlay waits for the next daemon
 */
export function claimOverlay(place: string, keptBy: string): void {
  const info = mountInfoOf(place);
  if (info === undefined) return;
  const owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
  const claim: Claim = { boot: bootId(), source: info.source, owner, keptBy };
  const path = claimPath(info);
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(claim)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch {
    // without /run another daemon at this mountpoint may take it for abandoned
  }
}

function claimOn(info: MountInfo): Claim | undefined {
  try {
    const claim = JSON.parse(readFileSync(claimPath(info), 'utf8')) as Claim;
    return claim.boot === bootId() && claim.source === info.source ? claim : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the guardian of a record lives. */
function isKept(record: string): boolean {
  try {
    const { guardian, former } = JSON.parse(readFileSync(record, 'utf8')) as {
      guardian?: ProcessIdentity;
      former?: ProcessIdentity;
    };
    return [guardian, former].some((each) => each !== undefined && isAlive(each));
  } catch {
    return false;
  }
}

/** True when one of ours lies there, put there by this daemon or by one before it. */
export function isOverlay(place: string): boolean {
  return mountInfoOf(place)?.source.split(':')[0] === SOURCE;
}

/** Whether a mount is an overlay of a daemon that is gone. */
export function isOrphanedOverlay(info: MountInfo | undefined): boolean {
  const [name, pid = '', started = ''] = info?.source.split(':') ?? [];
  if (info === undefined || name !== SOURCE) return false;
  if (isAlive({ pid: Number(pid), startTime: started })) return false;
  const owner = claimOn(info)?.owner;
  return owner === undefined || !isAlive(owner);
}

/** The same, and nobody keeps what lies below it for a daemon to come. */
export function isAbandonedOverlay(info: MountInfo | undefined): boolean {
  if (info === undefined || !isOrphanedOverlay(info)) return false;
  const claim = claimOn(info);
  return claim === undefined || !isKept(claim.keptBy);
}
