// The conversion of an image: layers become blobs side by side and go to the target as they are ready, then each
// platform's layers are merged. Source: nydus-image-and-nydusify.md 7, 9.1.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { newBuildPool } from '../build/create.ts';
import { mergeImages } from '../build/merge.ts';
import type { WorkerPool } from '../build/pool.ts';
import { writeBootstrapLayer } from './bootstrap-layer.ts';
import { Gate } from './gate.ts';
import { LayerConverter, type ConvertedLayer, type RetryOptions } from './layer-converter.ts';
import { layerOptions, type BlobOptions } from './layer.ts';
import { imageDocuments, indexDocument, type ManifestOptions } from './manifest.ts';
import { hexOf, type Descriptor } from './oci.ts';
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
  | { event: 'done'; digest: string; mediaType: string; size: number };

export interface ConvertOptions
  extends BlobOptions, RetryOptions, Pick<ManifestOptions, 'oci' | 'withReferrer' | 'sourceReference'> {
  /** undefined = all */
  platforms: PlatformSpec[] | undefined;
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
  };
}

class Conversion {
  readonly #options: ConvertOptions;
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #context: ConvertContext;
  readonly #metrics: ConvertMetrics;
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
  ) {
    this.#options = options;
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
      chunkDict: undefined,
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
    const { platforms, oci } = this.#options;
    const started = performance.now();
    const selection = await selectImages(this.#source, platforms, this.#context.logger, this.#signal);
    this.#metrics.sourcePullMs = performance.now() - started;
    this.#announce(selection);
    const converting = performance.now();
    const entries: { manifest: Descriptor; bytes: Buffer; image: SelectedImage }[] = [];
    for (const image of selection.images) entries.push(await this.#convertImage(image));
    this.#metrics.conversionMs = performance.now() - converting;
    const [only] = entries;
    const root =
      entries.length === 1 && only !== undefined
        ? { bytes: only.bytes, descriptor: only.manifest }
        : indexDocument(
            entries.map(({ manifest, image }) => ({ manifest, platform: image.platform })),
            selection.indexType,
            oci,
          );
    if (entries.length > 1) {
      for (const { bytes, manifest } of entries) {
        await this.#timedPut(() => this.#target.putDocument(bytes, manifest, this.#signal));
      }
    }
    await this.#timedPut(() => this.#target.finish(root.bytes, root.descriptor, this.#signal));
    const { digest, mediaType } = root.descriptor;
    this.#context.progress({ event: 'done', digest, mediaType, size: this.#metrics.targetImageSize });
    return root.descriptor;
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

  async #convertImage(
    image: SelectedImage,
  ): Promise<{ manifest: Descriptor; bytes: Buffer; image: SelectedImage }> {
    const { workDir, logger, progress } = this.#context;
    const { version, prefetchPatterns } = this.#options;
    const layers = await Promise.all(image.manifest.layers.map((layer) => this.#layer(layer)));
    progress({
      event: 'merge',
      platform: image.platform === undefined ? 'unknown' : showPlatform(image.platform),
    });
    const name = hexOf(image.descriptor.digest);
    const merged = join(workDir, `${name}.merged`);
    const result = await mergeImages(
      {
        sources: layers.map((layer) => layer.bootstrap),
        bootstrap: merged,
        blobDir: undefined,
        parentBootstrap: undefined,
        chunkDict: undefined,
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
    const blobs = layers.map((layer) => layer.descriptor);
    const stray = result.blobs.find((id) => !blobs.some((blob) => hexOf(blob.digest) === id));
    if (stray !== undefined)
      throw new FormatError(
        { struct: 'bootstrap', field: 'blobs' },
        `names blob ${stray}, which no layer has`,
      );
    const file = join(this.#target.blobDir, `${name}.bootstrap`);
    const bootstrap = await writeBootstrapLayer(merged, file, this.#signal);
    await rm(merged);
    const { config, manifest } = imageDocuments(image, blobs, bootstrap, { ...this.#options, version });
    const { digest, size } = bootstrap;
    await this.#timedPut(async () => {
      await this.#target.putFile(file, { mediaType: 'application/gzip', digest, size }, this.#signal);
      await this.#target.putDocument(config.bytes, config.descriptor, this.#signal);
    });
    this.#metrics.targetImageSize += size + config.descriptor.size;
    return { manifest: manifest.descriptor, bytes: manifest.bytes, image };
  }
}

/**
 * Convert an image. The caller closes source and target afterwards, also when this fails.
 *
 * @param metrics filled in as work goes on
 * @returns descriptor of what was published: a manifest, or an index for several platforms
 * @throws UsageError, FormatError, IntegrityError, or the reason of the context's signal
 */
export function convertImage(
  options: ConvertOptions,
  source: ImageSource,
  target: ImageTarget,
  context: ConvertContext,
  metrics: ConvertMetrics = newMetrics(),
): Promise<Descriptor> {
  return new Conversion(options, source, target, context, metrics).run();
}
