// One source layer becomes one nydus blob: data, compression information and the layer's own bootstrap in one file.
// Source: nydus-image-and-nydusify.md 6 (pack tar, normal), 7.2; blob-and-cache.md 3.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '../base/log.ts';
import { createImage } from '../build/create.ts';
import type { BuildProgress } from '../build/options.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import { makeFifo } from '../native/fifo.ts';
import { loadInlineBootstrap } from '../rafs/open-inline.ts';
import { feedFifo, retireFifo } from './fifo-feed.ts';
import { Annotation, MediaType, type Descriptor } from './oci.ts';
import { drain, type LayerInput } from './source.ts';

/** How blobs are built; the same for all layers of an image. */
export interface BlobOptions {
  version: 5 | 6;
  compressor: CompressorName;
  chunkSize: number;
  batchSize: number;
  alignedChunk: boolean;
  prefetchPatterns: string[];
}

/** A converted layer. */
export interface ConvertedLayer {
  /** as the manifest lists it */
  descriptor: Descriptor;
  /** the blob; whoever takes the layer moves or removes it */
  file: string;
  /** the layer's bootstrap, named by the digest of the blob: a merge takes blob ids from file names */
  bootstrap: string;
}

export interface LayerContext {
  logger: Logger;
  signal: AbortSignal;
  progress: (event: BuildProgress) => void;
  /** where blobs are built */
  blobDir: string;
  /** where layer bootstraps and pipes are */
  workDir: string;
}

async function digestFile(path: string, signal: AbortSignal): Promise<{ hex: string; size: number }> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of createReadStream(path, {
    highWaterMark: 1024 * 1024,
    signal,
  }) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { hex: hash.digest('hex'), size };
}

async function extractBootstrap(blob: string, size: number, to: string): Promise<void> {
  const file = await open(blob, 'r');
  try {
    const { bytes } = await loadInlineBootstrap(async (start, end) => {
      const part = Buffer.alloc(end - start);
      const { bytesRead } = await file.read(part, 0, part.length, start);
      return part.subarray(0, bytesRead);
    }, size);
    await writeFile(to, bytes);
  } finally {
    await file.close();
  }
}

/** Run build and feed together: the first failure ends the other, and is what the caller sees. */
async function together(
  build: (signal: AbortSignal) => Promise<unknown>,
  feed: (signal: AbortSignal) => Promise<unknown>,
  fifo: string,
  signal: AbortSignal,
): Promise<void> {
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const guard = async (work: Promise<unknown>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      if (!stop.signal.aborted) stop.abort(error);
      throw error;
    }
  };
  const feeding = guard(feed(both));
  // EPIPE only says that the reader went away: why, the build knows
  const building = guard(build(both)).catch(async (error: unknown) => {
    await retireFifo(fifo);
    throw error;
  });
  const [built, fed] = await Promise.allSettled([building, feeding]);
  signal.throwIfAborted();
  const piped = fed.status === 'rejected' && (fed.reason as NodeJS.ErrnoException).code === 'EPIPE';
  if (fed.status === 'rejected' && !piped) throw fed.reason;
  if (built.status === 'rejected') throw built.reason;
  if (fed.status === 'rejected') throw fed.reason;
}

/**
 * Convert a layer.
 *
 * @param name what the layer's files are called while it is in work; unique in this run
 * @throws IntegrityError the layer's bytes are not what its descriptor says
 * @throws FormatError    they are no tar
 */
export async function convertLayer(
  layer: LayerInput,
  name: string,
  options: BlobOptions,
  context: LayerContext,
): Promise<ConvertedLayer> {
  const { signal, logger, progress, blobDir, workDir } = context;
  const blob = join(blobDir, `${name}.blob`);
  const build = (source: string) => (stop: AbortSignal) =>
    createImage(
      {
        source,
        type: 'tar-rafs',
        ...options,
        alignedChunk: options.alignedChunk || options.version === 6,
        digester: 'blake3',
        // marker files stay entries of the layer: the merge resolves them
        whiteoutSpec: 'none',
        prefetchPolicy: 'fs',
        repeatable: false,
        blobToc: options.version === 6,
        inlineMeta: true,
        blobId: undefined,
        blobOffset: 0,
        blob,
        blobDir: undefined,
        blobCacheDir: undefined,
        bootstrap: undefined,
        parentBootstrap: undefined,
        chunkDict: undefined,
        threads: 0,
      },
      { logger, signal: stop, progress },
    );
  try {
    const path = await layer.path();
    if (path !== undefined) {
      await drain(layer.open(signal));
      await build(path)(signal);
    } else {
      const fifo = join(workDir, `${name}.fifo`);
      makeFifo(fifo, 0o640);
      try {
        await together(build(fifo), (stop) => feedFifo(fifo, layer.open(stop), stop), fifo, signal);
      } finally {
        await rm(fifo, { force: true });
      }
    }
    const { hex, size } = await digestFile(blob, signal);
    const bootstrap = join(workDir, hex);
    await extractBootstrap(blob, size, bootstrap);
    return {
      descriptor: {
        mediaType: MediaType.nydusBlob,
        digest: `sha256:${hex}`,
        size,
        annotations: { [Annotation.blob]: 'true' },
      },
      file: blob,
      bootstrap,
    };
  } catch (error) {
    await rm(blob, { force: true });
    throw error;
  }
}
