// One source layer becomes one nydus blob: data, compression information and the layer's own bootstrap in one stream,
// which goes to a file or straight to where blobs are pushed.
// Source: nydus-image-and-nydusify.md 6 (pack tar, normal), 7.2; blob-and-cache.md 3.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { fileTarget, type ByteTarget } from '../build/blob-output.ts';
import { createImage } from '../build/create.ts';
import type { BuildProgress, CreateOptions } from '../build/options.ts';
import type { WorkerPool } from '../build/pool.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import type { ExternalBuilder } from './external-builder.ts';
import { loadInlineBootstrap } from '../rafs/open-inline.ts';
import { drain, type LayerInput } from './source.ts';
import type { BlobStreamTarget } from './target.ts';

/** How blobs are built; the same for all layers of an image. */
export interface BlobOptions {
  version: 5 | 6;
  compressor: CompressorName;
  chunkSize: number;
  batchSize: number;
  alignedChunk: boolean;
  prefetchPatterns: string[];
}

/** A layer that was built. */
export interface BuiltLayer {
  /** of the whole blob */
  digest: string;
  size: number;
  /** the layer's bootstrap */
  bootstrap: Buffer;
  /** the blob; undefined when it was pushed as it was made */
  file: string | undefined;
  /** what a chunk dictionary saved */
  saved: { chunks: number; bytes: number };
}

export interface LayerContext {
  logger: Logger;
  signal: AbortSignal;
  progress: (event: BuildProgress) => void;
  /** where blobs are built that do not go out as they are made */
  blobDir: string;
  /** workers for all layers */
  pool: WorkerPool | undefined;
  /** path of the bootstrap of a chunk dictionary */
  chunkDict: string | undefined;
  /** builds in place of this process */
  builder: ExternalBuilder | undefined;
}

/** What `create` is asked for a layer. Source: nydus-image-and-nydusify.md 6. */
export function layerOptions(options: BlobOptions, chunkDict: string | undefined): CreateOptions {
  return {
    source: 'layer',
    type: 'tar-rafs',
    ...options,
    alignedChunk: options.alignedChunk || options.version === 6,
    digester: 'blake3',
    // marker files stay entries of the layer: the merge resolves them
    whiteoutSpec: 'none',
    runtimeLinks: true,
    prefetchPolicy: 'fs',
    repeatable: false,
    blobToc: options.version === 6,
    inlineMeta: true,
    blobId: undefined,
    blobOffset: 0,
    blob: undefined,
    blobDir: undefined,
    blobCacheDir: undefined,
    bootstrap: undefined,
    parentBootstrap: undefined,
    chunkDict,
    threads: 0,
  };
}

/** Counts what goes to another target. */
class CountedTarget implements ByteTarget {
  readonly #inner: ByteTarget;
  size = 0;

  constructor(inner: ByteTarget) {
    this.#inner = inner;
  }

  write(parts: Uint8Array[]): Promise<void> {
    for (const part of parts) this.size += part.length;
    return this.#inner.write(parts);
  }

  publish(name: string | undefined): Promise<void> {
    return this.#inner.publish(name);
  }

  discard(): Promise<void> {
    return this.#inner.discard();
  }
}

/** Pass chunks through, and say when all of them came: only then were they verified. */
async function* tracked(chunks: AsyncIterable<Uint8Array>, onEnd: () => void): AsyncGenerator<Uint8Array> {
  yield* chunks;
  onEnd();
}

/** Give the layer to `read`; when that is through, all of the layer has been verified. */
export async function readVerified<T>(
  layer: LayerInput,
  signal: AbortSignal,
  read: (chunks: AsyncIterable<Uint8Array>) => Promise<T>,
): Promise<T> {
  let complete = false;
  const input = tracked(layer.open(signal), () => (complete = true));
  let result: T;
  try {
    result = await read(input);
  } catch (error) {
    // bytes that changed on the way break a format, too: then that is the better explanation
    if (error instanceof FormatError && !signal.aborted) await drain(layer.open(signal));
    throw error;
  }
  // a decoder stops at the end of its stream, bytes behind it are still the layer's
  if (!complete) await drain(layer.open(signal));
  return result;
}

/**
 * Build a layer.
 *
 * @param name what the layer's files are called while it is in work; unique in this run
 * @param stream takes the blob as it is made; undefined: it becomes a file in `blobDir`
 * @throws IntegrityError the layer's bytes are not what its descriptor says
 * @throws FormatError    they are no tar
 * @throws RegistryError  source or stream failed
 */
export async function buildLayer(
  layer: LayerInput,
  name: string,
  options: BlobOptions,
  context: LayerContext,
  stream?: BlobStreamTarget,
): Promise<BuiltLayer> {
  const { signal, logger, progress, blobDir, pool, chunkDict } = context;
  const file = join(blobDir, `${name}.blob`);
  const build = async (output: ByteTarget): Promise<Pick<BuiltLayer, 'digest' | 'bootstrap' | 'saved'>> => {
    const { inlineBootstrap, foreign, wholeDigest } = await readVerified(layer, signal, (input) =>
      createImage(layerOptions(options, chunkDict), { logger, signal, progress }, { input, output, pool }),
    );
    if (inlineBootstrap === undefined || wholeDigest === undefined)
      throw new FormatError({ struct: 'layer' }, 'was built without a bootstrap');
    const digest = `sha256:${wholeDigest}`;
    return { digest, bootstrap: inlineBootstrap, saved: foreign ?? { chunks: 0, bytes: 0 } };
  };
  if (context.builder !== undefined) return buildOutside(layer, file, options, context, context.builder);
  if (stream !== undefined) {
    try {
      const built = await build({
        write: (parts) => stream.write(parts),
        publish: () => Promise.resolve(),
        discard: () => Promise.resolve(),
      });
      const { size } = await stream.finish(built.digest);
      return { ...built, size, file: undefined };
    } catch (error) {
      await stream.cancel();
      throw error;
    }
  }
  const target = new CountedTarget(await fileTarget(file));
  try {
    const built = await build(target);
    return { ...built, size: target.size, file };
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
}

/** Build with another program, and take out of the blob what it made. */
async function buildOutside(
  layer: LayerInput,
  file: string,
  options: BlobOptions,
  { signal, chunkDict }: LayerContext,
  builder: ExternalBuilder,
): Promise<BuiltLayer> {
  try {
    await readVerified(layer, signal, (input) => builder.buildLayer(input, file, options, chunkDict, signal));
    const hash = createHash('sha256');
    let size = 0;
    const bytes = createReadStream(file, { highWaterMark: 1024 * 1024, signal });
    for await (const chunk of bytes as AsyncIterable<Buffer>) {
      hash.update(chunk);
      size += chunk.length;
    }
    const bootstrap = await readBootstrap(file, size);
    return { digest: `sha256:${hash.digest('hex')}`, size, bootstrap, file, saved: { chunks: 0, bytes: 0 } };
  } catch (error) {
    await rm(file, { force: true });
    throw error;
  }
}

async function readBootstrap(blob: string, size: number): Promise<Buffer> {
  const file = await open(blob, 'r');
  try {
    const { bytes } = await loadInlineBootstrap(async (start, end) => {
      const part = Buffer.alloc(end - start);
      const { bytesRead } = await file.read(part, 0, part.length, start);
      return part.subarray(0, bytesRead);
    }, size);
    return Buffer.from(bytes);
  } finally {
    await file.close();
  }
}
