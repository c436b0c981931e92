// Takes away what a daemon that was killed left mounted: a FUSE connection that nobody holds, on which every call fails
// with ENOTCONN, and the writable layer that lay over it. A mount that waits for a successor is alive, since somebody keeps its descriptor. Source: DESIGN 2.1.
import { statfs } from 'node:fs/promises';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { isAbandonedOverlay } from '../overlay/kernel-overlay.ts';
import { unmountDevice } from './device.ts';
import { mountInfoOf } from './mount-info.ts';

/** Dead mounts one upon the other that are taken away in one go. */
const MAX_STACKED = 64;

/** How long a mount may take to show that it is dead: one that waits for a successor answers nothing at all. */
const ANSWER_MS = 1000;

async function isDead(mountpoint: string): Promise<boolean> {
  const info = mountInfoOf(mountpoint);
  if (isAbandonedOverlay(info)) return true;
  if (info?.type !== 'overlay' && info?.type.startsWith('fuse') !== true) return false;
  let timer: NodeJS.Timeout | undefined;
  const silent = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), ANSWER_MS)));
  // attributes may be cached for ever, these numbers never are
  const asked = statfs(mountpoint).then(
    () => false,
    (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOTCONN',
  );
  const dead = await Promise.race([asked, silent]);
  clearTimeout(timer);
  return dead;
}

/**
 * Unmount the dead FUSE mounts at a path. What cannot be unmounted stays, with a warning: a new mount covers it.
 *
 * @param mountpoint absolute, without links
 */
export async function detachDeadMounts(mountpoint: string, logger: Logger): Promise<void> {
  for (let i = 0; i < MAX_STACKED && (await isDead(mountpoint)); i++) {
    try {
      if (!(await unmountDevice(mountpoint))) return;
    } catch (error) {
      logger.warn(`a dead mount stays below ${mountpoint}: ${messageOf(error)}`);
      return;
    }
    logger.info(`took away a dead mount at ${mountpoint}, left by a daemon that was killed`);
  }
}
