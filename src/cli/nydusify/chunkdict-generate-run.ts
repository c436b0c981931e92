// `nydusify chunkdict generate`: pulls bootstraps, makes a dictionary of them, pushes it as an image.
// Source: nydus-image-and-nydusify.md 5.5, 9.7.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { FormatError, UsageError } from '../../base/errors.ts';
import { MAX_LAYERS } from '../../base/limits.ts';
import { generateChunkdict } from '../../build/chunkdict/generate.ts';
import { nydusImages, type NydusImage } from '../../convert/chunkdict/nydus-images.ts';
import { publishDictionary, type BlobPlace } from '../../convert/chunkdict/publish.ts';
import { backendBlob } from '../../convert/copy/from-backend.ts';
import { extractBootstrap } from '../../convert/mount/bootstrap-files.ts';
import { hexOf } from '../../convert/oci.ts';
import { parsePlatforms, showPlatform, type PlatformSpec } from '../../convert/platform.ts';
import type { ImageSource } from '../../convert/source.ts';
import { formatReference, parseReference } from '../../registry/reference.ts';
import type { Backend } from '../../storage/backend/backend.ts';
import { resultDocument, writeResultFile } from '../nydus-image/result-file.ts';
import { readBackend, type BackendChoice } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { openRegistrySource, openTransport } from './registry-client.ts';
import { withWorkDir } from './work-dir.ts';

/** What the builder writes, below the work directory; names as upstream has them. */
const DICTIONARY = 'chunkdict_bootstrap';
const DATABASE = 'database.db';
const RESULT = 'nydus_bootstrap_output.json';

interface Plan {
  /** full names */
  sources: string[];
  target: string | undefined;
  platforms: PlatformSpec[] | undefined;
  backend: BackendChoice | undefined;
  /** program that makes the dictionary in place of this one */
  builder: string | undefined;
  workDir: string;
}

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

function planOf({ values }: NydusifyContext): Plan {
  const full = (text: string): string => formatReference(parseReference(text));
  const listed = (values.text('sources') ?? '')
    .split(',')
    .map((text) => text.trim())
    .filter((text) => text !== '');
  if (listed.length === 0) throw wrong('--sources names no image');
  if (listed.length > MAX_LAYERS) throw wrong(`--sources names ${listed.length} images, limit ${MAX_LAYERS}`);
  const target = values.text('target') ?? '';
  const builder = values.text('nydus-image') ?? '';
  return {
    sources: [...new Set(listed.map(full))],
    target: target === '' ? undefined : full(target),
    platforms: values.on('all-platforms') ? undefined : parsePlatforms(values.text('platform')),
    backend: readBackend(values, ''),
    builder: builder === '' || builder === 'nydus-image' ? undefined : builder,
    workDir: values.text('work-dir') ?? './output',
  };
}

/** An image with its bootstrap on disk. */
interface Pulled {
  source: ImageSource;
  image: NydusImage;
  bootstrap: string;
}

/**
 * Name of the directory of a bootstrap: the reference with `:` for `/`. Its last two parts are image and tag; one of several
 * platforms is an image of its own.
 */
export function directoryName(reference: string, platform: string | undefined): string {
  const parts = reference.replaceAll('/', ':').split(':');
  if (platform === undefined) return parts.join(':');
  const tag = parts.pop() ?? '';
  return `${parts.join(':')}-${platform.replaceAll('/', '-')}:${tag}`;
}

async function pull(
  ctx: NydusifyContext,
  plan: Plan,
  reference: string,
  source: ImageSource,
  scratch: string,
): Promise<Pulled[]> {
  const images = await nydusImages(source, plan.platforms, ctx.signal);
  const pulled: Pulled[] = [];
  for (const image of images) {
    const platform =
      images.length > 1 && image.platform !== undefined ? showPlatform(image.platform) : undefined;
    const folder = join(plan.workDir, directoryName(reference, platform));
    await mkdir(folder, { recursive: true });
    const found = await extractBootstrap(source.layer(image.bootstrap), scratch, ctx.signal);
    const diffId = String(image.config.rootfs.diff_ids.at(-1));
    if (found.diffId !== diffId)
      throw new FormatError(
        { struct: source.name },
        `invalid bootstrap layer diff id: ${found.diffId} (calculated) != ${diffId} (in image config)`,
      );
    const bootstrap = join(folder, 'nydus_bootstrap');
    await copyFile(found.bootstrap, bootstrap);
    ctx.log.info(
      `${reference}${platform === undefined ? '' : ` (${platform})`}: bootstrap is in ${bootstrap}`,
    );
    pulled.push({ source, image, bootstrap });
  }
  return pulled;
}

interface Made {
  bootstrap: string;
  blobs: readonly string[];
  version: 5 | 6;
}

