// One image mounted by the kernel's own EROFS, with the cache files of its blobs as devices.
// Source: rafs-metadata.md 4.18; DESIGN 2.1.
import {
  closeSync,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  openSync,
  rmSync,
  truncateSync,
  watch,
  type FSWatcher,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { alignUp } from '../../base/bytes.ts';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { majorOf, minorOf } from '../../format/flags.ts';
import { SystemError } from '../../native/libc.ts';
import { createMemfd } from '../../native/memfd.ts';
import { MNT_DETACH, unmount } from '../../native/mount.ts';
import {
  attachMount,
  createMount,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  type MountOption,
} from '../../native/mount-api.ts';
import type { InstanceShare } from '../../storage/cache/blob-share.ts';
import { isKnownDataFile } from '../../storage/cache/known-files.ts';
import { pinBlob, unpinBlob } from '../../storage/cache/pins.ts';
import type { BlobFeed } from './blob-feed.ts';
import type { BlobUser, FeedInstance } from './fed-blob.ts';
import { erofsSuperblocks } from './mounted.ts';

const ATTRIBUTES = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME;
const BLOCK = 4096;
/** longest value the kernel takes for one option */
const MAX_OPTION = 255;
/** How long an unmount waits for open files. */
const BUSY_MS = 5000;

/** What is mounted: RafsInstance. */
export type ErofsInstance = FeedInstance & { readonly share: Pick<InstanceShare, 'bootstrapPath'> };

export interface ErofsMountOptions {
  instance: ErofsInstance;
  /** an existing directory; absolute, links resolved */
  mountpoint: string;
  feed: BlobFeed;
  logger: Logger;
  /** take the place of what is mounted there */
  replace?: boolean;
  /** done before anybody can see the mount, told `major:minor` and the name of its superblock; a failure gives the mount up */
  beforeAttach?: (device: string, superblock: string | undefined) => Promise<void>;
}

/**
 * The blobs of an image as the kernel needs them.
 *
 * @throws UsageError EINVAL  this image cannot be mounted by the kernel with this cache, and why
 */
export function checkMountable(instance: ErofsInstance): BlobUser[] {
  const { image } = instance;
  if (image.super.version !== 6) throw new UsageError(`RAFS v${image.super.version}: EROFS is v6 only`);
  if (image.super.blockSize !== BLOCK) throw new UsageError(`blocks of ${image.super.blockSize} bytes`);
  const users: BlobUser[] = [];
  for (const { index } of image.blobs) {
    const cache = instance.cacheOf(index);
    if (cache === undefined) continue;
    if (cache.mode !== 'plain' || cache.data === undefined) {
      throw new UsageError(`blob ${cache.blobId} has no cache file with plain data`, {
        hint: 'use cache type blobcache, without cache.compressed, on a disk that can be written',
      });
    }
    if (!cache.data.writable && cache.map.readyCount < cache.map.count)
      throw new UsageError(`${cache.data.path} is not complete and cannot be written`);
    users.push({ instance, blobIndex: index, cache });
  }
  return users;
}

/** A mounted image. */
export class ErofsMount {
  readonly mountpoint: string;
  /** resolves when the file system is gone, whoever unmounted it, and no file of it is open any more */
  readonly ended: Promise<void>;
  readonly users: readonly BlobUser[];
  readonly #feed: BlobFeed;
  readonly #logger: Logger;
  readonly #watcher: FSWatcher;
  #gone = false;

  private constructor(options: ErofsMountOptions, users: readonly BlobUser[]) {
    this.mountpoint = options.mountpoint;
    this.users = users;
    this.#feed = options.feed;
    this.#logger = options.logger;
    const end = Promise.withResolvers<void>();
    this.ended = end.promise;
    this.#pin();
    // inotify tells when the superblock goes; a read-only file system has nothing else to tell
    this.#watcher = watch(this.mountpoint, { persistent: true }, (type) => {
      if (type !== 'rename') return;
      this.#watcher.close();
      this.#gone = true;
      for (const user of users) this.#feed.remove(user);
      this.#unpin();
      end.resolve();
    });
    this.#watcher.on('error', () => {});
  }

  /** The garbage collection must not touch what the kernel reads, also after we have ended. */
  #pin(): void {
    for (const { cache } of this.users) {
      try {
        pinBlob(dirname(cache.data?.path ?? ''), cache.blobId, 'kernel');
      } catch (error) {
        this.#logger.warn(
          `cannot pin blob ${cache.blobId}, it is safe while this process runs: ${messageOf(error)}`,
        );
      }
    }
  }

  #unpin(): void {
    for (const { cache } of this.users) {
      const path = cache.data?.path ?? '';
      if (!isKnownDataFile(path)) unpinBlob(dirname(path), cache.blobId, 'kernel');
    }
  }

  /**
   * Mount an image.
   *
   * @throws UsageError EINVAL  this image or cache cannot be mounted this way
   * @throws SystemError        what the kernel says
   */
  static async mount(options: ErofsMountOptions): Promise<ErofsMount> {
    const { instance, feed } = options;
    const users = checkMountable(instance);
    const added: BlobUser[] = [];
    try {
      for (const user of users) {
        added.push(user);
        // the mark comes before the kernel opens the file: it decides then whether it will ever ask
        feed.add(user);
      }
      await feed.ready;
      const before = erofsSuperblocks();
      const mount = mountImage(instance, users, feed);
      // who mounted at the same time hides which is which
      const [superblock, ...more] = erofsSuperblocks().filter((name) => !before.includes(name));
      try {
        const { dev } = fstatSync(mount);
        const name = more.length === 0 ? superblock : undefined;
        await options.beforeAttach?.(`${majorOf(dev)}:${minorOf(dev)}`, name);
        attach(mount, options);
      } finally {
        closeSync(mount);
      }
      return new ErofsMount(options, users);
    } catch (error) {
      for (const user of added) feed.remove(user);
      throw error;
    }
  }

  /** Go on with a mount that is there: another process made it, and its feed is adopted. */
  static adopt(options: ErofsMountOptions): ErofsMount {
    const users = checkMountable(options.instance);
    for (const user of users) options.feed.add(user);
    return new ErofsMount(options, users);
  }

  /** True once nothing of it is left. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Stop watching it: another process will. */
  leave(): void {
    this.#watcher.close();
  }

  /**
   * Unmount. Files that are still open keep their data for a while: what they need is fed until they are closed.
   *
   * @returns false when files are still open after that time
   */
  async unmount(busyMs = BUSY_MS): Promise<boolean> {
    if (this.#gone) return true;
    try {
      unmount(this.mountpoint, MNT_DETACH);
    } catch (error) {
      this.#logger.debug(`unmounting ${this.mountpoint}: ${messageOf(error)}`);
    }
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, busyMs)));
    await Promise.race([this.ended, late]);
    clearTimeout(timer);
    return this.#gone;
  }
}

