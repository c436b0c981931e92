// `nydusd fuse` from parsed options to exit status: numbers checked, log opened, process guarded, daemon run.
import { UsageError, messageOf } from '../base/errors.ts';
import type { LogLevel } from '../base/log.ts';
import { openLog, type LogSink } from '../base/log-sink.ts';
import { raiseMainThread } from '../base/thread-priority.ts';
import { runFuseDaemon } from '../daemon/lifecycle.ts';
import type { FailoverPolicy } from '../daemon/parts.ts';
import { realParts } from '../daemon/real-parts.ts';
import type { DriverChoice } from '../storage/config.ts';
import { exitNow } from '../native/process.ts';
import type { CommandContext, Values } from './command.ts';
import type { fuseOptions } from './nydusd-options.ts';

/** A count from the command line. UsageError, exit 1 as upstream. */
export function parseCount(option: string, text: string): number {
  const count = /^\+?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(count)) {
    throw new UsageError(`invalid value for option \`${option}\`: ${text}`, {
      exitCode: 1,
      hint: `--${option} takes a whole number`,
    });
  }
  return count;
}

/**
 * What must not happen is logged, then the process ends at once: a worker that sleeps in the kernel would keep an orderly
 * exit from coming to its end (DESIGN 3). Once the daemon is shutting down, which takes a bounded time, a further SIGTERM
 * changes nothing: service managers send several. A person who presses ^C twice wants out now.
 *
 * @returns takes the guards away again
 */
function guardProcess(logger: LogSink, signal: AbortSignal): () => void {
  const crash = (error: unknown): void => {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    logger.error(`nydusd failed: ${text}`);
    const flushed = Promise.race([logger.close(), new Promise((resolve) => setTimeout(resolve, 500))]);
    void flushed.finally(() => exitNow(1));
  };
  const patient = (): void => {};
  const impatient = (): void => {
    if (signal.aborted) exitNow(130);
  };
  const onAbort = (): void => {
    process.removeAllListeners('SIGTERM');
    process.on('SIGTERM', patient);
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
  process.prependListener('SIGINT', impatient);
  signal.addEventListener('abort', onAbort, { once: true });
  return () => {
    process.off('uncaughtException', crash);
    process.off('unhandledRejection', crash);
    process.off('SIGINT', impatient);
    signal.removeEventListener('abort', onAbort);
  };
}

/** Run the daemon until it ends. */
export async function serveFuse(ctx: CommandContext, values: Values<typeof fuseOptions>): Promise<number> {
  const logger = await openLog({
    level: values['log-level'] as LogLevel,
    file: values['log-file'],
    rotationMegabytes: parseCount('log-rotation-size', values['log-rotation-size']),
    env: ctx.env,
  });
  const unguard = guardProcess(logger, ctx.signal);
  raiseMainThread();
  try {
    return await runFuseDaemon(
      {
        mountpoint: values.mountpoint,
        threads: Number(values['fuse-threads']),
        apisock: values.apisock,
        id: values.id,
        supervisor: values.supervisor,
        upgrade: values.upgrade,
        failoverPolicy: values['failover-policy'] as FailoverPolicy | undefined,
        rlimitNofile: parseCount('rlimit-nofile', values['rlimit-nofile']),
        driver: values.driver as DriverChoice | undefined,
        detachWhenComplete: values['detach-when-complete'],
        bootstrap: values.bootstrap,
        config: values.config,
        localfsDir: values['localfs-dir'],
        prefetchFiles: values['prefetch-files'],
        sharedDir: values['shared-dir'],
        virtualMountpoint: values['virtual-mountpoint'],
        writable: values.writable,
        dedupDb: values['dedup-db'],
        imagePullAuth: ctx.env['IMAGE_PULL_AUTH'],
      },
      { parts: realParts, logger, signal: ctx.signal },
    );
  } catch (error) {
    if (values['log-file'] !== undefined) logger.error(`failed in starting daemon: ${messageOf(error)}`);
    throw error;
  } finally {
    await logger.close();
    unguard();
  }
}
