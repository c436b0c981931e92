// The filesystem side as it is: FUSE sessions of serve/, images of rafs/. Loaded when the daemon starts.
import { closeSync, existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { UsageError } from '../base/errors.ts';
import { RafsInstance } from '../rafs/instance.ts';
import { detachDeadMounts } from '../serve/fuse/dead-mounts.ts';
import type { Inheritance } from '../serve/erofs/left.ts';
import { KERNEL_DRIVERS, recordPath } from '../serve/erofs/record-path.ts';
import { fuseMountOf } from '../serve/fuse/mount-info.ts';
import { FuseSession, type MountSource } from '../serve/fuse/session.ts';
import { dropSpareWorker } from '../serve/fuse/spare-thread.ts';
import type { SharedDirectory } from '../serve/passthrough/passthrough-fs.ts';
import type { DriverChoice } from '../storage/config.ts';
import { SharedStorage } from '../storage/shared-storage.ts';
import { CoveredSession } from './covered-session.ts';
import type { Covers } from './covers.ts';
import { keeperPath } from './upgrade/keeper-path.ts';
import { OverlaySession, type OverlayCalls } from './overlay-session.ts';
import type {
  DaemonParts,
  Handover,
  HandoverConnection,
  MountSession,
  MountTarget,
  SessionOptions,
} from './parts.ts';

/** The daemon hands back what it got from `realParts`. */
function sourceOf(target: MountTarget<RafsInstance>): MountSource {
  return target.kind === 'rafs'
    ? target
    : { kind: 'passthrough', directory: target.directory as SharedDirectory };
}

function handoverOf(session: FuseSession, serveOpen: boolean): Handover | undefined {
  const connection = session.connection();
  const { deviceFd: fd, connectionId } = session;
  return connection && { ...connection, fd, serveOpen, connectionId };
}

/** A FUSE session as the daemon sees it. */
function mountSession(session: FuseSession, serveOpen: boolean): MountSession<RafsInstance> {
  return {
    handover: () => handoverOf(session, serveOpen),
    restore: (place, target, options) => session.restore(place, sourceOf(target), options),
    resume: () => session.resume(),
    drain: (policy) => session.drain(policy),
    ended: session.ended,
    attach: (mountpoint, target, options) => session.attach(mountpoint, sourceOf(target), options),
    replace: (mountpoint, target, options) => session.replace(mountpoint, sourceOf(target), options),
    detach: (mountpoint) => session.detach(mountpoint),
    stop: () => session.stop(),
    unmount: () => session.unmount(),
    counters: (mountpoint) => session.stats(mountpoint),
    files: (mountpoint) => session.accounting(mountpoint)?.files() ?? {},
    pattern: (mountpoint) => session.accounting(mountpoint)?.pattern() ?? [],
    takeLatest: (mountpoint) => session.accounting(mountpoint)?.takeLatest() ?? [],
    inflight: () => session.inflight(),
    setWireLog: (on) => session.setWireLog(on),
  };
}

async function mountFuse(options: SessionOptions): Promise<MountSession<RafsInstance>> {
  await detachDeadMounts(options.mountpoint, options.logger);
  await discardLeft(options);
  const mounting = FuseSession.mount(options);
  if (options.whileStarting !== undefined) setImmediate(options.whileStarting);
  return covered(mountSession(await mounting, options.serveOpen), options);
}

/** Whether a daemon before has left something that the kernel serves. */
function leftBy({ apisock, mountpoint }: SessionOptions): string[] {
  return KERNEL_DRIVERS.map((driver) => recordPath(apisock, mountpoint, driver)).filter(existsSync);
}

/** What the kernel served of a daemon that died, and nobody goes on with. */
async function discardLeft(options: SessionOptions): Promise<void> {
  const paths = leftBy(options);
  // a FUSE mount that is there waits for its next daemon: the way to what is mounted in it is not served
  if (paths.length === 0 || fuseMountOf(options.mountpoint) !== undefined) return;
  const { discardRecord } = await import('../serve/erofs/left.ts');
  for (const path of paths) discardRecord(path, options.logger);
}

/** Images may ask to be served by the kernel. */
function covered(
  session: MountSession<RafsInstance>,
  { mountpoint, apisock, logger, driverOfMounts: driver }: SessionOptions,
  covers?: Covers,
): MountSession<RafsInstance> {
  return new CoveredSession(session, { mountpoint, apisock, logger, driver, covers });
}

/** Go on with a connection, and with what the kernel serves inside its mount. */
async function adoptFuse(
  options: SessionOptions,
  fd: number,
  before: HandoverConnection,
  inherited: readonly Inheritance[],
): Promise<MountSession<RafsInstance>> {
  if (before.offered === 0n) throw new UsageError('the daemon before had not been answered by the kernel');
  const { apisock, mountpoint, logger } = options;
  let covers: Covers | undefined;
  if (inherited.length > 0 || leftBy(options).length > 0) {
    const { Covers } = await import('./covers.ts');
    const places = { mountpoint, apisock, logger };
    covers = inherited.length > 0 ? new Covers(places, inherited) : Covers.takeOver(places);
  }
  const session = FuseSession.adopt(options, fd, before);
  return covered(mountSession(session, options.serveOpen), options, covers);
}

/** By the kernel itself where it can; without an image there is nothing that it could mount. */
async function mountKernel(
  options: SessionOptions,
  driver: Exclude<DriverChoice, 'fuse'>,
): Promise<MountSession<RafsInstance>> {
  void dropSpareWorker();
  const { KernelSession } = await import('./kernel-session.ts');
  const { mountpoint, logger, apisock, detachWhenComplete = false, whileStarting } = options;
  const fuse = (): Promise<MountSession<RafsInstance>> => mountFuse({ ...options, whileStarting: () => {} });
  const session = new KernelSession({ driver, mountpoint, apisock, logger, detachWhenComplete, fuse });
  whileStarting?.();
  return session;
}

/** What the images of this process read from together. */
let storage: SharedStorage | undefined;

/** What a daemon whose image the kernel serves has handed over. */
async function adoptKernel(options: SessionOptions, parcel: number): Promise<MountSession<RafsInstance>> {
  void dropSpareWorker();
  const { KernelSession } = await import('./kernel-session.ts');
  const { mountpoint, logger, apisock, detachWhenComplete = false } = options;
  const fuse = (): Promise<never> => Promise.reject(new UsageError('the mount is handed over, not made'));
  const session = KernelSession.adopt(
    { driver: 'auto', mountpoint, apisock, logger, detachWhenComplete, fuse },
    parcel,
  );
  return withLayers(session, options);
}

function withLayers(
  session: MountSession<RafsInstance>,
  { mountpoint, writable = false, logger, apisock }: SessionOptions,
): MountSession<RafsInstance> {
  const keptBy = (): string => resolve(keeperPath(apisock, mountpoint));
  const calls = (): Promise<OverlayCalls> => import('../serve/overlay/kernel-overlay.ts');
  return new OverlaySession(session, { mountpoint, writable, logger, keptBy, calls });
}

export const realParts: DaemonParts<RafsInstance> = {
  mount: async (options) => {
    const { driver = 'fuse' } = options;
    const isFuse = driver === 'fuse' || options.serveOpen;
    return withLayers(await (isFuse ? mountFuse(options) : mountKernel(options, driver)), options);
  },
  adopt: async (options, fd, before) => {
    const { isParcel } = await import('../serve/guardian/parcel.ts');
    if (!isParcel(fd)) return withLayers(await adoptFuse(options, fd, before, []), options);
    const { openConnection } = await import('../serve/erofs/left.ts');
    const opened = openConnection(fd);
    if (opened === undefined) return adoptKernel(options, fd);
    const { connection, inherited } = opened;
    try {
      const session = await adoptFuse(options, connection, before, inherited);
      closeSync(fd);
      return withLayers(session, options);
    } catch (error) {
      for (const each of [connection, ...inherited.flatMap(({ fds }) => fds)]) closeSync(each);
      throw error;
    }
  },
  open: async (options) => {
    storage ??= new SharedStorage();
    return RafsInstance.open({ ...options, storage });
  },
  openDedup: async (path, logger) => {
    const dedup = await import('../storage/dedup/chunk-database.ts');
    const database = dedup.acquireChunkDatabase(path, logger);
    return () => dedup.releaseChunkDatabase(database);
  },
  share: async (source) => {
    const { SharedDirectory } = await import('../serve/passthrough/passthrough-fs.ts');
    return SharedDirectory.open(source);
  },
};
