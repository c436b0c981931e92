// The conversion of an image: layers become blobs side by side and go to the target as they are ready, then each
// platform's layers are merged. Source: nydus-image-and-nydusify.md 7, 9.1.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { mergeImages } from '../build/merge.ts';
import { writeBootstrapLayer } from './bootstrap-layer.ts';
import { convertLayer, type BlobOptions, type ConvertedLayer, type LayerContext } from './layer.ts';
import { imageDocuments, indexDocument, type ManifestOptions } from './manifest.ts';
import { hexOf, type Descriptor } from './oci.ts';
import { showPlatform, type PlatformSpec } from './platform.ts';
import { selectImages, type SelectedImage, type Selection } from './select.ts';
import type { ImageSource } from './source.ts';
import type { ImageTarget } from './target.ts';

/**
 * Layers in work at a time. Each holds one thread of libuv's pool of four while it waits for its source; the others
 * must go on reading and writing. Workers of a build use all cores already.
 */
const LAYERS_AT_ONCE = 2;

/** What happens, for progress displays and `--progress json`. Sizes are bytes, as stored. */
export type ConvertEvent =
  | { event: 'image'; platform: string; digest: string; layers: number; size: number }
  | { event: 'layer'; state: 'converting' | 'pushing'; digest: string; done: number; size: number }
  | { event: 'layer'; state: 'done'; digest: string; size: number; target: string; targetSize: number }
  | { event: 'merge'; platform: string }
  | { event: 'done'; digest: string; mediaType: string; size: number };

export interface ConvertOptions
  extends BlobOptions, Pick<ManifestOptions, 'oci' | 'withReferrer' | 'sourceReference'> {
  /** undefined = all */
  platforms: PlatformSpec[] | undefined;
}

export interface ConvertContext {
  logger: Logger;
  signal: AbortSignal;
  progress: (event: ConvertEvent) => void;
  /** an empty directory of this run */
  workDir: string;
}

/** Sizes in bytes, times in milliseconds; filled in as work goes on, also when it fails. */
export interface ConvertMetrics {
  sourceImageSize: number;
  targetImageSize: number;
  sourcePullMs: number;
  conversionMs: number;
  targetPushMs: number;
}

export function newMetrics(): ConvertMetrics {
  return { sourceImageSize: 0, targetImageSize: 0, sourcePullMs: 0, conversionMs: 0, targetPushMs: 0 };
}

/** Lets `width` works run at a time. */
class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(width: number) {
    this.#free = width;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}

class Conversion {
  readonly #options: ConvertOptions;
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #context: ConvertContext;
  readonly #metrics: ConvertMetrics;
  readonly #gate = new Gate(LAYERS_AT_ONCE);
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
    const work = this.#gate.run(() => this.#convertAndPut(layer, before));
    if (this.#target.ordered) this.#lastPut = work.catch(() => {});
    this.#layers.set(layer.digest, work);
    work.catch((error: unknown) => this.#stop.abort(error));
    return work;
  }

  async #convertAndPut(layer: Descriptor, before: Promise<unknown>): Promise<ConvertedLayer> {
    const { digest, size } = layer;
    const { progress } = this.#context;
    this.#signal.throwIfAborted();
    progress({ event: 'layer', state: 'converting', digest, done: 0, size });
    const converted = await this.#convertLayer(layer);
    await before;
    const { descriptor, file } = converted;
    progress({ event: 'layer', state: 'pushing', digest, done: 0, size: descriptor.size });
    await this.#timedPut(() => this.#target.putFile(file, descriptor, this.#signal));
    this.#metrics.targetImageSize += descriptor.size;
    progress({
      event: 'layer',
      state: 'done',
      digest,
      size,
      target: descriptor.digest,
      targetSize: descriptor.size,
    });
    return converted;
  }

  async #convertLayer(layer: Descriptor): Promise<ConvertedLayer> {
    const { digest, size } = layer;
    const { logger, workDir, progress } = this.#context;
    const context: LayerContext = {
      logger,
      signal: this.#signal,
      workDir,
      blobDir: this.#target.blobDir,
      progress: ({ phase, bytes }) => {
        if (phase === 'data') progress({ event: 'layer', state: 'converting', digest, done: bytes, size });
      },
    };
    try {
      return await convertLayer(this.#source.layer(layer), hexOf(digest), this.#options, context);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      throw new FormatError({ struct: `layer ${digest}` }, messageOf(error), { cause: error });
    }
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
