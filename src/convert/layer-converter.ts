// Layers on their way into the target: taken from an earlier run, or built and pushed, again when that fails in a way
// that may pass. Source: nydus-image-and-nydusify.md 9.1.
import { FormatError, IntegrityError, messageOf, RegistryError } from '../base/errors.ts';
import type { WorkerPool } from '../build/pool.ts';
import { backoff, pause } from '../registry/retry.ts';
import { isLostUpload } from '../registry/upload.ts';
import { blobDescriptor } from './blob-descriptor.ts';
import type { BuildCache } from './build-cache.ts';
import type { ConvertContext, ConvertMetrics } from './convert.ts';
import type { Dictionary } from './dictionary.ts';
import { isExhausted } from './exhausted.ts';
import type { ExternalBuilder } from './external-builder.ts';
import { buildLayer, type BlobOptions, type BuiltLayer, type LayerContext } from './layer.ts';
import { hexOf, type Descriptor } from './oci.ts';
import type { ImageSource } from './source.ts';
import type { BlobStreamTarget, ImageTarget } from './target.ts';

/** Longest wait between two tries of a layer. */
const MAX_WAIT_MS = 60_000;

/** A layer of so many bytes, as stored, keeps workers busy. */
const POOL_WORTH = 2 * 1024 * 1024;

export interface RetryOptions {
  /** times that a failed push is tried again */
  retries: number;
  /** wait before the first of them; it doubles */
  retryDelayMs: number;
}

/** A layer that is in the target. */
export interface ConvertedLayer {
  /** as the manifest lists it */
  descriptor: Descriptor;
  /** path of the layer's bootstrap, named by the digest of the blob: a merge takes blob ids from file names */
  bootstrap: string;
}

export interface LayerParts {
  options: BlobOptions & RetryOptions;
  source: ImageSource;
  target: ImageTarget;
  context: ConvertContext;
  metrics: ConvertMetrics;
  signal: AbortSignal;
  pool: WorkerPool;
  dictionary: Dictionary | undefined;
  cache: BuildCache | undefined;
  builder: ExternalBuilder | undefined;
}

/** True when a registry does not take blobs in chunks: it may take them whole. */
function refusesChunks(error: unknown): boolean {
  if (!(error instanceof RegistryError) || error.retryable || isLostUpload(error)) return false;
  const { status, answer } = error;
  return status >= 400 && ![401, 403, 429].includes(status) && /\/blobs\/uploads\//.test(answer.url);
}

export class LayerConverter {
  readonly #parts: LayerParts;
  /** blobs are built as files, because the target did not take one in chunks */
  #asFiles = false;

  constructor(parts: LayerParts) {
    this.#parts = parts;
  }

  /**
   * Convert a layer and put it.
   *
   * @param before the put before, where the target wants them in order
   */
  async convert(layer: Descriptor, before: Promise<unknown>): Promise<ConvertedLayer> {
    const { signal } = this.#parts;
    signal.throwIfAborted();
    const known = (await this.#resumed(layer, before)) ?? (await this.#cached(layer, before));
    if (known !== undefined) return known;
    for (let failed = 1; ; failed++) {
      try {
        return await this.#convertOnce(layer, before);
      } catch (error) {
        signal.throwIfAborted();
        const wait = this.#waitAfter(error, failed);
        if (wait === undefined) throw this.#named(layer, error);
        const { logger } = this.#parts.context;
        logger.warn(`layer ${layer.digest} failed: ${messageOf(error)}; again in ${Math.round(wait)} ms`);
        await pause(wait, signal);
      }
    }
  }

  /** Milliseconds until the next try; undefined: it would fail again. */
  #waitAfter(error: unknown, failed: number): number | undefined {
    const { options, source } = this.#parts;
    if (refusesChunks(error) && !this.#asFiles) {
      this.#asFiles = true;
      return 0;
    }
    const odd = error instanceof IntegrityError || error instanceof FormatError;
    // the bytes may have changed on the way: one more look tells
    if (odd) return source.remote && failed === 1 ? 0 : undefined;
    if (!(error instanceof RegistryError) || !(error.retryable || isLostUpload(error))) return undefined;
    if (failed > options.retries || isExhausted(error)) return undefined;
    return error.retryAfterMs ?? backoff(failed, options.retryDelayMs, MAX_WAIT_MS, Math.random());
  }

