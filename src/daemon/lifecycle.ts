// One run of a FUSE daemon: start-up in upstream's order, then waiting for a reason to end, then the end.
// Source: nydusd.md 2.1, 2.3, 2.4.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { NydusError, UsageError, messageOf } from '../base/errors.ts';
import type { LogSink } from '../base/log-sink.ts';
import { versionLine } from '../base/version.ts';
import { Daemon } from './daemon.ts';
import { raiseFileLimit } from './file-limit.ts';
import { loadHttp, startApiServer, type ApiServer } from './http-server.ts';
import {
  chooseInitialMount,
  resolveMountpoint,
  type InitialMount,
  type SourceOptions,
} from './initial-mount.ts';
import type { DriverChoice } from '../storage/config.ts';
import type { DaemonParts, FailoverPolicy, ImageInstance, MountSession, MountTarget } from './parts.ts';
import { Router } from './router.ts';
import { keeperPath } from './upgrade/keeper-path.ts';
import type { Kept, Keeper } from './upgrade/keeper.ts';

/** Longest that an orderly end may take; test suites kill a daemon that needs 10 s. */
export const SHUTDOWN_TIMEOUT_MS = 8000;

export interface FuseDaemonOptions extends SourceOptions {
  mountpoint: string;
  threads: number;
  apisock?: string | undefined;
  rlimitNofile: number;
  /** mount read-write */
  writable: boolean;
  id?: string | undefined;
  supervisor?: string | undefined;
  /** mount nothing, and wait for a takeover */
  upgrade?: boolean | undefined;
  /** as given; where it is, and no supervisor, a guardian keeps the mount */
  failoverPolicy?: FailoverPolicy | undefined;
  /** who serves the image; default: what its configuration says, else fuse */
  driver?: DriverChoice | undefined;
  /** end, leaving a mount of the kernel, once everything is local */
  detachWhenComplete?: boolean | undefined;
  /** database of the chunks that caches of this node have */
  dedupDb?: string | undefined;
}

export interface FuseDaemonContext<I extends ImageInstance> {
  parts: DaemonParts<I>;
  logger: LogSink;
  /** SIGTERM and SIGINT */
  signal: AbortSignal;
}

/** Why the daemon ends. */
type Reason = 'signal' | 'unmounted' | 'exit';

interface Running<I extends ImageInstance> {
  daemon: Daemon<I>;
  api: ApiServer | undefined;
  exitRequested: Promise<void>;
}

/**
 * Serve until a signal, an exit request or an unmount ends it.
 *
 * @returns the exit status: 0
 * @throws what kept it from starting; nothing is mounted then and no socket is left
 */
export async function runFuseDaemon<I extends ImageInstance>(
  options: FuseDaemonOptions,
  context: FuseDaemonContext<I>,
): Promise<number> {
  const { logger, signal } = context;
  logger.info(versionLine());
  raiseFileLimit(options.rlimitNofile, logger);
  const { parts, close } = await withDedup(options.dedupDb, context);
  const running = await start(options, { ...context, parts });
  const reason = await Promise.race<Reason>([
    aborted(signal).then(() => 'signal'),
    // an exit request ends the workers too: its answer goes out first
    running.daemon.ended.then(async () => {
      if (!running.daemon.leaving) return 'unmounted';
      await running.exitRequested;
      return 'exit';
    }),
    running.exitRequested.then(() => 'exit'),
  ]);
  if (reason === 'signal') logger.info('received a signal, shutting down');
  if (reason === 'unmounted') logger.info('the filesystem is no longer mounted, shutting down');
  await inTime(end(running, reason, logger), logger);
  close();
  logger.info('nydusd quits');
  return 0;
}

