// What a daemon before left of images that the kernel serves: found by its record, taken from its guardians, from the service manager, or handed
// over; or taken away where nobody can go on with it. Source: DESIGN 2.1; docs/failover.md.
import { closeSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { lockForProcess } from '../../native/descriptor.ts';
import { MNT_DETACH, unmount } from '../../native/mount.ts';
import { forgetDataFile, knowDataFile } from '../../storage/cache/known-files.ts';
import { mountInfoOf } from '../fuse/mount-info.ts';
import { takeFromManager } from '../guardian/fd-store.ts';
import { endGuardian, isAlive, takeFromGuardian } from '../guardian/guardian.ts';
import { openParcel, packParcel } from '../guardian/parcel.ts';
import { isOrphanedOverlay, unmountOverlay } from '../overlay/kernel-overlay.ts';
import { whenGone } from './erofs-mount.ts';
import { erofsDeviceAt } from './mounted.ts';
import {
  checkRecord,
  heldCount,
  readRecord,
  removeRecord,
  type FeedRecord,
  type KernelDriver,
  type RecordedMount,
} from './record.ts';

/** Which of the descriptors that are held is locked by the process that serves. */
export const LOCK_AT = 1;
/** How long a daemon that hands over may take to let go. */
const RELEASE_MS = 15_000;
const RELEASE_STEP_MS = 5;

/** What another daemon has left or handed over. */
export interface Inheritance {
  /** where its record is */
  from: string;
  record: FeedRecord;
  /** the open files, in the order in which guardians hold them */
  fds: readonly number[];
}

/** Name by which a service manager keeps what guardians hold. */
export function storedName(driver: KernelDriver): string {
  return driver === 'fanotify' ? 'nydusd-erofs' : 'nydusd-fileio';
}

/** Data files that came with it, by path; flat files need none. */
export function dataFilesOf({ record, fds }: Inheritance): Map<string, number> {
  if (record.driver !== 'fanotify') return new Map();
  const first = fds.length - record.blobs.length;
  return new Map(record.blobs.map(({ path }, at) => [path, fds[first + at] ?? -1]));
}

/** All that a successor needs, in one descriptor, which is the caller's. */
export function packInheritance({ from, record, fds }: Inheritance): number {
  return packParcel(textOf([{ from, record }]), fds);
}

/** The same of several services, and the connection of the FUSE mount that they are mounted in. */
export function packConnection(connection: number, inherited: readonly Inheritance[]): number {
  const parts = inherited.map(({ from, record }) => ({ from, record }));
  return packParcel(JSON.stringify({ fuse: parts }), [connection, ...inherited.flatMap(({ fds }) => fds)]);
}

/**
 * Look at what `packConnection` has packed.
 *
 * @param parcel stays the caller's
 * @returns undefined when it is a parcel of another kind
 * @throws UsageError EINVAL  it is not one of ours
 */
export function openConnection(parcel: number): { connection: number; inherited: Inheritance[] } | undefined {
  const { text, fds } = openParcel(parcel);
  let opened: { connection: number; inherited: Inheritance[] } | undefined;
  try {
    const { fuse } = JSON.parse(text) as { fuse?: unknown };
    const [connection = -1, ...rest] = fds;
    if (fuse !== undefined) opened = { connection, inherited: split(fuse, rest) };
    return opened;
  } finally {
    if (opened === undefined) for (const fd of fds) closeSync(fd);
  }
}

/** The note of a parcel. */
function textOf(parts: readonly Pick<Inheritance, 'from' | 'record'>[]): string {
  return JSON.stringify(parts);
}

/**
 * Look at what another daemon hands over, which may still serve it: open the images afterwards.
 *
 * @param parcel stays the caller's
 * @throws UsageError EINVAL  it is not one of ours
 */
export function openInheritance(parcel: number): Inheritance {
  const { text, fds } = openParcel(parcel);
  try {
    const [inherited, ...more] = split(JSON.parse(text), fds);
    if (inherited === undefined || more.length > 0) throw notOurs();
    return inherited;
  } catch (error) {
    for (const fd of fds) closeSync(fd);
    throw error;
  }
}

function split(value: unknown, fds: readonly number[]): Inheritance[] {
  if (!Array.isArray(value)) throw notOurs();
  const parts = value as { from: unknown; record: unknown }[];
  let at = 0;
  const found = parts.map(({ from, record }): Inheritance => {
    const checked = checkRecord(record);
    if (checked === undefined || typeof from !== 'string') throw notOurs();
    return { from, record: checked, fds: fds.slice(at, (at += heldCount(checked))) };
  });
  if (at !== fds.length) throw notOurs();
  return found;
}

function notOurs(): UsageError {
  return new UsageError('what was handed over is not of this boot, or of another version of nydusd', {
    exitCode: 1,
  });
}

/** Have images use these data files. */
export function knowFiles(inherited: Inheritance): void {
  for (const [path, fd] of dataFilesOf(inherited)) knowDataFile(path, fd);
}

/** Give up what was inherited. */
export function renounce(inherited: Inheritance): void {
  for (const path of dataFilesOf(inherited).keys()) forgetDataFile(path);
  for (const fd of inherited.fds) closeSync(fd);
}

/** Wait until the daemon before has let go; writable layers that it leaves are taken away. */
export async function awaitRelease({ record, fds }: Inheritance): Promise<void> {
  const deadline = performance.now() + RELEASE_MS;
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, RELEASE_STEP_MS));
  while (!lockForProcess(fds[LOCK_AT] ?? -1) && performance.now() < deadline) await pause();
  for (const { mountpoint } of record.mounts)
    while (hasOverlay(mountpoint) && !takeAwayOverlays(mountpoint) && performance.now() < deadline)
      await pause();
}