  #named(layer: Descriptor, error: unknown): unknown {
    if (!(error instanceof FormatError)) return error;
    return new FormatError({ struct: `layer ${layer.digest}` }, messageOf(error), { cause: error });
  }

  get #wantsFile(): boolean {
    return this.#asFiles || this.#parts.builder !== undefined;
  }

  get #variant(): string {
    return this.#parts.dictionary?.digest ?? '';
  }

  /** The layer as the build cache has it. */
  async #cached(layer: Descriptor, before: Promise<unknown>): Promise<ConvertedLayer | undefined> {
    const { cache, context, target, options, signal } = this.#parts;
    const record = cache?.find(layer.digest);
    if (cache === undefined || record === undefined) return undefined;
    const descriptor = blobDescriptor(record.blob.digest, record.blob.size);
    try {
      const bytes = await cache.bootstrap(record.blob, options, signal);
      await before;
      await this.#timed(() => target.copyBlob(descriptor, cache.input(record.blob), cache.reference, signal));
      const bootstrap = await context.state.keepBootstrap(descriptor.digest, bytes);
      await this.#note(layer, descriptor);
      this.#parts.metrics.cachedLayers++;
      this.#parts.metrics.cachedBytes += layer.size;
      this.#finished(layer, descriptor, 'cached');
      return { descriptor, bootstrap };
    } catch (error) {
      signal.throwIfAborted();
      const known = [RegistryError, FormatError, IntegrityError].some((kind) => error instanceof kind);
      if (!known) throw error;
      context.logger.warn(`layer ${layer.digest} is built anew: ${messageOf(error)}`);
      return undefined;
    }
  }

  #note(layer: Descriptor, { digest, size }: Descriptor): Promise<void> {
    return this.#parts.context.state.add({ source: layer.digest, variant: this.#variant, digest, size });
  }

  /** The layer as an earlier run left it. */
  async #resumed(layer: Descriptor, before: Promise<unknown>): Promise<ConvertedLayer | undefined> {
    const { context, target, signal } = this.#parts;
    const done = await context.state.find(layer.digest, this.#variant);
    if (done === undefined) return undefined;
    const descriptor = blobDescriptor(done.digest, done.size);
    if (!(await target.has(descriptor, signal))) return undefined;
    await before;
    this.#finished(layer, descriptor, 'resumed');
    return { descriptor, bootstrap: done.bootstrap };
  }

  async #convertOnce(layer: Descriptor, before: Promise<unknown>): Promise<ConvertedLayer> {
    const { target, signal, context } = this.#parts;
    const { digest, size } = layer;
    context.progress({ event: 'layer', state: 'converting', digest, done: 0, size });
    // workers take a moment to start: they do it while the first bytes come
    if (size >= POOL_WORTH && this.#parts.builder === undefined) this.#parts.pool.start();
    const built = await this.#build(layer, this.#wantsFile ? undefined : await target.openBlob(signal, true));
    const descriptor = blobDescriptor(built.digest, built.size);
    if (built.file !== undefined) {
      await before;
      context.progress({ event: 'layer', state: 'pushing', digest, done: 0, size: built.size });
      await this.#timed(() => target.putFile(built.file as string, descriptor, signal));
    }
    const bootstrap = await context.state.keepBootstrap(built.digest, built.bootstrap);
    await this.#note(layer, descriptor);
    this.#parts.metrics.dictionaryChunks += built.saved.chunks;
    this.#parts.metrics.dictionaryBytes += built.saved.bytes;
    this.#finished(layer, descriptor, 'built');
    return { descriptor, bootstrap };
  }

  #build(layer: Descriptor, stream: BlobStreamTarget | undefined): Promise<BuiltLayer> {
    const { options, source, target, context, signal, pool, dictionary, builder } = this.#parts;
    const { digest, size } = layer;
    const layerContext: LayerContext = {
      logger: context.logger,
      signal,
      blobDir: target.blobDir,
      pool,
      chunkDict: dictionary?.bootstrap,
      builder,
      progress: ({ phase, bytes }) => {
        if (phase === 'data')
          context.progress({
            event: 'layer',
            state: 'converting',
            digest,
            done: Math.min(bytes, size),
            size,
          });
      },
    };
    const timed: BlobStreamTarget | undefined =
      stream === undefined
        ? undefined
        : {
            write: (parts) => this.#timed(() => stream.write(parts)),
            finish: (known) => this.#timed(() => stream.finish(known)),
            cancel: () => stream.cancel(),
          };
    return buildLayer(source.layer(layer), hexOf(digest), options, layerContext, timed);
  }

  #finished(layer: Descriptor, blob: Descriptor, how: 'built' | 'resumed' | 'cached'): void {
    const { metrics, context } = this.#parts;
    metrics.targetImageSize += blob.size;
    const { digest, size } = layer;
    if (how === 'resumed') metrics.resumedLayers++;
    const [target, targetSize] = [blob.digest, blob.size];
    context.progress({ event: 'layer', state: 'done', digest, size, target, targetSize, how });
  }

  async #timed<T>(put: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await put();
    } finally {
      this.#parts.metrics.targetPushMs += performance.now() - started;
    }
  }
}