/** Every image that is opened shares chunks with the others of the node. */
async function withDedup<I extends ImageInstance>(
  path: string | undefined,
  { parts, logger }: FuseDaemonContext<I>,
): Promise<{ parts: DaemonParts<I>; close: () => void }> {
  if (path === undefined) return { parts, close: () => {} };
  const dedupDb = resolve(path);
  const close = (await parts.openDedup?.(dedupDb, logger)) ?? (() => {});
  return { parts: { ...parts, open: (options) => parts.open({ ...options, dedupDb }) }, close };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

async function start<I extends ImageInstance>(
  options: FuseDaemonOptions,
  context: FuseDaemonContext<I>,
): Promise<Running<I>> {
  const { logger, parts } = context;
  const { apisock, supervisor, id, failoverPolicy, imagePullAuth } = options;
  const mountpoint = resolveMountpoint(options.mountpoint);
  const kept = supervisor === undefined ? await takeKept(apisock, mountpoint, logger) : undefined;
  const waits =
    supervisor !== undefined && (options.upgrade === true || (await crashed(mountpoint, apisock, logger)));
  if (options.upgrade === true && supervisor === undefined)
    throw new UsageError('--upgrade needs --supervisor and --id', { exitCode: 1 });
  const initial = waits || kept !== undefined ? undefined : chooseInitialMount(options);
  for (const warning of initial?.parsed?.warnings ?? []) logger.warn(`configuration: ${warning}`);
  const keeper = kept?.keeper ?? (await newKeeper(options, mountpoint, logger));
  const daemon = new Daemon<I>({
    parts,
    logger,
    id,
    supervisor,
    failoverPolicy,
    imagePullAuth,
    keeper,
    adopt: (fd, { connection, serveOpen }) =>
      parts.adopt(
        {
          mountpoint,
          threads: options.threads,
          serveOpen,
          hold: false,
          logger,
          apisock,
          driverOfMounts: options.driver,
          detachWhenComplete: options.detachWhenComplete,
          writable: options.writable,
        },
        fd,
        connection,
      ),
  });
  if (kept !== undefined) await recover(daemon, kept, logger);
  else if (!waits) await startServing(daemon, mountpoint, options, initial, context);
  // nobody waits for it: a crash before it is there leaves a dead mount, as one without it does
  daemon.keep().catch((error: unknown) => logger.error(messageOf(error)));
  const exit = Promise.withResolvers<void>();
  const router = new Router(daemon, exit.resolve);
  try {
    const handle = router.handle.bind(router);
    const api = apisock === undefined ? undefined : await startApiServer({ path: apisock, handle, logger });
    return { daemon, api, exitRequested: exit.promise };
  } catch (error) {
    await daemon.shutdown();
    throw error;
  }
}

/** What a guardian keeps for this daemon. Looked at only where there is a record: most starts load nothing for it. */
async function takeKept(
  apisock: string | undefined,
  mountpoint: string,
  logger: LogSink,
): Promise<Kept | undefined> {
  if (!existsSync(keeperPath(apisock, mountpoint))) return undefined;
  const { Keeper } = await import('./upgrade/keeper.ts');
  return Keeper.take(keeperPath(apisock, mountpoint), mountpoint, logger);
}

async function newKeeper(
  { failoverPolicy, supervisor, apisock, driver, sharedDir }: FuseDaemonOptions,
  mountpoint: string,
  logger: LogSink,
): Promise<Keeper | undefined> {
  if ((failoverPolicy ?? 'none') === 'none' || supervisor !== undefined) return undefined;
  if (sharedDir !== undefined || (driver ?? 'fuse') !== 'fuse') return undefined;
  const { Keeper } = await import('./upgrade/keeper.ts');
  return Keeper.create(keeperPath(apisock, mountpoint), mountpoint, logger);
}

async function crashed(mountpoint: string, apisock: string | undefined, logger: LogSink): Promise<boolean> {
  const { hasCrashed } = await import('./upgrade/crash.ts');
  if (!hasCrashed(mountpoint, apisock)) return false;
  logger.error('A previous daemon crashed! Try to failover later.');
  return true;
}

/** Serve what a guardian has kept. When that fails the guardian goes on keeping it. */
async function recover<I extends ImageInstance>(
  daemon: Daemon<I>,
  kept: Kept,
  logger: LogSink,
): Promise<void> {
  logger.info(`going on with the mount of a daemon that ended: ${kept.restored.mounts.length} images`);
  try {
    await daemon.recover(kept.fd, kept.restored);
  } catch (error) {
    throw new UsageError(`cannot go on with the mount of the daemon before: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: 'readers still wait for it; put back what is missing, or give it up with umount -l, and start again',
    });
  }
}

/**
 * Mount, and open the image while the workers start, which takes longest (measured: 60 to 100 ms, this thread idle). Nobody
 * sees the mount before the image is attached, and a bad image takes the mount away again.
 */
async function startServing<I extends ImageInstance>(
  daemon: Daemon<I>,
  mountpoint: string,
  options: FuseDaemonOptions,
  initial: InitialMount | undefined,
  { parts, logger }: FuseDaemonContext<I>,
): Promise<MountSession<I>> {
  const { threads, apisock, writable, detachWhenComplete } = options;
  const starting = Promise.withResolvers<void>();
  const mounting = parts.mount({
    mountpoint,
    threads,
    // what is no image needs to be opened
    serveOpen: initial?.kind !== 'rafs',
    hold: initial !== undefined,
    writable,
    outlive: options.supervisor !== undefined || (options.failoverPolicy ?? 'none') !== 'none',
    logger,
    whileStarting: () => starting.resolve(),
    driver: options.driver ?? initial?.parsed?.config.driver,
    driverOfMounts: options.driver,
    detachWhenComplete,
    apisock,
  });
  const go = (): void => starting.resolve();
  mounting.then(go, go);
  const opening = starting.promise.then(() => {
    if (apisock !== undefined) loadHttp();
    return initial && openInitial(initial, parts, logger);
  });
  const [mounted, opened] = await Promise.allSettled([mounting, opening]);
  const session = mounted.status === 'fulfilled' ? mounted.value : undefined;
  const target = opened.status === 'fulfilled' ? opened.value : undefined;
  try {
    if (opened.status === 'rejected') throw openError(opened.reason, initial?.source);
    if (session === undefined) throw withMountHint((mounted as PromiseRejectedResult).reason, mountpoint);
    await daemon.serve(session, initial && target && { ...initial, target });
    logger.info(`serving ${initial?.source ?? 'an empty root'} at ${mountpoint}`);
    return session;
  } catch (error) {
    await session?.unmount();
    if (target?.kind === 'rafs') await target.instance.close();
    else target?.directory.close();
    throw error;
  }
}

async function openInitial<I extends ImageInstance>(
  { kind, source, mountpoint, parsed }: InitialMount,
  parts: DaemonParts<I>,
  logger: LogSink,
): Promise<MountTarget<I>> {
  if (kind === 'passthrough' || parsed === undefined)
    return { kind: 'passthrough', directory: await parts.share(source) };
  return {
    kind,
    instance: await parts.open({ bootstrap: source, config: parsed.config, id: mountpoint, logger }),
  };
}

function openError(error: unknown, source = ''): unknown {
  if (error instanceof NydusError) return error;
  return new UsageError(`cannot open ${source}: ${messageOf(error)}`, { cause: error, exitCode: 1 });
}

const MOUNT_HINTS: Record<string, string> = {
  ENOENT: 'load the FUSE module (modprobe fuse), or pass /dev/fuse into the container',
  ENODEV: 'load the FUSE module: modprobe fuse',
  EPERM: 'run as root, or install fusermount3 (Debian: apt install fuse3)',
  EACCES: 'run as a user who may open /dev/fuse and write to the mountpoint',
  EBUSY: 'something else holds the mountpoint: umount it, or name another directory',
};

/** Errors of mounting that say nothing about the next step get one. */
function withMountHint(error: unknown, mountpoint: string): unknown {
  if (error instanceof NydusError) return error;
  const hint = MOUNT_HINTS[String((error as { code?: unknown } | null)?.code)];
  return new UsageError(`cannot mount at ${mountpoint}: ${messageOf(error)}`, {
    cause: error,
    exitCode: 1,
    ...(hint === undefined ? {} : { hint }),
  });
}

async function end<I extends ImageInstance>(
  running: Running<I>,
  reason: Reason,
  logger: LogSink,
): Promise<void> {
  await running.api?.close();
  try {
    if (reason !== 'exit') await running.daemon.shutdown();
  } catch (error) {
    logger.error(`shutting down: ${messageOf(error)}`);
  }
}

/** Wait for the end, but not for ever: whatever hangs is left behind. */
async function inTime(work: Promise<void>, logger: LogSink): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      logger.error(`not down after ${SHUTDOWN_TIMEOUT_MS} ms, leaving anyway`);
      resolve();
    }, SHUTDOWN_TIMEOUT_MS);
  });
  await Promise.race([work, late]);
  clearTimeout(timer);
}
