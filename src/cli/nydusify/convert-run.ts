// `nydusify convert`: opens source and target, converts, writes the metrics. Source: nydus-image-and-nydusify.md 9.1.
import { resolve } from 'node:path';
import { versionInfo } from '../../base/version.ts';
import { writeWholeFile } from '../../build/blob-output.ts';
import {
  convertImage,
  newMetrics,
  type ConvertAids,
  type ConvertMetrics,
  type ConvertOptions,
} from '../../convert/convert.ts';
import type { Descriptor } from '../../convert/oci.ts';
import type { ReverseContext } from '../../convert/reverse/reverse.ts';
import { openLocalSource } from '../../convert/open-source.ts';
import type { ImageSource } from '../../convert/source.ts';
import { archiveTarget } from '../../convert/target-archive.ts';
import { layoutTarget } from '../../convert/target-layout.ts';
import type { BlobStore } from '../../convert/backend/blob-store.ts';
import type { ImageTarget } from '../../convert/target.ts';
import type { BackendChoice } from './backend-flags.ts';
import { parseReference } from '../../registry/reference.ts';
import type { RegistryTransport } from '../../registry/transport.ts';
import { openRegistrySource, openTransport } from './registry-client.ts';
import { readPrefetchList } from '../nydus-image/prefetch-list.ts';
import type { NydusifyContext } from './context.ts';
import { explainDiskError } from './disk-errors.ts';
import { checkConvert, isDirectoryPath, type ConvertPlan, type Place } from './convert-checks.ts';
import { openConvertView } from './convert-progress.ts';
import { withResumableDir, type RunDirectory } from './work-dir.ts';

const NS_PER_MS = 1_000_000;

/** The metrics file: integers only, a consumer decodes it so. */
export function metricsDocument(
  metrics: ConvertMetrics,
  used: { cache: boolean; dictionary: boolean } = { cache: false, dictionary: false },
): Record<string, number> {
  const ns = (ms: number): number => Math.round(ms * NS_PER_MS);
  return {
    SourceImageSize: metrics.sourceImageSize,
    TargetImageSize: metrics.targetImageSize,
    SourcePullElapsed: ns(metrics.sourcePullMs),
    ConversionElapsed: ns(metrics.conversionMs),
    TargetPushElapsed: ns(metrics.targetPushMs),
    ...(used.cache
      ? { BuildCacheLayers: metrics.cachedLayers, BuildCacheSavedSize: metrics.cachedBytes }
      : {}),
    ...(used.dictionary
      ? { ChunkDictChunks: metrics.dictionaryChunks, ChunkDictSavedSize: metrics.dictionaryBytes }
      : {}),
  };
}

function transportTo(ctx: NydusifyContext, place: Place, plainHttp: boolean): Promise<RegistryTransport> {
  return openTransport(ctx, place.reference, { insecure: place.insecure, plainHttp });
}

/** Run work with cache and dictionary open, where the command line names them. */
async function withAids<T>(
  ctx: NydusifyContext,
  plan: ConvertPlan,
  run: RunDirectory,
  work: (aids: ConvertAids) => Promise<T>,
): Promise<T> {
  const aids: ConvertAids = {};
  try {
    const { chunkDict, cache, builder } = plan;
    if (builder !== undefined) {
      const { ExternalBuilder } = await import('../../convert/external-builder.ts');
      aids.builder = new ExternalBuilder(builder, ctx.log);
      await aids.builder.probe(ctx.signal);
    }
    if (chunkDict !== undefined) {
      const { imageDictionary, localDictionary } = await import('../../convert/dictionary.ts');
      if (chunkDict.path !== undefined) aids.dictionary = await localDictionary(chunkDict.path);
      else {
        const source = await openRegistrySource(
          await transportTo(ctx, chunkDict, plan.plainHttp),
          chunkDict.reference,
        );
        try {
          aids.dictionary = await imageDictionary(source, plan.options.platforms, run.scratch, ctx.signal);
        } catch (error) {
          await source.close();
          throw error;
        }
      }
    }
    if (cache !== undefined) {
      const { BuildCache } = await import('../../convert/build-cache.ts');
      const { version, maxRecords } = cache;
      const transport = await transportTo(ctx, cache, plan.plainHttp);
      const reference = parseReference(cache.reference);
      aids.cache = await BuildCache.open(
        { reference, transport, version, maxRecords, logger: ctx.log },
        ctx.signal,
      );
    }
    return await work(aids);
  } finally {
    await aids.dictionary?.source?.close();
    await aids.cache?.close();
  }
}

async function openSource(ctx: NydusifyContext, plan: ConvertPlan): Promise<ImageSource> {
  const { path, reference } = plan.source;
  if (path !== undefined) return openLocalSource(path, reference);
  return openRegistrySource(await transportTo(ctx, plan.source, plan.plainHttp), reference);
}

