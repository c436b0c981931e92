// `nydus-image unpack`: opens image and blobs, writes the tar. Source: nydus-image 5.3.
import { once } from 'node:events';
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { fileTarget, type ByteTarget } from '../../build/blob-output.ts';
import { BlobSet } from '../../rafs/blob-set.ts';
import { hostNames } from '../../rafs/owner-names.ts';
import { unpackImage } from '../../rafs/unpack.ts';
import { openBackend, type Backend } from '../../storage/backend/backend.ts';
import type { BackendConfig } from '../../storage/config.ts';
import type { CommandContext } from '../command.ts';
import { CommandFailure } from '../report.ts';
import { localBackend, readBackendOptions } from './backend-options.ts';
import { imagePath } from './image-options.ts';
import { openImageFile, type ImageFile } from './open-image.ts';
import { openCommandLog } from './shared.ts';
import type { UnpackValues } from './unpack.ts';

const OTHERS = '--blob, --blob-dir';

function backendOf(values: UnpackValues, logger: Logger): BackendConfig | undefined {
  const { blob, 'blob-dir': dir } = values;
  if (blob !== undefined) return localBackend({ blob_file: blob }, logger);
  if (dir !== undefined) return localBackend({ dir }, logger);
  return readBackendOptions(values, OTHERS, logger);
}

/** Standard output cannot be opened by its name when it is a socket, as it is for children of Node. */
function stdoutTarget({ stdout }: CommandContext): ByteTarget {
  return {
    write: async (parts) => {
      for (const part of parts) if (!stdout.write(part)) await once(stdout, 'drain');
    },
    publish: () => Promise.resolve(),
    discard: () => Promise.resolve(),
  };
}

async function writeTar(
  file: ImageFile,
  blobs: BlobSet | undefined,
  output: string,
  ctx: CommandContext,
): Promise<void> {
  const { signal } = ctx;
  const target = output === '/dev/stdout' ? stdoutTarget(ctx) : await fileTarget(output);
  try {
    for await (const parts of unpackImage({ image: file.image, blobs, names: hostNames(), signal }))
      await target.write(parts);
  } catch (error) {
    await target.discard();
    throw error;
  }
  await target.publish(undefined);
}

async function unpackFile(
  file: ImageFile,
  config: BackendConfig | undefined,
  output: string,
  ctx: CommandContext,
  logger: Logger,
): Promise<void> {
  const { image, path } = file;
  let backend: Backend | undefined;
  let blobs: BlobSet | undefined;
  try {
    if (config !== undefined && image.blobs.length > 0) {
      backend = openBackend(config, logger);
      blobs = await BlobSet.open({ bootstrap: { image, path, close: () => {} }, backend, logger });
    }
    await writeTar(file, blobs, output, ctx);
  } finally {
    backend?.giveUp?.();
    await blobs?.close();
    await backend?.close();
  }
}

/** @returns exit status */
export async function runUnpack(ctx: CommandContext, values: UnpackValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    const { output } = values;
    if (output === '') throw new UsageError('invalid empty --output option', { exitCode: 1 });
    const { path } = imagePath(values);
    const config = backendOf(values, log);
    try {
      const file = await openImageFile(path, log);
      try {
        if (config === undefined && file.image.blobs.length > 0)
          throw new UsageError(
            `invalid backend configuration, ${OTHERS} or --backend-type must be specified`,
            { exitCode: 1 },
          );
        await unpackFile(file, config, output, ctx, log);
      } finally {
        file.close();
      }
    } catch (error) {
      if (error instanceof UsageError || ctx.signal.aborted) throw error;
      throw new CommandFailure('fail to unpack', error);
    }
    log.debug(`unpacked ${path} to ${output}`);
    return 0;
  } finally {
    await log.close();
  }
}
