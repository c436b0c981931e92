// The conversion of an image: layers become blobs side by side and go to the target as they are ready, then each
// platform's layers are merged. Source: nydus-image-and-nydusify.md 7, 9.1.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError, UsageError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { DictionaryError } from '../build/chunk-dict.ts';
import { newBuildPool } from '../build/create.ts';
import { mergeImages } from '../build/merge.ts';
import type { WorkerPool } from '../build/pool.ts';
import { blobDescriptor } from './blob-descriptor.ts';
import { writeBootstrapLayer } from './bootstrap-layer.ts';
import type { BuildCache, CacheRecord } from './build-cache.ts';
import type { Dictionary } from './dictionary.ts';
import type { ExternalBuilder } from './external-builder.ts';
import { Gate } from './gate.ts';
import { LayerConverter, type ConvertedLayer, type RetryOptions } from './layer-converter.ts';
import { layerOptions, type BlobOptions } from './layer.ts';
import { imageDocuments, indexDocument, type ManifestOptions } from './manifest.ts';
import { nydusEntry, rewriteSource } from './merged-index.ts';
import { document, hexOf, MediaType, type Descriptor } from './oci.ts';
import { showPlatform, type PlatformSpec } from './platform.ts';
import { selectImages, type SelectedImage, type Selection } from './select.ts';
import type { ImageSource } from './source.ts';
import type { ConvertState } from './state.ts';
import type { ImageTarget } from './target.ts';

/** Layers in work at a time: while one waits for the network the others keep the cores busy; each takes some 40 MB. */
const LAYERS_AT_ONCE = 3;

/** What happens, for progress displays and `--progress json`. Sizes are bytes, as stored. */
export type ConvertEvent =
  | { event: 'image'; platform: string; digest: string; layers: number; size: number }
  | { event: 'layer'; state: 'converting' | 'pushing'; digest: string; done: number; size: number }
  | {
      event: 'layer';
      state: 'done';
      digest: string;
      size: number;
      target: string;
      targetSize: number;
      /** built now, or there from an earlier run or in the build cache */
      how: 'built' | 'resumed' | 'cached';
    }
  | { event: 'merge'; platform: string }
  /** what build cache and chunk dictionary spared; bytes of source layers and of plain chunks */
  | {
      event: 'saved';
      cachedLayers: number;
      cachedBytes: number;
      dictionaryChunks: number;
      dictionaryBytes: number;
    }
  | { event: 'done'; digest: string; mediaType: string; size: number };

export interface ConvertOptions
  extends BlobOptions, RetryOptions, Pick<ManifestOptions, 'oci' | 'withReferrer' | 'sourceReference'> {
  /** undefined = all */
  platforms: PlatformSpec[] | undefined;
  /** one index of source and converted images */
  mergePlatform: boolean;
}

/** Other images that a conversion makes use of. */
export interface ConvertAids {
  dictionary?: Dictionary | undefined;
  cache?: BuildCache | undefined;
  /** another builder */
  builder?: ExternalBuilder | undefined;
}

export interface ConvertContext {
  logger: Logger;
  signal: AbortSignal;
  progress: (event: ConvertEvent) => void;
  /** a directory of this run */
  workDir: string;
  /** what an earlier run left, and what this one leaves */
  state: ConvertState;
}

/** Sizes in bytes, times in milliseconds; filled in as work goes on, also when it fails. */
export interface ConvertMetrics {
  sourceImageSize: number;
  targetImageSize: number;
  sourcePullMs: number;
  conversionMs: number;
  targetPushMs: number;
  /** layers that an earlier run had done */
  resumedLayers: number;
  /** chunks that a dictionary has, and their plain bytes */
  dictionaryChunks: number;
  dictionaryBytes: number;
  /** layers that the build cache had, and their size in the source */
  cachedLayers: number;
  cachedBytes: number;
}

export function newMetrics(): ConvertMetrics {
  return {
    sourceImageSize: 0,
    targetImageSize: 0,
    sourcePullMs: 0,
    conversionMs: 0,
    targetPushMs: 0,
    resumedLayers: 0,
    dictionaryChunks: 0,
    dictionaryBytes: 0,
    cachedLayers: 0,
    cachedBytes: 0,
  };
}