async function openImageTarget(
  ctx: NydusifyContext,
  plan: ConvertPlan,
  run: RunDirectory,
): Promise<ImageTarget> {
  const { path, reference } = plan.target;
  if (path !== undefined) {
    return isDirectoryPath(path)
      ? layoutTarget(path.replace(/(?<=.)\/+$/, ''), reference, run.unique)
      : archiveTarget({
          path,
          imageName: reference,
          blobDir: run.scratch,
          state: run.state,
          unique: run.unique,
        });
  }
  const { registryTarget } = await import('../../convert/target-registry.ts');
  return registryTarget({
    reference: parseReference(reference),
    transport: await transportTo(ctx, plan.target, plan.plainHttp),
    blobDir: run.scratch,
    retries: plan.options.retries,
    retryDelayMs: plan.options.retryDelayMs,
    logger: ctx.log,
  });
}

async function openStore(ctx: NydusifyContext, plan: ConvertPlan, choice: BackendChoice): Promise<BlobStore> {
  const { type, config } = choice;
  if (type === 'localfs')
    return (await import('../../convert/backend/localfs-store.ts')).localfsStore(config);
  const [{ objectStore }, { openBackendChoice }, { environmentProxy }] = await Promise.all([
    import('../../convert/backend/object-store.ts'),
    import('./open-backend.ts'),
    import('../../registry/environment-proxy.ts'),
  ]);
  // the keys are those of nydusd, which checks them
  await openBackendChoice(choice, ctx.log).close();
  const { retries, retryDelayMs } = plan.options;
  return objectStore({
    type: type === 's3' ? 's3' : 'oss',
    config,
    retries,
    retryDelayMs,
    proxyFor: environmentProxy(ctx.env),
    logger: ctx.log,
  });
}

async function openTarget(ctx: NydusifyContext, plan: ConvertPlan, run: RunDirectory): Promise<ImageTarget> {
  if (plan.backend === undefined) return openImageTarget(ctx, plan, run);
  const store = await openStore(ctx, plan, plan.backend);
  try {
    const { backendTarget } = await import('../../convert/backend/backend-target.ts');
    return backendTarget(await openImageTarget(ctx, plan, run), store, plan.backendForcePush);
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function reversed(
  { platforms }: ConvertOptions,
  compression: 'gzip' | 'zstd',
  source: ImageSource,
  target: ImageTarget,
  context: ReverseContext,
  metrics: ConvertMetrics,
): Promise<Descriptor> {
  const { reverseImage } = await import('../../convert/reverse/reverse.ts');
  return reverseImage({ platforms, compression }, source, target, context, metrics);
}

async function convert(
  ctx: NydusifyContext,
  plan: ConvertPlan,
  metrics: ConvertMetrics,
  run: RunDirectory,
): Promise<void> {
  const source = await openSource(ctx, plan);
  try {
    if (run.state.size > 0) ctx.log.info(`going on with an earlier run: ${run.state.size} layers are done`);
    const target = await openTarget(ctx, plan, run);
    const view = await openConvertView(ctx, plan.progress);
    try {
      const context = {
        logger: ctx.log,
        signal: ctx.signal,
        progress: view.update,
        workDir: run.scratch,
        state: run.state,
      };
      const root = await (plan.reverse === undefined
        ? withAids(ctx, plan, run, (aids) =>
            convertImage(plan.options, source, target, context, metrics, aids),
          )
        : reversed(plan.options, plan.reverse, source, target, context, metrics));
      ctx.log.debug(`published ${root.digest} as ${plan.target.reference} in ${target.name}`);
    } finally {
      view.stop();
      run.keep = target.keeps;
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Names a conversion: two runs of one name build the same blobs for the same target. Holds no secrets. */
function conversionKey(plan: ConvertPlan): string {
  const { version, compressor, chunkSize, batchSize, alignedChunk } = plan.options;
  const { package_ver: builder, git_commit: commit } = versionInfo();
  const target = plan.target.path === undefined ? plan.target.reference : resolve(plan.target.path);
  const { bucket_name: bucket, endpoint, object_prefix: prefix, dir } = plan.backend?.config ?? {};
  const backend = [plan.backend?.type, bucket, endpoint, prefix, dir];
  const how = { version, compressor, chunkSize, batchSize, alignedChunk, outside: plan.builder };
  return JSON.stringify({ builder, commit, target, backend, how });
}

/** Where a conversion writes, by its flags. */
function placesOf({ workDir, target, backend }: ConvertPlan): Record<string, string> {
  const dir = backend?.config['dir'];
  return {
    ...(target.path === undefined ? {} : { '--target-archive': target.path }),
    ...(typeof dir === 'string' ? { '--backend-config': dir } : {}),
    '--work-dir': workDir,
  };
}

/** @returns exit status */
export async function runConvert(ctx: NydusifyContext): Promise<number> {
  const plan = checkConvert(ctx.values);
  if (plan.patternsFromStdin) plan.options.prefetchPatterns = await readPrefetchList(ctx, 'fs', ctx.log);
  const metrics = newMetrics();
  const used = { cache: plan.cache !== undefined, dictionary: plan.chunkDict !== undefined };
  try {
    await withResumableDir(plan.workDir, conversionKey(plan), ctx.log, (run) =>
      convert(ctx, plan, metrics, run),
    );
  } catch (error) {
    throw explainDiskError(error, placesOf(plan));
  } finally {
    if (plan.outputJson !== undefined) {
      await writeWholeFile(plan.outputJson, Buffer.from(JSON.stringify(metricsDocument(metrics, used))));
    }
  }
  return 0;
}
