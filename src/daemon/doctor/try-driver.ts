// A driver tried for real: a tiny image opened, mounted, read through the kernel, unmounted. Source: DESIGN 2.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLogger } from '../../base/log.ts';
import { RafsInstance } from '../../rafs/instance.ts';
import { ErofsMount } from '../../serve/erofs/erofs-mount.ts';
import { Feed } from '../../serve/erofs/feed.ts';
import { FlatFeed } from '../../serve/erofs/flat-feed.ts';
import { probePreContent } from '../../serve/erofs/probe.ts';
import { PROBE_FILE, probeImage } from '../../serve/erofs/probe-image.ts';
import { FuseSession } from '../../serve/fuse/session.ts';
import { parseConfig } from '../../storage/config-parse.ts';

export type TriedDriver = 'fuse' | 'fileio' | 'fanotify';

const ATTACH = {
  enableXattr: false,
  mountedAtSec: 1,
  accounting: { files: false, pattern: false, latest: false },
};

/** Mount by a driver. @returns takes the mount away again */
async function mountBy(
  driver: TriedDriver,
  instance: RafsInstance,
  mountpoint: string,
): Promise<() => Promise<void>> {
  const logger = silentLogger;
  if (driver === 'fuse') {
    const session = await FuseSession.mount({ mountpoint, threads: 1, serveOpen: false, hold: true, logger });
    try {
      await session.attach('/', { kind: 'rafs', instance }, ATTACH);
    } catch (error) {
      await session.unmount();
      throw error;
    }
    return () => session.unmount();
  }
  const feed = driver === 'fanotify' ? Feed.open(logger) : new FlatFeed(logger);
  try {
    const mount = await ErofsMount.mount({ instance, mountpoint, feed, logger });
    return async () => {
      await mount.unmount();
      await feed.close();
    };
  } catch (error) {
    await feed.close();
    throw error;
  }
}

/**
 * Try a driver with its cache in a directory.
 *
 * @throws Error  why it does not work; with a hint where there is one
 */
export async function tryDriver(driver: TriedDriver, dir: string): Promise<void> {
  if (driver === 'fanotify') await probePreContent(dir);
  const work = mkdtempSync(join(dir, '.nydusd-doctor-'));
  try {
    const image = probeImage(Date.now());
    const [blobs, mountpoint] = [join(work, 'blobs'), join(work, 'mnt')];
    for (const folder of [blobs, mountpoint]) mkdirSync(folder);
    writeFileSync(join(work, 'bootstrap'), image.bootstrap);
    writeFileSync(join(blobs, image.blobId), image.blob);
    const text = JSON.stringify({
      version: 2,
      backend: { type: 'localfs', localfs: { dir: blobs } },
      cache: { type: 'blobcache', filecache: { work_dir: join(work, 'cache') } },
      rafs: { mode: 'direct' },
    });
    const instance = await RafsInstance.open({
      bootstrap: join(work, 'bootstrap'),
      config: parseConfig(text).config,
      id: 'doctor',
      logger: silentLogger,
      decodeThreads: 0,
    });
    try {
      const unmount = await mountBy(driver, instance, mountpoint);
      try {
        const seen = await readFile(join(mountpoint, PROBE_FILE));
        if (!seen.equals(image.content)) throw new Error('what is read is not what was written');
      } finally {
        await unmount();
      }
    } finally {
      await instance.close();
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
