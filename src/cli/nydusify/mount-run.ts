// `nydusify mount`: bootstrap, daemon, and back again. Source: nydus-image-and-nydusify.md 9.3.
import { mkdir, mkdtemp, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { BackendError, messageOf, UsageError } from '../../base/errors.ts';
import { parseImages, type ParsedImage } from '../../convert/check/parsed-image.ts';
import { extractBootstrap } from '../../convert/mount/bootstrap-files.ts';
import { nydusdCommand } from '../../convert/mount/nydusd-program.ts';
import { Nydusd } from '../../convert/mount/nydusd.ts';
import { unmountOld } from '../../convert/mount/unmount-old.ts';
import { parsePlatforms } from '../../convert/platform.ts';
import type { NydusifyContext } from './context.ts';
import { backendSection, openSide, wantsValidation, type ImageSide } from './image-side.ts';

/** What we write into the work directory. Another program's files there stay. */
const OURS = ['nydus_bootstrap', 'nydus_manifest.json', 'nydus_config.json', 'fs'];

async function clear(workDir: string): Promise<void> {
  for (const name of OURS) await rm(join(workDir, name), { recursive: true, force: true });
}

/** Make a directory. @returns how to take it away again when it was missing */
async function made(path: string): Promise<() => Promise<void>> {
  const existed = (await stat(path).catch(() => undefined)) !== undefined;
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw new UsageError(`cannot make ${path}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
  // not recursively: only what is empty is ours
  return async () => (existed ? undefined : rmdir(path).catch(() => undefined));
}

async function nydusImageOf(ctx: NydusifyContext, side: ImageSide): Promise<ParsedImage> {
  const [platform] = parsePlatforms(ctx.values.text('platform'));
  if (platform === undefined) throw new UsageError('--platform names no platform', { exitCode: 1 });
  const { nydus } = await parseImages(side.source, platform, ctx.log, ctx.signal);
  if (nydus !== undefined) return nydus;
  throw new UsageError(`${side.reference} is no nydus image`, {
    exitCode: 1,
    hint: 'convert it first: nydusify convert --source … --target-suffix -nydus',
  });
}

async function start(
  ctx: NydusifyContext,
  side: ImageSide,
  workDir: string,
  mountpoint: string,
): Promise<Nydusd> {
  const image = await nydusImageOf(ctx, side);
  const last = image.manifest.layers.at(-1);
  if (last === undefined) throw new UsageError(`${side.reference} has no layers`, { exitCode: 1 });
  const bootstrap = join(workDir, 'nydus_bootstrap');
  const scratch = await mkdtemp(join(workDir, 'nydusify-'));
  try {
    await rename((await extractBootstrap(side.source.layer(last), scratch, ctx.signal)).bootstrap, bootstrap);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
  const write = (name: string, value: unknown): Promise<void> =>
    writeFile(join(workDir, name), JSON.stringify(value, undefined, 2));
  await write('nydus_manifest.json', image.manifestJson);
  await write('nydus_config.json', image.config);
  const fs = join(workDir, 'fs');
  const backend = await backendSection(ctx, side, image, join(fs, 'image_blobs'));
  unmountOld(mountpoint);
  return Nydusd.start(
    {
      command: nydusdCommand(ctx.values.text('nydusd'), process.argv[1]),
      bootstrap,
      mountpoint,
      backend,
      configFile: join(fs, 'nydusd_config.json'),
      apiSocket: join(fs, 'nydus_api.sock'),
      cacheDir: join(fs, 'nydus_blobs'),
      prefetch: ctx.values.on('prefetch'),
      digestValidate: wantsValidation(image),
      logger: ctx.log,
    },
    ctx.signal,
  );
}

/** @returns exit status */
export async function runMount(ctx: NydusifyContext): Promise<number> {
  const workDir = resolve(ctx.values.text('work-dir') ?? './tmp');
  const mountpoint = resolve(ctx.values.text('mount-path') ?? './image-fs');
  const side = await openSide(ctx, 'target', '');
  const takeAway = [await made(workDir), await made(mountpoint)];
  try {
    await clear(workDir);
    const daemon = await start(ctx, side, workDir, mountpoint);
    try {
      ctx.stdout.write(`${mountpoint}\n`);
      ctx.log.info(`mounted ${side.reference} on ${mountpoint}`);
      ctx.log.info('Please send signal SIGINT/SIGTERM to umount the file system');
      const asked = new Promise<true>((done) => {
        if (ctx.signal.aborted) done(true);
        ctx.signal.addEventListener('abort', () => done(true), { once: true });
      });
      const wanted = await Promise.race([asked, daemon.ended.then(() => false)]);
      if (!wanted) throw new BackendError(`nydusd ended, ${mountpoint} is no longer mounted`);
    } finally {
      await daemon.stop();
    }
    ctx.log.info(`unmounted ${mountpoint}`);
    return 0;
  } finally {
    await side.source.close();
    await clear(workDir);
    for (const away of takeAway) await away();
  }
}
