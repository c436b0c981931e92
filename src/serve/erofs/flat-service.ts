// Images that the kernel serves from flat files of ours. No guardian: without this process readers get EIO, and the next daemon
// takes the mount away first.
import type { Logger } from '../../base/log.ts';
import { bootId, endGuardian } from '../guardian/guardian.ts';
import type { FeedCounts } from './blob-feed.ts';
import { ErofsMount, whenGone, type ErofsInstance } from './erofs-mount.ts';
import { FlatFeed } from './flat-feed.ts';
import { erofsDeviceAt } from './mounted.ts';
import { readRecord, removeRecord, writeRecord, type RecordedMount } from './record.ts';
import { detachAll, type ErofsServiceOptions } from './service.ts';

/**
 * Take away what a daemon before left under a record, whatever its driver was. Its guardians end once no file of it is open: their readers
 * would see zeros.
 */
export function discardRecord(record: string, logger: Logger): void {
  const before = readRecord(record);
  if (before === undefined) return;
  const { mounts, guardians } = before;
  const gone = mounts
    .filter(({ mountpoint, device }) => guardians.length > 0 && erofsDeviceAt(mountpoint) === device)
    .map(({ mountpoint }) => whenGone(mountpoint));
  detachAll(mounts, logger);
  removeRecord(record);
  void Promise.all(gone).then(() => guardians.forEach(endGuardian));
}

export class FlatService {
  readonly complete = false;
  readonly #record: string;
  readonly #logger: Logger;
  readonly #feed: FlatFeed;
  readonly #mounts = new Map<ErofsMount, RecordedMount>();

  /** @throws Error, SystemError  FUSE cannot be had */
  constructor({ record, logger }: ErofsServiceOptions) {
    this.#record = record;
    this.#logger = logger;
    discardRecord(record, logger);
    this.#feed = new FlatFeed(logger);
  }

  counts(): FeedCounts {
    return this.#feed.counts();
  }

  /** As ErofsService.mount. */
  async mount(instance: ErofsInstance, mountpoint: string, replace = false): Promise<ErofsMount> {
    const recorded: RecordedMount = { mountpoint, device: '', bootstrap: '' };
    const mount = await ErofsMount.mount({
      instance,
      mountpoint,
      feed: this.#feed,
      logger: this.#logger,
      replace,
      beforeAttach: async (device) => {
        recorded.device = device;
        this.#write([...this.#mounts.values(), recorded]);
      },
    });
    this.#mounts.set(mount, recorded);
    void mount.ended.then(() => {
      this.#mounts.delete(mount);
      this.#write([...this.#mounts.values()]);
    });
    return mount;
  }

  #write(mounts: RecordedMount[]): void {
    if (mounts.length === 0) removeRecord(this.#record);
    else writeRecord(this.#record, { version: 2, boot: bootId(), guardians: [], blobs: [], mounts });
  }

  settle(): void {}

  async unmountAll(busyMs?: number): Promise<void> {
    await Promise.all([...this.#mounts.keys()].map((mount) => mount.unmount(busyMs)));
    removeRecord(this.#record);
    for (const mount of this.#mounts.keys()) mount.leave();
    await this.#feed.close();
  }

  /** End; the mount stays, and what is read of it fails until the next daemon takes it away. */
  async leave(): Promise<void> {
    for (const mount of this.#mounts.keys()) mount.leave();
    await this.#feed.close();
  }
}
