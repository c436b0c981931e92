// Has a daemon before us crashed, so that a supervisor will have us take over? Source: nydusd.md 2.2.
import { closeSync, lstatSync } from 'node:fs';
import { mountInfoOf } from '../../serve/fuse/mount-info.ts';
import { connectUnix } from '../../native/unix-socket.ts';

/** True for a socket file to which nobody listens. */
export function isStaleSocket(path: string): boolean {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return false;
  try {
    closeSync(connectUnix(path));
    return false;
  } catch {
    return true;
  }
}

/** The mountpoint is mounted and the API socket is a dead one. Nothing is asked of the mount, which would not answer. */
export function hasCrashed(mountpoint: string, apisock: string | undefined): boolean {
  return apisock !== undefined && mountInfoOf(mountpoint) !== undefined && isStaleSocket(apisock);
}