function hasOverlay(mountpoint: string): boolean {
  return mountInfoOf(mountpoint)?.type === 'overlay';
}

/** Uncover a mount: a writable layer of a daemon that ended is put on again. False when nothing was taken away. */
function takeAwayOverlays(mountpoint: string): boolean {
  let any = false;
  for (; isOrphanedOverlay(mountInfoOf(mountpoint)); any = true) unmountOverlay(mountpoint);
  return any;
}

/**
 * What the guardians of a record hold, or the service manager; undefined when nobody holds anything: what the record lists is taken away then.
 *
 * @throws UsageError EINVAL  somebody holds it, and we may not have it
 */
export function takeLeft(path: string, driver: KernelDriver, logger: Logger): Inheritance | undefined {
  const record = readRecord(path);
  if (record?.driver !== driver) return undefined;
  for (const { mountpoint } of record.mounts) takeAwayOverlays(mountpoint);
  const left = findLeft(path, driver, logger);
  if (left === undefined) {
    detachAll(record.mounts, logger);
    removeRecord(path);
  }
  return left;
}

/** The same for mounts that cannot be reached yet, since the way to them is not served: nothing is taken away. */
export function findLeft(path: string, driver: KernelDriver, logger: Logger): Inheritance | undefined {
  const record = readRecord(path);
  if (record?.driver !== driver) return undefined;
  const { fds, problem } = takeFromGuardians(record);
  const left = fds === undefined ? takeStored(path, driver) : { from: path, record, fds };
  if (left !== undefined) {
    const what = `${left.record.mounts.length} mounts, ${left.record.blobs.length} blobs`;
    const holder = fds === undefined ? ', from the service manager' : '';
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

function takeFromGuardians(record: FeedRecord): { fds?: number[]; problem?: unknown } {
  const { guardians, former = [] } = record;
  let [fds, problem]: [number[] | undefined, unknown] = [undefined, undefined];
  for (const guardian of [...guardians, ...former]) {
    try {
      fds ??= takeFromGuardian(guardian, heldCount(record));
    } catch (error) {
      problem ??= error;
    }
  }
  if (fds === undefined) return { problem };
  // that daemon was killed while it changed guardians
  if (guardians.some(isAlive)) former.forEach(endGuardian);
  return { fds };
}

/** What the service manager has kept for the daemon of a record. */
function takeStored(path: string, driver: KernelDriver): Inheritance | undefined {
  const parcel = takeFromManager(storedName(driver));
  if (parcel === undefined) return undefined;
  try {
    const inherited = openInheritance(parcel);
    if (inherited.from === path) return inherited;
    for (const fd of inherited.fds) closeSync(fd);
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

/**
 * Take away what a daemon before left under a record. Guardians of fanotify end once no file of it is open: their readers would see zeros.
 * Those of flat files end at once: their readers see an error.
 */
export function discardRecord(path: string, logger: Logger): void {
  const before = readRecord(path);
  if (before === undefined) return;
  const { mounts, driver } = before;
  const guardians = [...before.guardians, ...(before.former ?? [])];
  const open = mounts.filter(
    ({ mountpoint, device }) =>
      driver === 'fanotify' && guardians.length > 0 && erofsDeviceAt(mountpoint) === device,
  );
  const gone = open.map(({ mountpoint }) => whenGone(mountpoint));
  detachAll(mounts, logger);
  removeRecord(path);
  void Promise.all(gone).then(() => guardians.forEach(endGuardian));
}
