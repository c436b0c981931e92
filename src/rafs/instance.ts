// One mounted image: its bootstrap, the caches of its blobs, its backend. Lives on the main thread; other threads read what
// is local through LocalReader and come here with the rest. Source: blob-and-cache.md 17, 18; nydusd.md 7.5.
import { availableParallelism } from 'node:os';
import { UsageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RafsImage } from '../format/image.ts';
import { openBackend, type Backend, type BackendSetting } from '../storage/backend/backend.ts';
import type { BackendMetrics } from '../storage/backend/meter.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import {
  newCounters,
  sumChunkReads,
  type BlobShare,
  type InstanceShare,
} from '../storage/cache/blob-share.ts';
import { refuseUnsupported } from '../storage/cache/blob-sizes.ts';
import { acquireDecodePool, DecodePool, releaseDecodePool } from '../storage/cache/decode-pool.ts';
import { CacheKeeper } from '../storage/cache/keeper.ts';
import { CacheMeter, type BlobcacheMetrics } from '../storage/cache/meter.ts';
import type { CacheConfig, ConfigV2, PrefetchConfig, RafsConfig } from '../storage/config.ts';
import type { ChunkDatabase } from '../storage/dedup/chunk-database.ts';
import type { SharedStorage } from '../storage/shared-storage.ts';
import { LocalReader, MISS } from './local-reader.ts';
import { MissReads } from './miss-reads.ts';
import { checkCache, openOne, prepareWorkDir, type OpenBlob } from './open-blobs.ts';
import { openBootstrap, type OpenedBootstrap } from './open.ts';
import { Prefetcher } from './prefetch.ts';
import { LinkReadAhead } from './link-read-ahead.ts';
import { ReadAhead } from './read-ahead.ts';

/** Decode threads of one instance at most: more than cores only add memory. */
const MAX_DECODE_THREADS = 4;

export interface InstanceOptions {
  /** path of the bootstrap */
  bootstrap: string;
  config: ConfigV2;
  /** name for messages */
  id: string;
  logger: Logger;
  /** what images of this process read from together; default: backend and files of its own */
  storage?: SharedStorage | undefined;
  /** decode threads of its own; 0 = decode on this thread; default: the threads that all images share, one per core */
  decodeThreads?: number;
  /** milliseconds until cached data is flushed and its bits are set in the chunk map file; default 1000 */
  publishMs?: number;
  /** milliseconds until a cache that refused data is tried again; default 30 s */
  cacheRetryMs?: number;
  /** milliseconds between two looks at the size of the cache directory; default 5 s */
  gcMs?: number;
  /** database of the chunks that caches of this node have */
  dedupDb?: string | undefined;
}

/** What an instance counts. */
export interface InstanceMetrics {
  backend: BackendMetrics;
  blobcache: BlobcacheMetrics;
}