/** Resolves when the superblock mounted at a place is gone, however it is taken away; call it before that. Does not keep the process alive. */
export function whenGone(mountpoint: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(mountpoint, { persistent: false }, (type) => {
      if (type !== 'rename') return;
      watcher.close();
      resolve();
    });
    watcher.on('error', () => {});
  });
}

function attach(mount: number, { mountpoint, replace }: ErofsMountOptions): void {
  if (replace !== true) return attachMount(mount, mountpoint);
  // below the old one, which is taken away then: nobody sees the directory underneath
  attachMount(mount, mountpoint, true);
  unmount(mountpoint, MNT_DETACH);
}

/** A file for a blob that has no chunks: nothing is ever read of it. */
function emptyDevice(size: number): number {
  const fd = createMemfd('nydusd-empty-blob');
  ftruncateSync(fd, size);
  return fd;
}

function mountImage(instance: ErofsInstance, users: readonly BlobUser[], feed: BlobFeed): number {
  const opened: number[] = [];
  try {
    const devices = instance.image.blobs.map(({ index, uncompressedSize }): MountOption => {
      const user = users.find(({ blobIndex }) => blobIndex === index);
      if (user !== undefined) return ['device', feed.deviceOf(user)];
      const fd = emptyDevice(uncompressedSize);
      opened.push(fd);
      return ['device', `/proc/self/fd/${fd}`];
    });
    return mountBootstrap(instance.share.bootstrapPath, devices, users);
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

function create(source: string, devices: readonly MountOption[]): number {
  return createMount('erofs', [['source', source], ...devices, ['ro']], ATTRIBUTES);
}

/** The kernel reads whole blocks of a file on a file system that it can read by pages; others get a copy, which has no name. */
function mountBootstrap(path: string, devices: readonly MountOption[], users: readonly BlobUser[]): number {
  const fd = openSync(path, 'r');
  const workDir = dirname(users[0]?.cache.data?.path ?? path);
  try {
    const { size } = fstatSync(fd);
    if (size % BLOCK === 0) {
      try {
        return create(path.length <= MAX_OPTION ? path : `/proc/self/fd/${fd}`, devices);
      } catch (error) {
        // a file that cannot be mounted is taken for a block device by its name: tmpfs, overlayfs
        if (!(error instanceof SystemError) || error.code !== 'ENOTBLK') throw error;
      }
    }
    const copy = join(workDir, `.${process.pid}-${Math.floor(performance.now() * 1000)}.image.boot`);
    try {
      copyFileSync(path, copy);
      truncateSync(copy, alignUp(size, BLOCK));
      return create(copy, devices);
    } finally {
      rmSync(copy, { force: true });
    }
  } finally {
    closeSync(fd);
  }
}