async function makeOutside(
  ctx: NydusifyContext,
  program: string,
  dir: string,
  args: string[],
): Promise<Made> {
  const failure = await new Promise<string | undefined>((done) => {
    execFile(program, args, { signal: ctx.signal, maxBuffer: 1 << 24 }, (error, _, stderr) =>
      done(error === null ? undefined : stderr.trim() || error.message),
    );
  });
  ctx.signal.throwIfAborted();
  if (failure !== undefined) throw wrong(`${program} chunkdict generate failed: ${failure}`);
  const result = JSON.parse(await readFile(join(dir, RESULT), 'utf8')) as Record<string, unknown>;
  const { blobs, fs_version: version } = result;
  if (!Array.isArray(blobs) || !blobs.every((id) => typeof id === 'string' && /^[0-9a-f]{64}$/.test(id)))
    throw new FormatError({ struct: RESULT, field: 'blobs' }, 'is no list of blob ids');
  return { bootstrap: join(dir, DICTIONARY), blobs: blobs as string[], version: version === '5' ? 5 : 6 };
}

async function make(ctx: NydusifyContext, plan: Plan, bootstraps: readonly string[]): Promise<Made> {
  const dir = resolve(plan.workDir);
  const [bootstrap, database] = [join(dir, DICTIONARY), `sqlite://${join(dir, DATABASE)}`];
  const output = join(dir, RESULT);
  if (plan.builder !== undefined) {
    const args = ['chunkdict', 'generate', '--log-level', 'warn', '--bootstrap', bootstrap];
    const more = ['--database', database, '--output-json', output];
    return makeOutside(ctx, plan.builder, dir, [...args, ...more, ...bootstraps]);
  }
  const result = await generateChunkdict(
    { sources: bootstraps, database, bootstrap, blobDir: undefined },
    ctx.log,
    (line) => ctx.log.warn(line),
  );
  writeResultFile(output, resultDocument(result));
  return { bootstrap, blobs: result.blobs, version: result.version };
}

/** Where a blob is: in the backend, else in the registry of a source that lists it. */
async function findBlob(
  id: string,
  pulled: readonly Pulled[],
  backend: Backend | undefined,
): Promise<BlobPlace | undefined> {
  if (backend !== undefined) {
    const { size, open } = await backendBlob(backend, id);
    return { size, input: { open }, reference: undefined };
  }
  for (const { source, image } of pulled) {
    const layer = image.manifest.layers.find(({ digest }) => hexOf(digest) === id);
    if (layer !== undefined)
      return { size: layer.size, input: source.layer(layer), reference: source.reference };
  }
  return undefined;
}

async function publish(
  ctx: NydusifyContext,
  plan: Plan,
  target: string,
  made: Made,
  pulled: readonly Pulled[],
  scratch: string,
): Promise<void> {
  const { registryTarget } = await import('../../convert/target-registry.ts');
  const { openBackendChoice } = await import('./open-backend.ts');
  const image = registryTarget({
    reference: parseReference(target),
    transport: await openTransport(ctx, target, { insecure: ctx.values.on('target-insecure') }),
    blobDir: scratch,
    retries: 3,
    retryDelayMs: 1000,
    logger: ctx.log,
  });
  const backend = plan.backend === undefined ? undefined : openBackendChoice(plan.backend, ctx.log);
  try {
    const { digest } = await publishDictionary(
      { ...made, model: (pulled[0] as Pulled).image, find: (id) => findBlob(id, pulled, backend) },
      image,
      ctx.signal,
    );
    ctx.log.info(`pushed the chunk dictionary as ${target}: ${digest}, ${made.blobs.length} blobs`);
  } finally {
    await backend?.close();
    await image.close();
  }
}

async function generate(ctx: NydusifyContext, plan: Plan, scratch: string): Promise<void> {
  const sources: ImageSource[] = [];
  const pulled: Pulled[] = [];
  try {
    for (const reference of plan.sources) {
      const transport = await openTransport(ctx, reference, { insecure: ctx.values.on('source-insecure') });
      const source = await openRegistrySource(transport, reference);
      sources.push(source);
      pulled.push(...(await pull(ctx, plan, reference, source, join(scratch, 'bootstrap'))));
    }
    for (const name of [DICTIONARY, RESULT]) await rm(join(plan.workDir, name), { force: true });
    const made = await make(
      ctx,
      plan,
      pulled.map(({ bootstrap }) => bootstrap),
    );
    if (plan.target !== undefined) await publish(ctx, plan, plan.target, made, pulled, scratch);
  } finally {
    for (const source of sources) await source.close();
  }
}

/** @returns exit status */
export async function runChunkdictGenerate(ctx: NydusifyContext): Promise<number> {
  const plan = planOf(ctx);
  const existed = (await stat(plan.workDir).catch(() => undefined)) !== undefined;
  let made = false;
  try {
    await withWorkDir(plan.workDir, (scratch) => generate(ctx, plan, scratch));
    made = true;
  } finally {
    // without a target the dictionary in it is what was asked for
    const result = made && plan.target === undefined;
    if (!existed && !result) await rm(plan.workDir, { recursive: true, force: true });
  }
  return 0;
}
