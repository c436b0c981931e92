// Images that the kernel serves, and their life beyond this process: a guardian holds what must not be closed, a record says where, a successor
// goes on. What both kernel drivers have in common. Source: DESIGN 2.1.
import { closeSync, statSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { forgetByManager, storeWithManager } from '../guardian/fd-store.ts';
import {
  bootId,
  endGuardian,
  isAlive,
  MAX_HELD,
  type GuardianRecord,
  type ProcessIdentity,
} from '../guardian/guardian.ts';
import type { BlobFeed, FeedCounts } from './blob-feed.ts';
import { ErofsMount, type ErofsInstance } from './erofs-mount.ts';
import type { BlobUser } from './fed-blob.ts';
import { detachAll, packInheritance, storedName, type Inheritance } from './left.ts';
import { erofsDeviceAt } from './mounted.ts';
import {
  readRecord,
  removeRecord,
  writeRecord,
  type FeedRecord,
  type KernelDriver,
  type RecordedBlob,
  type RecordedMount,
} from './record.ts';

export interface ErofsServiceOptions {
  /** `recordPath()` */
  record: string;
  logger: Logger;
}

/** A feed that another process can go on with. */
export interface KeptFeed extends BlobFeed {
  /** open files that must outlive this process; `heldCount` of them */
  readonly descriptors: number[];
  /** blobs, in the order of their descriptors where they have some */
  readonly held: RecordedBlob[];
  /** readers need nobody */
  readonly complete: boolean;
  counts(): FeedCounts;
  /** of the blobs of these users, with whatever else uses them */
  countsOf(users: readonly BlobUser[]): FeedCounts;
  /** end: nothing is mounted any more */
  close(): Promise<void>;
  /** end without answering: readers wait for the successor */
  leave(): Promise<void>;
}

/** A mount with its line in the record. */
export interface Served {
  mount: ErofsMount;
  recorded: RecordedMount;
}

function bootstrapIdentity(path: string): string {
  const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
  return `${path} ${dev}:${ino} ${size} ${mtimeNs}`;
}

export abstract class ServiceBase<F extends KeptFeed> {
  readonly driver: KernelDriver;
  protected readonly logger: Logger;
  protected readonly feed: F;
  readonly #record: string;
  readonly #served = new Set<Served>();
  /** what the record lists: mounts that are there, or will be in a moment */
  readonly #planned = new Set<RecordedMount>();
  /** mounts of the process before that nobody has asked for yet */
  #adoptable: readonly RecordedMount[];
  #guardians: readonly ProcessIdentity[];
  /** those before them, until these are there */
  readonly #former: ProcessIdentity[] = [];
  #ending = false;
  /** of the daemon that handed over */
  #formerRecord: string | undefined;
  /** changes of the guardian, one after another */
  #turn: Promise<void> = Promise.resolve();

  protected constructor(
    driver: KernelDriver,
    options: ErofsServiceOptions,
    feed: F,
    before: Inheritance | undefined,
  ) {
    this.driver = driver;
    this.#record = options.record;
    this.logger = options.logger;
    this.feed = feed;
    this.#adoptable = before?.record.mounts ?? [];
    const { from = options.record } = before ?? {};
    // it may have had another guardian since
    this.#guardians =
      (from === options.record ? undefined : readRecord(from))?.guardians ?? before?.record.guardians ?? [];
    this.#former.push(...(before?.record.former ?? []));
    if (from !== options.record) this.#formerRecord = from;
  }

  /** Guardians for these descriptors; in the record when this returns. */
  protected abstract guard(
    fds: readonly number[],
    record: GuardianRecord,
    onDeath: (identity: ProcessIdentity) => void,
  ): Promise<unknown>;

  /** Before an image is mounted anew. @throws Error  it cannot be */
  protected abstract prepare(instance: ErofsInstance): Promise<void>;

  /** Every image of the daemon before that is wanted is there: serve its readers. */
  protected abstract goOn(): void;

  /** Everything is unmounted; `still`: places at which files are open all the same. */
  protected abstract finish(still: readonly Served[], guardians: readonly ProcessIdentity[]): Promise<void>;

  /** All that a successor needs, in one descriptor, which is the caller's. */
  handover(): number {
    return packInheritance(this.inheritance());
  }

  /** The same, as it is: the descriptors stay the feed's. */
  inheritance(): Inheritance {
    const mounts = [...this.#served].map(({ recorded }) => recorded);
    return {
      from: this.#record,
      record: this.#recordOf(this.#guardians, mounts),
      fds: this.feed.descriptors,
    };
  }

  #recordOf(guardians: readonly ProcessIdentity[], mounts: readonly RecordedMount[]): FeedRecord {
    const { driver, feed } = this;
    const former = this.#former.filter((each) => !guardians.includes(each) && isAlive(each));
    return {
      version: 3,
      driver,
      boot: bootId(),
      guardians: [...guardians],
      former,
      blobs: feed.held,
      mounts: [...mounts],
    };
  }

  /** True when nothing that is mounted needs this process. */
  get complete(): boolean {
    return this.feed.complete;
  }

  counts(): FeedCounts {
    return this.feed.counts();
  }

  /** What was asked of the blobs of a mount, by whichever image has them. */
  countsOf(mount: ErofsMount): FeedCounts {
    return this.feed.countsOf(mount.users);
  }

  /** True while a mount of the daemon before waits for its image. */
  awaits(mountpoint: string): boolean {
    return this.#adoptable.some((known) => known.mountpoint === mountpoint);
  }

  /** True when nothing is mounted. */
  get isIdle(): boolean {
    return this.#planned.size === 0 && this.#adoptable.length === 0;
  }

  /**
   * Mount an image, or go on with the mount that a daemon before made of it at this place.
   *
   * @param replace take the place of what this service has mounted there
   * @throws UsageError EINVAL, SystemError: as ErofsMount.mount
   */
  async mount(instance: ErofsInstance, mountpoint: string, replace = false): Promise<ErofsMount> {
    const bootstrap = bootstrapIdentity(instance.share.bootstrapPath);
    const before = this.#adoptable.find((known) => known.mountpoint === mountpoint);
    // a record that had it twice would have the next daemon take it away
    this.#adoptable = this.#adoptable.filter((known) => known !== before);
    const usable = before?.bootstrap === bootstrap && before.device === erofsDeviceAt(mountpoint);
    const { device = '', superblock } = before ?? {};
    const recorded: RecordedMount = { mountpoint, device, bootstrap, superblock };
    const { feed, logger } = this;
    // without a guardian the end of this process would turn holes into zeros
    const beforeAttach = (attached: string, name: string | undefined): Promise<void> => {
      recorded.device = attached;
      recorded.superblock = name;
      this.#planned.add(recorded);
      return this.#renew(true);
    };
    const options = { instance, mountpoint, feed, logger, replace, beforeAttach };
    let mount: ErofsMount;
    try {
      if (usable) {
        mount = ErofsMount.adopt(options);
        this.#planned.add(recorded);
        await this.#renew(true);
        logger.info(`going on with the mount at ${mountpoint} that a daemon before left`);
      } else {
        if (before !== undefined) detachAll([before], logger);
        await this.prepare(instance);
        mount = await ErofsMount.mount(options);
      }
    } catch (error) {
      this.#planned.delete(recorded);
      throw error;
    }
    const served = { mount, recorded };
    this.#served.add(served);
    void mount.ended.then(() => {
      this.#served.delete(served);
      this.#planned.delete(recorded);
      if (!this.#ending) void this.#renew();
    });
    return mount;
  }

  /** The images of the daemon before that are wanted are there; its other mounts go, its waiting readers are served. */
  settle(): void {
    detachAll(this.#adoptable, this.logger);
    this.#adoptable = [];
    this.goOn();
  }

  /** Let a new guardian hold what is to be held now, then end the old one. */
  #renew(must = false): Promise<void> {
    const turn = this.#turn.then(() => this.#renewOnce());
    this.#turn = turn.catch((error: unknown) => {
      if (!must)
        this.logger.error(`no guardian: ${messageOf(error)}; if this daemon dies now, data may be missing`);
    });
    return must ? turn : this.#turn;
  }

  async #renewOnce(): Promise<void> {
    this.#former.push(...this.#guardians);
    const { descriptors } = this.feed;
    if (descriptors.length > MAX_HELD)
      throw new Error(`${descriptors.length} open files, a guardian holds ${MAX_HELD}`);
    const mounts = [...this.#planned, ...this.#adoptable];
    if (mounts.length === 0) {
      this.#guardians = [];
      removeRecord(this.#record);
      forgetByManager(storedName(this.driver));
    } else {
      const write = (guardians: ProcessIdentity[]): void => {
        this.#guardians = guardians;
        writeRecord(this.#record, this.#recordOf(guardians, mounts));
      };
      const onDeath = (dead: ProcessIdentity): void => this.#onGuardianDeath(dead);
      await this.guard(descriptors, { path: this.#record, write }, onDeath);
      this.#store({ from: this.#record, record: this.#recordOf(this.#guardians, mounts), fds: descriptors });
    }
    if (this.#formerRecord !== undefined) removeRecord(this.#formerRecord);
    this.#formerRecord = undefined;
    for (const guardian of this.#former.splice(0)) endGuardian(guardian);
  }

  /** A service manager is one more guardian. */
  #store(all: Inheritance): void {
    if (process.env['NOTIFY_SOCKET'] === undefined) return;
    const parcel = packInheritance(all);
    storeWithManager(storedName(this.driver), parcel);
    closeSync(parcel);
  }

  #onGuardianDeath(dead: ProcessIdentity): void {
    if (this.#ending || !this.#guardians.some(({ pid }) => pid === dead.pid)) return;
    this.logger.warn(`the guardian, process ${dead.pid}, has died: starting another one`);
    void this.#renew();
  }

  /**
   * Unmount everything.
   *
   * @param busyMs how long to wait for open files
   */
  async unmountAll(busyMs?: number): Promise<void> {
    this.#ending = true;
    const all = [...this.#served];
    const gone = await Promise.all(all.map(({ mount }) => mount.unmount(busyMs)));
    await this.#turn;
    const still = all.filter((_, at) => gone[at] !== true);
    await this.finish(still, [...this.#guardians, ...this.#former]);
  }

  /** Nobody is to find anything any more. */
  protected forget(): void {
    removeRecord(this.#record);
    forgetByManager(storedName(this.driver));
  }

  /** End, and leave the mounts to the next daemon; readers of what is not local wait for it. */
  async leave(): Promise<void> {
    this.#ending = true;
    await this.#turn;
    const { complete } = this.feed;
    for (const { mount } of this.#served) mount.leave();
    await this.feed.leave();
    // complete mounts need nobody: the record stays, so that the next daemon knows whose they are
    if (complete) for (const guardian of [...this.#guardians, ...this.#former]) endGuardian(guardian);
  }
}
