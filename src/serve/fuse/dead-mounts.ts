// Takes away what a daemon that was killed left mounted: a FUSE connection that nobody holds, on which every call fails
// with ENOTCONN, and the writable layer that lay over it. A mount that waits for a successor is alive, since somebody keeps its descriptor. Source: DESIGN 2.1.
import { statSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { isAbandonedOverlay } from '../overlay/kernel-overlay.ts';
import { mountInfoOf, unmountDevice } from './device.ts';

/** Dead mounts one upon the other that are taken away in one go. */
const MAX_STACKED = 64;

function isDead(mountpoint: string): boolean {
  if (isAbandonedOverlay(mountInfoOf(mountpoint)?.source ?? '')) return true;
  try {
    statSync(mountpoint);
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTCONN') return false;
  }
  const type = mountInfoOf(mountpoint)?.type;
  return type === 'overlay' || type?.startsWith('fuse') === true;
}

/**
 * Unmount the dead FUSE mounts at a path. What cannot be unmounted stays, with a warning: a new mount covers it.
 *
 * @param mountpoint absolute, without links
 */
export async function detachDeadMounts(mountpoint: string, logger: Logger): Promise<void> {
  for (let i = 0; i < MAX_STACKED && isDead(mountpoint); i++) {
    try {
      if (!(await unmountDevice(mountpoint))) return;
    } catch (error) {
      logger.warn(`a dead mount stays below ${mountpoint}: ${messageOf(error)}`);
      return;
    }
    logger.info(`took away a dead mount at ${mountpoint}, left by a daemon that was killed`);
  }
}
