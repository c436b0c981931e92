// A writable layer over what is mounted: the kernel's own overlayfs, put on top of it. Decision 0004.
import { messageOf, UsageError } from '../../base/errors.ts';
import { makeDirectories } from '../../base/make-directories.ts';
import { mountInfoOf } from '../fuse/mount-info.ts';
import { isAlive, startTimeOf } from '../guardian/guardian.ts';
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
  unmount(place, MNT_DETACH);
}

/** True when one of ours lies there, put there by this daemon or by one before it. */
export function isOverlay(place: string): boolean {
  return mountInfoOf(place)?.source.split(':')[0] === SOURCE;
}

/** Whether the mount of a source was made by a daemon that is gone. */
export function isAbandonedOverlay(source: string): boolean {
  const [name, pid = '', started = ''] = source.split(':');
  return name === SOURCE && !isAlive({ pid: Number(pid), startTime: started });
}