/** One platform's image, all but its manifest in the target. */
interface ConvertedImage {
  manifest: Descriptor;
  bytes: Buffer;
  image: SelectedImage;
  /** what the build cache may keep of it */
  records: CacheRecord[];
}

/** Layers that were built with different options do not go into one image; a dictionary that cannot be read has a cause. */
function doesNotFit(error: unknown): boolean {
  if (error instanceof DictionaryError) return error.cause === undefined;
  return error instanceof UsageError && error.exitCode === 2;
}

class Conversion {
  readonly #options: ConvertOptions;
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #context: ConvertContext;
  readonly #metrics: ConvertMetrics;
  readonly #aids: ConvertAids;
  readonly #gate = new Gate(LAYERS_AT_ONCE);
  readonly #pool: WorkerPool;
  readonly #converter: LayerConverter;
  /** by digest of the source layer: platforms share layers, and images repeat empty ones */
  readonly #layers = new Map<string, Promise<ConvertedLayer>>();
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** the put before, where a target wants them in order */
  #lastPut: Promise<unknown> = Promise.resolve();

  constructor(
    options: ConvertOptions,
    source: ImageSource,
    target: ImageTarget,
    context: ConvertContext,
    metrics: ConvertMetrics,
    aids: ConvertAids,
  ) {
    this.#options = options;
    this.#aids = aids;
    this.#source = source;
    this.#target = target;
    this.#context = context;
    this.#metrics = metrics;
    this.#signal = AbortSignal.any([context.signal, this.#stop.signal]);
    this.#pool = newBuildPool(layerOptions(options, undefined));
    this.#converter = new LayerConverter({
      options,
      source,
      target,
      context,
      metrics,
      signal: this.#signal,
      pool: this.#pool,
      dictionary: aids.dictionary,
      cache: aids.cache,
      builder: aids.builder,
    });
  }

  async run(): Promise<Descriptor> {
    try {
      return await this.#run();
    } catch (error) {
      // layers still in work end before their files are taken away
      this.#stop.abort(error);
      await Promise.allSettled(this.#layers.values());
      this.#context.signal.throwIfAborted();
      throw error;
    } finally {
      await this.#pool.close();
    }
  }

  async #run(): Promise<Descriptor> {
    const { platforms } = this.#options;
    const started = performance.now();
    const selection = await selectImages(this.#source, platforms, this.#context.logger, this.#signal);
    this.#metrics.sourcePullMs = performance.now() - started;
    this.#announce(selection);
    const converting = performance.now();
    const entries: ConvertedImage[] = [];
    for (const image of selection.images) entries.push(await this.#convertImage(image));
    this.#metrics.conversionMs = performance.now() - converting;
    const root = await this.#root(entries, selection.indexType);
    await this.#timedPut(() => this.#target.finish(root.bytes, root.descriptor, this.#signal));
    await this.#keepCache(entries);
    const { digest, mediaType } = root.descriptor;
    const { dictionary, cache } = this.#aids;
    const { cachedLayers, cachedBytes, dictionaryChunks, dictionaryBytes } = this.#metrics;
    if (dictionary !== undefined || cache !== undefined) {
      const saved = { cachedLayers, cachedBytes, dictionaryChunks, dictionaryBytes };
      this.#context.progress({ event: 'saved', ...saved });
    }
    this.#context.progress({ event: 'done', digest, mediaType, size: this.#metrics.targetImageSize });
    return root.descriptor;
  }

  /** What the name of the target will stand for; everything it names is put. */
  async #root(
    entries: readonly ConvertedImage[],
    indexType: string | undefined,
  ): Promise<{ bytes: Buffer; descriptor: Descriptor }> {
    const { mergePlatform, oci } = this.#options;
    const [only] = entries;
    if (entries.length === 1 && only !== undefined && !mergePlatform)
      return { bytes: only.bytes, descriptor: only.manifest };
    for (const { bytes, manifest } of entries)
      await this.#timedPut(() => this.#target.putDocument(bytes, manifest, this.#signal));
    if (!mergePlatform)
      return indexDocument(
        entries.map(({ manifest, image }) => ({ manifest, platform: image.platform })),
        indexType,
        oci,
      );
    const sources: Descriptor[] = [];
    for (const { image } of entries) sources.push(await this.#putSource(image));
    const manifests = [...sources, ...entries.map(({ manifest, image }) => nydusEntry(manifest, image))];
    return document({ schemaVersion: 2, mediaType: MediaType.ociIndex, manifests }, MediaType.ociIndex);
  }

  /** Put a source image with its layers for a merged index. */
  async #putSource(image: SelectedImage): Promise<Descriptor> {
    const target = this.#target;
    const signal = this.#signal;
    const { empty, config, manifest } = rewriteSource(image, this.#options.oci);
    await this.#timedPut(async () => {
      await target.putDocument(empty.bytes, empty.descriptor, signal);
      for (const layer of image.manifest.layers)
        await target.copyBlob(layer, this.#source.layer(layer), this.#source.reference, signal);
      await target.putDocument(config.bytes, config.descriptor, signal);
      await target.putDocument(manifest.bytes, manifest.descriptor, signal);
    });
    return manifest.descriptor;
  }

  /** Write the build cache. The image is there already: what fails here fails nothing else. */
  async #keepCache(entries: readonly ConvertedImage[]): Promise<void> {
    const { cache } = this.#aids;
    if (cache === undefined) return;
    const images = entries.map(({ image, records }) => ({ platform: image.platform, records }));
    try {
      const read = (blob: Descriptor): AsyncIterable<Uint8Array> => this.#target.read(blob, this.#signal);
      await this.#timedPut(() => cache.push(images, read, this.#target.reference, this.#signal));
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#context.logger.warn(`build cache ${cache.name} is not written: ${messageOf(error)}`);
    }
  }

  #announce(selection: Selection): void {
    const seen = new Set<string>();
    for (const { platform, descriptor, manifest } of selection.images) {
      const size = manifest.layers.reduce((sum, layer) => sum + layer.size, 0);
      this.#context.progress({
        event: 'image',
        platform: platform === undefined ? 'unknown' : showPlatform(platform),
        digest: descriptor.digest,
        layers: manifest.layers.length,
        size,
      });
      for (const part of [manifest.config, ...manifest.layers]) {
        if (!seen.has(part.digest)) this.#metrics.sourceImageSize += part.size;
        seen.add(part.digest);
      }
    }
  }

  async #timedPut<T>(put: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await put();
    } finally {
      this.#metrics.targetPushMs += performance.now() - started;
    }
  }

  /** The layer's blob, converted once and put. */
  #layer(layer: Descriptor): Promise<ConvertedLayer> {
    const known = this.#layers.get(layer.digest);
    if (known !== undefined) return known;
    const before = this.#lastPut;
    const work = this.#gate.run(() => this.#converter.convert(layer, before));
    if (this.#target.ordered) this.#lastPut = work.catch(() => {});
    this.#layers.set(layer.digest, work);
    work.catch((error: unknown) => this.#stop.abort(error));
    return work;
  }

  /** Blobs of the dictionary that an image names: they become its layers, too. */
  async #dictionaryBlobs(named: readonly string[], blobs: readonly Descriptor[]): Promise<Descriptor[]> {
    const { dictionary } = this.#aids;
    const out: Descriptor[] = [];
    for (const id of named) {
      if (blobs.some((blob) => hexOf(blob.digest) === id)) continue;
      const blob = dictionary?.blobs.find(({ digest }) => hexOf(digest) === id);
      const source = dictionary?.source;
      if (dictionary === undefined || (blob === undefined && source !== undefined))
        throw new FormatError(
          { struct: 'bootstrap', field: 'blobs' },
          `names blob ${id}, which no layer and no dictionary has`,
        );
      if (blob === undefined || source === undefined)
        throw new UsageError(
          `blob ${id} of the chunk dictionary ${dictionary.bootstrap} is nowhere to be found`,
          {
            exitCode: 1,
            hint: 'name the dictionary as bootstrap:registry:REFERENCE, then its blobs come along',
          },
        );
      const descriptor = blobDescriptor(blob.digest, blob.size);
      await this.#timedPut(() =>
        this.#target.copyBlob(descriptor, source.layer(blob), source.reference, this.#signal),
      );
      out.push(descriptor);
    }
    return out;
  }

  /** Merge layer bootstraps. @returns ids of the blobs that the result names */
  async #merge(layers: readonly Promise<ConvertedLayer>[], bootstrap: string): Promise<string[]> {
    const { prefetchPatterns } = this.#options;
    const { logger } = this.#context;
    const { builder, dictionary } = this.#aids;
    const sources = layers.map(async (layer) => (await layer).bootstrap);
    // a merge ends at the first layer that failed
    for (const source of sources) source.catch(() => {});
    if (builder !== undefined)
      return builder.merge(
        await Promise.all(sources),
        bootstrap,
        dictionary?.bootstrap,
        prefetchPatterns,
        this.#signal,
      );
    const result = await mergeImages(
      {
        sources,
        bootstrap,
        blobDir: undefined,
        parentBootstrap: undefined,
        chunkDict: this.#aids.dictionary?.bootstrap,
        prefetchPolicy: 'fs',
        prefetchPatterns,
        blobDigests: undefined,
        originalBlobIds: undefined,
        blobSizes: undefined,
        blobTocDigests: undefined,
        blobTocSizes: undefined,
        trustIds: false,
      },
      { logger, signal: this.#signal, progress: () => {} },
    );
    return result.blobs;
  }

  async #convertImage(image: SelectedImage): Promise<ConvertedImage> {
    const { workDir, progress } = this.#context;
    const { version } = this.#options;
    const works = image.manifest.layers.map((layer) => this.#layer(layer));
    const name = hexOf(image.descriptor.digest);
    const merged = join(workDir, `${name}.merged`);
    // lower layers are merged while the upper ones are still built
    const merging = this.#merge(works, merged);
    // what it ran into is told when it is waited for
    merging.catch(() => {});
    const layers = await Promise.all(works);
    progress({
      event: 'merge',
      platform: image.platform === undefined ? 'unknown' : showPlatform(image.platform),
    });
    const named = await merging;
    const blobs = layers.map((layer) => layer.descriptor);
    const more = await this.#dictionaryBlobs(named, blobs);
    const file = join(this.#target.blobDir, `${name}.bootstrap`);
    const bootstrap = await writeBootstrapLayer(merged, file, this.#signal);
    await rm(merged);
    const { config, manifest } = imageDocuments(image, [...blobs, ...more], bootstrap, {
      ...this.#options,
      version,
      blobsElsewhere: this.#target.blobsElsewhere,
      merged: this.#options.mergePlatform,
    });
    const { digest, size } = bootstrap;
    await this.#timedPut(async () => {
      await this.#target.putFile(file, { mediaType: 'application/gzip', digest, size }, this.#signal);
      await this.#target.putDocument(config.bytes, config.descriptor, this.#signal);
    });
    this.#metrics.targetImageSize += size + config.descriptor.size;
    const records = image.manifest.layers.map(({ digest: source }, i) => ({
      source,
      blob: blobs[i] as Descriptor,
    }));
    return { manifest: manifest.descriptor, bytes: manifest.bytes, image, records };
  }
}

/**
 * Convert an image. The caller closes source and target afterwards, also when this fails.
 *
 * @param metrics filled in as work goes on
 * @returns descriptor of what was published: a manifest, or an index for several platforms
 * @throws UsageError, FormatError, IntegrityError, or the reason of the context's signal
 */
export async function convertImage(
  options: ConvertOptions,
  source: ImageSource,
  target: ImageTarget,
  context: ConvertContext,
  metrics: ConvertMetrics = newMetrics(),
  aids: ConvertAids = {},
): Promise<Descriptor> {
  try {
    return await new Conversion(options, source, target, context, metrics, aids).run();
  } catch (error) {
    const aided = aids.cache !== undefined || aids.dictionary !== undefined;
    if (!aided || !doesNotFit(error)) throw error;
    context.logger.warn(
      `${messageOf(error)}: converting once more, without build cache and chunk dictionary`,
    );
    Object.assign(metrics, newMetrics());
    return new Conversion(options, source, target, context, metrics, { builder: aids.builder }).run();
  }
}
