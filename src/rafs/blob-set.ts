// The blobs of an image for one pass over all of its data: chunks come verified into memory, nothing is kept on disk.
// Source: blob-and-cache.md 17.1, 18.3.
import { availableParallelism } from 'node:os';
import { BackendError } from '../base/errors.ts';
import { MIB } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import type { ChunkRef } from '../format/image.ts';
import type { Backend } from '../storage/backend/backend.ts';
import { refuseUnsupported } from '../storage/cache/blob-sizes.ts';
import { DecodePool } from '../storage/cache/decode-pool.ts';
import { CacheMeter } from '../storage/cache/meter.ts';
import type { CacheConfig, PrefetchConfig, RafsConfig } from '../storage/config.ts';
import { openOne, type OpenBlob } from './open-blobs.ts';
import type { OpenedBootstrap } from './open.ts';

/** Stored bytes of one ranged request. */
const BATCH = 4 * MIB;
const MAX_DECODE_THREADS = 4;

const NO_PREFETCH: PrefetchConfig = {
  enable: false,
  threads: 0,
  batch_size: 0,
  bandwidth_limit: 0,
  prefetch_all: false,
  stream_prefetch: false,
};
const NO_CACHE: CacheConfig = {
  type: '',
  compressed: false,
  validate: true,
  prefetch: NO_PREFETCH,
  filecache: null,
  fscache: null,
};
const RAFS: RafsConfig = {
  mode: 'direct',
  batch_size: BATCH,
  validate: true,
  enable_xattr: true,
  iostats_files: false,
  access_pattern: false,
  latest_read_files: false,
  prefetch: NO_PREFETCH,
};

/** Plain bytes by blob index, then chunk index. */
export type PlainChunks = Map<number, Map<number, Uint8Array>>;

export interface BlobSetOptions {
  bootstrap: OpenedBootstrap;
  /** stays the caller's to close */
  backend: Backend;
  logger: Logger;
  /** default: one a core, four at most */
  decodeThreads?: number;
}

export class BlobSet {
  readonly #blobs: (OpenBlob | undefined)[];
  readonly #pool: DecodePool;

  private constructor(blobs: (OpenBlob | undefined)[], pool: DecodePool) {
    this.#blobs = blobs;
    this.#pool = pool;
  }

  /**
   * Open the blobs of an image.
   *
   * @throws UsageError EINVAL  a blob of a kind that is not served
   * @throws BackendError EIO   the backend does not have one
   */
  static async open(options: BlobSetOptions): Promise<BlobSet> {
    const { bootstrap, backend, logger } = options;
    const { image } = bootstrap;
    for (const blob of image.blobs) refuseUnsupported(blob, image.super.version);
    const pool = new DecodePool(
      options.decodeThreads ?? Math.min(availableParallelism(), MAX_DECODE_THREADS),
    );
    const blobs: (OpenBlob | undefined)[] = [];
    const set = new BlobSet(blobs, pool);
    try {
      const common = {
        bootstrap,
        backend,
        logger,
        pool,
        workDir: undefined,
        publishMs: undefined,
        retryMs: undefined,
      };
      const meter = new CacheMeter();
      for (const info of image.blobs)
        blobs.push(await openOne({ info, cache: NO_CACHE, rafs: RAFS, meter, ...common }));
      return set;
    } catch (error) {
      await set.close();
      throw error;
    }
  }

  /**
   * Fetch chunks.
   *
   * @throws IntegrityError EIO  one failed its digest twice
   * @throws BackendError EIO    one could not be fetched, or is not where the bootstrap says
   */
  async fetch(refs: Iterable<ChunkRef>, signal?: AbortSignal): Promise<PlainChunks> {
    const wanted = new Map<number, ChunkRef[]>();
    for (const ref of refs) {
      const list = wanted.get(ref.blobIndex);
      if (list === undefined) wanted.set(ref.blobIndex, [ref]);
      else list.push(ref);
    }
    const found: PlainChunks = new Map();
    await Promise.all(
      [...wanted].map(async ([blobIndex, list]) =>
        found.set(blobIndex, await this.#fetchOf(blobIndex, list, signal)),
      ),
    );
    return found;
  }

  async #fetchOf(
    blobIndex: number,
    refs: readonly ChunkRef[],
    signal: AbortSignal | undefined,
  ): Promise<Map<number, Uint8Array>> {
    const { cache } = await this.#compared(blobIndex, refs);
    const chunks = [...new Set(refs.map((ref) => ref.chunkIndex))].sort((a, b) => a - b);
    return cache.obtain(chunks, { batch: BATCH, extend: false, urgent: true }, signal);
  }

  /**
   * Compare where the bootstrap says chunks of a blob are with the blob's own table; no data is read.
   *
   * @throws BackendError EIO    the blob or its table cannot be read, or they differ
   * @throws FormatError, IntegrityError  the table is damaged
   */
  async compare(blobIndex: number, refs: readonly ChunkRef[]): Promise<void> {
    await this.#compared(blobIndex, refs);
  }

  async #compared(blobIndex: number, refs: readonly ChunkRef[]): Promise<OpenBlob> {
    const blob = this.#blobs[blobIndex];
    if (blob === undefined)
      throw new BackendError(`a chunk of blob ${blobIndex} is wanted, the blob has none`);
    const { cache, records } = blob;
    for (const ref of refs) records?.note(ref.chunkIndex, ref.recordOffset);
    const table = await cache.table();
    for (const ref of refs) {
      const place = table.plainOffset(ref.chunkIndex);
      const size = table.plainSize(ref.chunkIndex);
      if (place !== ref.uncompressedOffset || size < ref.uncompressedSize)
        throw new BackendError(
          `chunk ${ref.chunkIndex} of blob ${cache.blobId} is ${size} bytes at ${place}, the bootstrap says ${ref.uncompressedSize} at ${ref.uncompressedOffset}`,
        );
    }
    return blob;
  }

  /** Finish what is under way, close everything but the backend. */
  async close(): Promise<void> {
    for (const blob of this.#blobs) await blob?.cache.close();
    await this.#pool.close();
  }
}
