// Images that the kernel serves, and their life beyond this process: a guardian holds what must not be closed, a record says
// where, a successor goes on. Source: DESIGN 2.1.
import { closeSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { lockForProcess } from '../../native/descriptor.ts';
import { MNT_DETACH, unmount } from '../../native/mount.ts';
import { forgetDataFile, knowDataFile } from '../../storage/cache/known-files.ts';
import {
  bootId,
  endGuardian,
  isAlive,
  MAX_HELD,
  startGuardians,
  takeFromGuardian,
  type ProcessIdentity,
} from '../guardian/guardian.ts';
import { forgetByManager, storeWithManager, takeFromManager } from '../guardian/fd-store.ts';
import { openParcel, packParcel } from '../guardian/parcel.ts';
import { checkMountable, ErofsMount, type ErofsInstance } from './erofs-mount.ts';
import type { FeedCounts } from './blob-feed.ts';
import { Feed } from './feed.ts';
import { mountInfoOf } from '../fuse/mount-info.ts';
import { isAbandonedOverlay, unmountOverlay } from '../overlay/kernel-overlay.ts';
import { probePreContent } from './probe.ts';
import { erofsDeviceAt } from './mounted.ts';
import {
  checkRecord,
  HELD_FIRST,
  readRecord,
  removeRecord,
  writeRecord,
  type FeedRecord,
  type RecordedMount,
} from './record.ts';

/** Name by which a service manager keeps what guardians hold. */
const STORED = 'nydusd-erofs';
/** How long a daemon that hands over may take to let go. */
const RELEASE_MS = 15_000;
const RELEASE_STEP_MS = 5;

export interface ErofsServiceOptions {
  /** `recordPath()` */
  record: string;
  logger: Logger;
}

/** What another daemon has handed over and this one does not serve yet. */
export interface Inheritance {
  /** where its record is */
  from: string;
  record: FeedRecord;
  group: number;
  journal: number;
  /** data files by path */
  files: ReadonlyMap<string, number>;
}

interface Served {
  mount: ErofsMount;
  recorded: RecordedMount;
}

function bootstrapIdentity(path: string): string {
  const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
  return `${path} ${dev}:${ino} ${size} ${mtimeNs}`;
}

export class ErofsService {
  readonly #record: string;
  readonly #logger: Logger;
  readonly #feed: Feed;
  readonly #served = new Set<Served>();
  /** what the record lists: mounts that are there, or will be in a moment */
  readonly #planned = new Set<RecordedMount>();
  /** mounts of the process before that nobody has asked for yet */
  #adoptable: RecordedMount[];
  /** data files that came from it, by path, until the images have opened them */
  readonly #files: ReadonlyMap<string, number>;
  readonly #probed = new Set<number>();
  #guardians: readonly ProcessIdentity[] = [];
  /** those before them, until these are there */
  readonly #former: ProcessIdentity[] = [];
  #ending = false;
  /** of the daemon that handed over */
  #formerRecord: string | undefined;
  /** changes of the guardian, one after another */
  #turn: Promise<void> = Promise.resolve();
  #onComplete: () => void = () => {};

  private constructor(
    options: ErofsServiceOptions,
    feed: Feed,
    before?: { record: FeedRecord; files: ReadonlyMap<string, number> },
  ) {
    this.#record = options.record;
    this.#logger = options.logger;
    this.#feed = feed;
    this.#adoptable = before?.record.mounts ?? [];
    this.#files = before?.files ?? new Map();
    this.#guardians = before?.record.guardians ?? [];
    for (const [path, fd] of this.#files) knowDataFile(path, fd);
    feed.onComplete = () => this.#onComplete();
  }

  /**
   * Look what a daemon before left under this record, and go on with it: open images afterwards, not before, since they must
   * use its open data files.
   *
   * @throws SystemError  the kernel has no pre-content events, or we may not have them
   * @throws UsageError EINVAL  the other daemon lives
   */
  static open(options: ErofsServiceOptions): ErofsService {
    const found = readRecord(options.record);
    const left = takeLeft(found, options);
    if (left === undefined) {
      if (found !== undefined) {
        detachAll(found.mounts, options.logger);
        removeRecord(options.record);
      }
      return new ErofsService(options, Feed.open(options.logger));
    }
    const { record, taken } = left;
    const [group = -1, journal = -1, ...data] = taken;
    try {
      const ids = new Map(record.blobs.map(({ path, id }) => [path, id]));
      const feed = Feed.adopt(options.logger, group, journal, ids);
      const files = new Map(record.blobs.map(({ path }, at) => [path, data[at] ?? -1]));
      return new ErofsService(options, feed, { record, files });
    } catch (error) {
      for (const fd of taken) closeSync(fd);
      throw error;
    }
  }

  /**
   * Look at what another daemon hands over, which may still serve it: open the images afterwards, then `resume`.
   *
   * @param parcel stays the caller's
   * @throws UsageError EINVAL  it is not one of ours
   */
  static inherit(parcel: number): Inheritance {
    const { text, fds } = openParcel(parcel);
    try {
      const { from, record } = JSON.parse(text) as { from: string; record: unknown };
      const checked = checkRecord(record);
      if (checked === undefined || fds.length !== HELD_FIRST + checked.blobs.length)
        throw new UsageError('what was handed over is not of this boot, or of another version of nydusd', {
          exitCode: 1,
        });
      const [group = -1, journal = -1, ...data] = fds;
      const files = new Map(checked.blobs.map(({ path }, at) => [path, data[at] ?? -1]));
      for (const [path, fd] of files) knowDataFile(path, fd);
      return { from, record: checked, group, journal, files };
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  }

  /** Give up what was inherited. */
  static renounce({ group, journal, files }: Inheritance): void {
    for (const [path, fd] of files) {
      forgetDataFile(path);
      closeSync(fd);
    }
    closeSync(group);
    closeSync(journal);
  }

  /**
   * Go on with what was inherited, once the daemon before has ended.
   *
   * @throws UsageError EINVAL  it does not end
   */
  static async resume(options: ErofsServiceOptions, inherited: Inheritance): Promise<ErofsService> {
    const { from, group, journal, files } = inherited;
    const deadline = performance.now() + RELEASE_MS;
    while (!lockForProcess(journal) && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, RELEASE_STEP_MS));
    for (const { mountpoint } of inherited.record.mounts)
      while (hasOverlay(mountpoint) && !takeAwayOverlays(mountpoint) && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, RELEASE_STEP_MS));
    const ids = new Map(inherited.record.blobs.map(({ path, id }) => [path, id]));
    const feed = Feed.adopt(options.logger, group, journal, ids);
    // it may have had another guardian since
    const record = { ...inherited.record, guardians: (readRecord(from) ?? inherited.record).guardians };
    const service = new ErofsService(options, feed, { record, files });
    if (from !== options.record) service.#formerRecord = from;
    return service;
  }

  /** All that a successor needs, in one descriptor, which is the caller's. */
  handover(): number {
    const { descriptors, held } = this.#feed;
    const mounts = [...this.#served].map(({ recorded }) => recorded);
    const guardians = [...this.#guardians];
    const record: FeedRecord = { version: 2, boot: bootId(), guardians, blobs: held, mounts };
    return packParcel(JSON.stringify({ from: this.#record, record }), descriptors);
  }

  /** The same for what is inherited and not served yet. */
  static passOn({ from, record, group, journal, files }: Inheritance): number {
    return packParcel(JSON.stringify({ from, record }), [group, journal, ...files.values()]);
  }

  /** Called when nothing that is mounted needs this process any more. */
  set onComplete(call: () => void) {
    this.#onComplete = call;
  }

  /** True when nothing that is mounted needs this process. */
  get complete(): boolean {
    return this.#feed.complete;
  }

  counts(): FeedCounts {
    return this.#feed.counts();
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
    const recorded: RecordedMount = { mountpoint, device: before?.device ?? '', bootstrap };
    const options = {
      instance,
      mountpoint,
      feed: this.#feed,
      logger: this.#logger,
      replace,
      // without a guardian the end of this process would turn holes into zeros
      beforeAttach: (device: string) => {
        recorded.device = device;
        this.#planned.add(recorded);
        return this.#renew(true);
      },
    };
    let mount: ErofsMount;
    try {
      if (usable) {
        mount = ErofsMount.adopt(options);
        this.#planned.add(recorded);
        await this.#renew(true);
        this.#logger.info(`going on with the mount at ${mountpoint} that a daemon before left`);
      } else {
        if (before !== undefined) detachAll([before], this.#logger);
        await this.#probe(instance);
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

  /** Once per file system: see that the kernel really asks, before anything depends on it. */
  async #probe(instance: ErofsInstance): Promise<void> {
    for (const { cache } of checkMountable(instance)) {
      const dir = dirname(cache.data?.path ?? '/');
      const { dev } = statSync(dir);
      if (cache.map.readyCount === cache.map.count || this.#probed.has(dev)) continue;
      await probePreContent(dir);
      this.#probed.add(dev);
    }
  }

  /** The images of the daemon before that are wanted are there; its other mounts go, its waiting readers are served. */
  settle(): void {
    detachAll(this.#adoptable, this.#logger);
    this.#adoptable = [];
    for (const [path, fd] of this.#files) {
      if (!this.#feed.held.some((blob) => blob.path === path)) forgetDataFile(path);
      closeSync(fd);
    }
    this.#feed.serveLeft();
  }

  /** Let a new guardian hold what is to be held now, then end the old one. */
  #renew(must = false): Promise<void> {
    const turn = this.#turn.then(() => this.#renewOnce());
    this.#turn = turn.catch((error: unknown) => {
      if (!must)
        this.#logger.error(`no guardian: ${messageOf(error)}; if this daemon dies now, data may be missing`);
    });
    return must ? turn : this.#turn;
  }

  async #renewOnce(): Promise<void> {
    this.#former.push(...this.#guardians);
    const { held } = this.#feed;
    if (HELD_FIRST + held.length > MAX_HELD)
      throw new Error(`${held.length} blobs, a guardian holds ${MAX_HELD}`);
    const mounts = [...this.#planned, ...this.#adoptable];
    if (mounts.length === 0) {
      this.#guardians = [];
      removeRecord(this.#record);
      forgetByManager(STORED);
    } else {
      const { descriptors } = this.#feed;
      const recordOf = (guardians: ProcessIdentity[]): FeedRecord => {
        return { version: 2, boot: bootId(), guardians, former: this.#former, blobs: held, mounts };
      };
      const write = (guardians: ProcessIdentity[]): void => {
        this.#guardians = guardians;
        writeRecord(this.#record, recordOf(guardians));
      };
      const onDeath = (dead: ProcessIdentity): void => this.#onGuardianDeath(dead);
      await startGuardians(descriptors, { path: this.#record, write }, onDeath);
      this.#store(recordOf([...this.#guardians]), descriptors);
    }
    if (this.#formerRecord !== undefined) removeRecord(this.#formerRecord);
    this.#formerRecord = undefined;
    for (const guardian of this.#former.splice(0)) endGuardian(guardian);
  }

  /** A service manager is one more guardian. */
  #store(record: FeedRecord, descriptors: readonly number[]): void {
    if (process.env['NOTIFY_SOCKET'] === undefined) return;
    const parcel = packParcel(JSON.stringify({ from: this.#record, record }), descriptors);
    storeWithManager(STORED, parcel);
    closeSync(parcel);
  }

  #onGuardianDeath(dead: ProcessIdentity): void {
    if (this.#ending || !this.#guardians.some(({ pid }) => pid === dead.pid)) return;
    this.#logger.warn(`the guardian, process ${dead.pid}, has died: starting another one`);
    void this.#renew();
  }

  /**
   * Unmount everything. Files that stay open keep a guardian: their readers wait, rather than see zeros.
   *
   * @param busyMs how long to wait for open files
   */
  async unmountAll(busyMs?: number): Promise<void> {
    this.#ending = true;
    const all = [...this.#served];
    const gone = await Promise.all(all.map(({ mount }) => mount.unmount(busyMs)));
    await this.#turn;
    removeRecord(this.#record);
    const guardians = [...this.#guardians, ...this.#former];
    if (gone.every(Boolean) || this.#feed.complete) {
      forgetByManager(STORED);
      await this.#feed.close();
      for (const guardian of guardians) endGuardian(guardian);
      return;
    }
    const where = all.filter((_, at) => gone[at] !== true).map(({ recorded }) => recorded.mountpoint);
    this.#logger.warn(
      `files under ${where.join(', ')} are still open and their blobs are not complete: who reads them waits until it is killed; ` +
        `process ${guardians.map(({ pid }) => pid).join(', ')} keeps them from seeing zeros; it ends with the next nydusd that has this socket`,
    );
    for (const { mount } of all) mount.leave();
    await this.#feed.leave();
  }

  /** End, and leave the mounts to the next daemon; readers of what is not local wait for it. */
  async leave(): Promise<void> {
    this.#ending = true;
    await this.#turn;
    const { complete } = this.#feed;
    for (const { mount } of this.#served) mount.leave();
    await this.#feed.leave();
    // complete mounts need nobody: the record stays, so that the next daemon knows whose they are
    if (complete) for (const guardian of [...this.#guardians, ...this.#former]) endGuardian(guardian);
  }
}

function hasOverlay(mountpoint: string): boolean {
  return mountInfoOf(mountpoint)?.type === 'overlay';
}

/** Uncover a mount: a writable layer of a daemon that ended is put on again. False when nothing was taken away. */
function takeAwayOverlays(mountpoint: string): boolean {
  let any = false;
  for (; isAbandonedOverlay(mountInfoOf(mountpoint)?.source ?? ''); any = true) unmountOverlay(mountpoint);
  return any;
}

/** What a daemon before left. */
interface Left {
  record: FeedRecord;
  /** the group, the journal, the data files */
  taken: number[];
}

/**
 * What the guardians of a record hold, or the service manager; undefined when nobody holds anything.
 *
 * @throws UsageError EINVAL  somebody holds it, and we may not have it
 */
function takeLeft(record: FeedRecord | undefined, options: ErofsServiceOptions): Left | undefined {
  const { logger } = options;
  if (record === undefined) return undefined;
  for (const { mountpoint } of record.mounts) takeAwayOverlays(mountpoint);
  const count = HELD_FIRST + record.blobs.length;
  let [taken, problem]: [number[] | undefined, unknown] = [undefined, undefined];
  const { guardians, former = [] } = record;
  for (const guardian of [...guardians, ...former]) {
    try {
      taken ??= takeFromGuardian(guardian, count);
    } catch (error) {
      problem ??= error;
    }
  }
  // that daemon was killed while it changed guardians
  if (taken !== undefined && guardians.some(isAlive)) former.forEach(endGuardian);
  const left = taken === undefined ? takeStored(options.record) : { record, taken };
  if (left !== undefined) {
    const what = `${left.record.mounts.length} mounts, ${left.record.blobs.length} blobs`;
    const holder = taken === undefined ? ', from the service manager' : '';
    logger.info(`taking over from a daemon that ended${holder}: ${what}`);
    return left;
  }
  if (problem === undefined) return undefined;
  const pids = record.guardians.map(({ pid }) => pid).join(', ');
  throw new UsageError(`what process ${pids} keeps for this daemon cannot be had: ${messageOf(problem)}`, {
    cause: problem,
    exitCode: 1,
    hint: 'grant CAP_SYS_PTRACE, or use a --supervisor or FileDescriptorStoreMax= of systemd; readers wait meanwhile',
  });
}

/** What the service manager has kept for the daemon of a record. */
function takeStored(path: string): Left | undefined {
  const parcel = takeFromManager(STORED);
  if (parcel === undefined) return undefined;
  try {
    const { text, fds: taken } = openParcel(parcel);
    const { from, record } = JSON.parse(text) as { from: string; record: unknown };
    const checked = checkRecord(record);
    if (from === path && checked !== undefined && taken.length === HELD_FIRST + checked.blobs.length)
      return { record: checked, taken };
    for (const fd of taken) closeSync(fd);
    return undefined;
  } finally {
    closeSync(parcel);
  }
}

/** Take away mounts that a daemon before left and that nobody feeds any more. */
export function detachAll(mounts: readonly RecordedMount[], logger: Logger): void {
  for (const { mountpoint, device } of mounts) {
    if (erofsDeviceAt(mountpoint) !== device) continue;
    try {
      unmount(mountpoint, MNT_DETACH);
      logger.warn(
        `took away the mount at ${mountpoint}, left by a daemon that ended, and that no guardian keeps`,
      );
    } catch (error) {
      logger.error(`cannot take away the mount at ${mountpoint}: ${messageOf(error)}`);
    }
  }
}