export class RafsInstance {
  readonly image: RafsImage;
  readonly share: InstanceShare;
  readonly id: string;
  readonly #bootstrap: OpenedBootstrap;
  readonly #workDir: string | undefined;
  readonly #backend: Backend;
  readonly #blobs: (OpenBlob | undefined)[];
  readonly #pool: DecodePool;
  readonly #meter: CacheMeter;
  readonly #local: LocalReader;
  readonly #misses: MissReads;
  readonly #prefetcher: Prefetcher;
  readonly #keeper: CacheKeeper | undefined;
  /** by blob index; none where nothing can be kept, or `batch_size` is 0 */
  readonly #ahead: (ReadAhead | LinkReadAhead | undefined)[];
  readonly #dedup: ChunkDatabase | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    bootstrap: OpenedBootstrap,
    rafs: RafsConfig,
    options: InstanceOptions,
    parts: {
      workDir: string | undefined;
      backend: Backend;
      blobs: (OpenBlob | undefined)[];
      pool: DecodePool;
      meter: CacheMeter;
      prefetch: PrefetchConfig;
      maxSize: number;
      dedup: ChunkDatabase | undefined;
    },
  ) {
    this.id = options.id;
    this.image = bootstrap.image;
    this.#bootstrap = bootstrap;
    this.#workDir = parts.workDir;
    this.#backend = parts.backend;
    this.#blobs = parts.blobs;
    this.#pool = parts.pool;
    this.#meter = parts.meter;
    this.#dedup = parts.dedup;
    this.share = {
      bootstrapPath: options.bootstrap,
      blobs: parts.blobs.map((blob) => {
        if (blob === undefined) return noShare();
        const { map, mode, data } = blob.cache;
        return {
          dataFd: mode === 'plain' ? (data?.fd ?? -1) : -1,
          ready: map.ready.buffer as SharedArrayBuffer,
          touched: map.touched.buffer as SharedArrayBuffer,
          epoch: map.epoch.buffer as SharedArrayBuffer,
          chunkCount: map.count,
        };
      }),
      counters: newCounters(),
      positions: new SharedArrayBuffer(Math.max(4, parts.blobs.length * 4)),
    };
    this.#local = new LocalReader(this.share, this.image);
    const positions = new Int32Array(this.share.positions);
    this.#ahead = parts.blobs.map((blob, index) => {
      if (blob === undefined || blob.cache.mode !== 'plain' || rafs.batch_size === 0) return undefined;
      const { link } = blob.cache;
      if (link === undefined) return new ReadAhead(blob.cache, positions, index);
      return new LinkReadAhead(blob.cache, link, positions, index);
    });
    this.#misses = new MissReads({
      image: this.image,
      blobs: parts.blobs,
      ahead: this.#ahead,
      positions,
      batchSize: rafs.batch_size,
      keeps: parts.workDir !== undefined,
      meter: parts.meter,
      logger: options.logger,
    });
    if (parts.workDir !== undefined && parts.maxSize > 0) {
      this.#keeper = new CacheKeeper({
        workDir: parts.workDir,
        maxBytes: parts.maxSize,
        caches: parts.blobs.flatMap((blob) => (blob === undefined ? [] : [blob.cache])),
        meter: parts.meter,
        logger: options.logger,
        isBusy: () => this.#misses.waiting > 0,
        isDown: () => parts.backend.isDown === true,
        evicted: () => parts.dedup?.prune(),
        intervalMs: options.gcMs,
      });
    }
    this.#prefetcher = new Prefetcher({
      image: this.image,
      blobs: parts.blobs,
      request: rafs.prefetch,
      run: parts.prefetch,
      meter: parts.meter,
      logger: options.logger,
      isBusy: () => this.#misses.waiting > 0,
      userBytes: () => this.#misses.userBytes,
    });
  }

  /**
   * Open an image.
   *
   * @throws UsageError EINVAL   the configuration asks for what is not there, or for what this image cannot have
   * @throws FormatError EINVAL  the bootstrap or a cache file is damaged
   * @throws BackendError EIO    a blob is neither in the backend nor complete in the cache
   */
  static async open(options: InstanceOptions): Promise<RafsInstance> {
    const { config, logger, storage } = options;
    const { backend: backendConfig, cache, rafs } = config;
    if (backendConfig === null || cache === null || rafs === null) {
      throw new UsageError('the configuration needs the sections backend, cache and rafs');
    }
    const bootstrap = openBootstrap(options.bootstrap);
    const { image } = bootstrap;
    const opened: (OpenBlob | undefined)[] = [];
    let backend: Backend | undefined;
    let dedup: ChunkDatabase | undefined;
    const pool =
      options.decodeThreads === undefined
        ? acquireDecodePool(Math.min(availableParallelism(), MAX_DECODE_THREADS))
        : new DecodePool(options.decodeThreads);
    try {
      checkCache(cache, image.super.version);
      for (const blob of image.blobs) refuseUnsupported(blob, image.super.version);
      backend = storage?.backend(backendConfig, logger) ?? openBackend(backendConfig, logger);
      const lend = storage?.filesFor(backendConfig, cache);
      const workDir = prepareWorkDir(cache);
      dedup = await openDedup(options.dedupDb, cache, logger);
      const meter = new CacheMeter();
      for (const info of image.blobs) {
        opened.push(
          await openOne({
            info,
            bootstrap,
            backend,
            workDir,
            cache,
            rafs,
            pool,
            meter,
            logger,
            publishMs: options.publishMs,
            retryMs: options.cacheRetryMs,
            lend,
            dedup,
          }),
        );
      }
      return new RafsInstance(bootstrap, rafs, options, {
        workDir,
        backend,
        blobs: opened,
        pool,
        meter,
        prefetch: cache.prefetch,
        maxSize: cache.filecache?.max_size ?? 0,
        dedup,
      });
    } catch (error) {
      for (const blob of opened) await blob?.cache.close();
      await backend?.close();
      await closeDedup(dedup);
      await releaseDecodePool(pool);
      bootstrap.close();
      throw error;
    }
  }

  /**
   * Read from a regular file; what is not local is fetched.
   *
   * @param target filled from its start
   * @returns bytes read, 0 at the end of the file
   * @throws IntegrityError EIO  a chunk failed its digest twice
   * @throws BackendError EIO    a chunk could not be fetched; FormatError EINVAL the image is damaged
   */
  async read(
    ino: number,
    offset: number,
    size: number,
    target: Uint8Array,
    signal?: AbortSignal,
  ): Promise<number> {
    const local = this.#local.read(ino, offset, size, target, 0);
    if (local !== MISS) return local;
    return this.#misses.read(ino, offset, size, target, signal);
  }

  /** The cache of a blob, undefined for one without chunks: for drivers whose reader is the kernel itself. */
  cacheOf(blobIndex: number): BlobCache | undefined {
    return this.#blobs[blobIndex]?.cache;
  }

  /**
   * Make chunks of a blob local, whatever file they belong to.
   *
   * @returns bytes of those that could not be written to the data file; the others are in it
   * @throws as `read`
   */
  fetchChunks(
    blobIndex: number,
    chunks: readonly number[],
    signal?: AbortSignal,
  ): Promise<Map<number, Uint8Array>> {
    return this.#misses.fetchChunks(blobIndex, chunks, signal);
  }

  /**
   * Start to prefetch, when the configuration has it enabled. Returns at once.
   *
   * @param list absolute paths of files and directories; without it what the image says
   */
  startPrefetch(list: readonly string[] = []): void {
    this.#prefetcher.start(list);
  }

  /** Resolves when prefetch has fetched everything; at once when none was started. */
  get prefetchFinished(): Promise<void> {
    return this.#prefetcher.finished;
  }

  /** Change a setting of the backend for the requests to come. */
  configure(setting: string, value: string): void {
    this.#backend.configure?.(setting as BackendSetting, value);
  }

  /** Bring the cache directory below its size now; otherwise that happens every few seconds. */
  async collectGarbage(): Promise<void> {
    await this.#keeper?.run();
  }

  /** Numbers of the API, measured. */
  metrics(): InstanceMetrics {
    const caches = this.#blobs.flatMap((blob) => (blob === undefined ? [] : [blob.cache]));
    const files = caches.flatMap(({ data }) =>
      data === undefined ? [] : [data.path.slice(data.path.lastIndexOf('/') + 1)],
    );
    const allReady = caches.length > 0 && caches.every(({ map }) => map.readyCount === map.count);
    const blobcache = this.#meter.metrics(files, this.#workDir ?? '', allReady, caches);
    const local = sumChunkReads(this.share.counters);
    blobcache.partial_hits += local;
    blobcache.total += local;
    return { backend: this.#backend.meter.metrics(this.#backend.type), blobcache };
  }

  /** Finish what is under way, publish what was cached, close everything. No thread may read from `share` any more. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const ahead of this.#ahead) ahead?.stop();
    this.#backend.giveUp?.();
    await this.#keeper?.stop();
    await this.#prefetcher.stop();
    for (const blob of this.#blobs) await blob?.cache.close();
    await closeDedup(this.#dedup);
    await this.#backend.close();
    await releaseDecodePool(this.#pool);
    this.#bootstrap.close();
  }
}

/** Chunks are shared between plain caches only (blob-and-cache.md 16.9). */
async function openDedup(
  path: string | undefined,
  cache: CacheConfig,
  logger: Logger,
): Promise<ChunkDatabase | undefined> {
  const { filecache } = cache;
  if (path === undefined || filecache === null || cache.compressed || filecache.enable_encryption)
    return undefined;
  const { acquireChunkDatabase } = await import('../storage/dedup/chunk-database.ts');
  return acquireChunkDatabase(path, logger);
}

async function closeDedup(dedup: ChunkDatabase | undefined): Promise<void> {
  if (dedup === undefined) return;
  dedup.prune();
  const { releaseChunkDatabase } = await import('../storage/dedup/chunk-database.ts');
  releaseChunkDatabase(dedup);
}

/** A blob without chunks. */
function noShare(): BlobShare {
  const none = (): SharedArrayBuffer => new SharedArrayBuffer(8);
  return { dataFd: -1, ready: none(), touched: none(), epoch: none(), chunkCount: 0 };
}
