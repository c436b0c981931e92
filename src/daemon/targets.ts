// Opens what a mount request names, in upstream's words where it cannot, and closes what was opened. Source: nydusd.md 5.6, 7.
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ConfigV2 } from '../storage/config.ts';
import type { ParsedConfig } from '../storage/config-parse.ts';
import { openFailure, openStep, shareFailure } from './mount-failure.ts';
import { checkMountpoint, checkPrefetchFiles, type MountRequest } from './mount-request.ts';
import { accountingOf, type Mount } from './mounts.ts';
import type { AttachOptions, DaemonParts, ImageInstance, MountTarget } from './parts.ts';

/** What was opened, and the configuration of an image. */
export interface OpenedTarget<I extends ImageInstance> {
  target: MountTarget<I>;
  parsed: ParsedConfig | undefined;
}

/**
 * Open what a request asks for.
 *
 * @throws DaemonError in upstream's words
 */
export async function openTarget<I extends ImageInstance>(
  request: MountRequest,
  kind: MountTarget['kind'],
  parts: DaemonParts<I>,
  logger: Logger,
): Promise<OpenedTarget<I>> {
  checkPrefetchFiles(request.prefetchFiles);
  const { source, mountpoint } = request;
  if (kind === 'passthrough') {
    checkMountpoint(mountpoint);
    try {
      return { target: { kind, directory: await parts.share(source) }, parsed: undefined };
    } catch (error) {
      logger.error(messageOf(error));
      throw shareFailure(error);
    }
  }
  let parsed: ParsedConfig;
  try {
    parsed = request.readConfig();
  } catch (error) {
    logger.error(`cannot mount ${source}: ${messageOf(error)}`);
    throw openFailure('Failed to load config', error);
  }
  for (const warning of parsed.warnings) logger.warn(`configuration: ${warning}`);
  checkMountpoint(mountpoint);
  try {
    const instance = await parts.open({ bootstrap: source, config: parsed.config, id: mountpoint, logger });
    return { target: { kind, instance }, parsed };
  } catch (error) {
    logger.error(`cannot mount ${source}: ${messageOf(error)}`);
    throw openFailure(openStep(error), error);
  }
}

/** Whether a request asks for exactly what is mounted: the snapshotter repeats its mounts after a takeover. */
export function isSameMount({ source, configText, target }: Mount, request: MountRequest): boolean {
  if (target.kind !== 'rafs' || request.source !== source) return false;
  return request.readConfig().text === configText;
}

/** How something with this configuration is shown. */
export function attachOptions(config: ConfigV2 | undefined): AttachOptions {
  return {
    enableXattr: config?.rafs?.enable_xattr ?? false,
    mountedAtSec: Math.floor(Date.now() / 1000),
    accounting: accountingOf(config),
    driver: config?.driver,
    overlay: config?.overlay
      ? { upperDir: config.overlay.upper_dir, workDir: config.overlay.work_dir }
      : undefined,
  };
}

/** Close what was opened. Nobody may serve it any more. */
export async function closeTarget(target: MountTarget): Promise<void> {
  if (target.kind === 'rafs') await target.instance.close();
  else target.directory.close();
}
