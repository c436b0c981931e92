// Opens what an instance reads from: the cache directory and one cache per blob. Says what a configuration cannot have.
// Source: blob-and-cache.md 17.1; nydusd.md 7.5.
import { statSync } from 'node:fs';
import { fromHex } from '../base/bytes.ts';
import { messageOf, UsageError } from '../base/errors.ts';
import { makeDirectories } from '../base/make-directories.ts';
import { MAX_CHUNKS_PER_BLOB } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { isXtsKey } from '../codec/xts.ts';
import { newChunkRef, type BlobInfo, type RafsImage } from '../format/image.ts';
import type { Backend, BlobReader } from '../storage/backend/backend.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import { hasCi } from '../storage/cache/blob-sizes.ts';
import type { Seal } from '../storage/cache/decode.ts';
import type { DecodePool } from '../storage/cache/decode-pool.ts';
import type { CacheMeter } from '../storage/cache/meter.ts';
import { openBlob } from '../storage/cache/open-blob.ts';
import type { RecordTable } from '../storage/cache/record-table.ts';
import type { CacheConfig, RafsConfig } from '../storage/config.ts';
import type { ChunkDatabase } from '../storage/dedup/chunk-database.ts';
import type { LendFiles } from '../storage/shared-storage.ts';
import { effectiveBlobId } from './blob-id.ts';
import type { OpenedBootstrap } from './open.ts';

/** One blob of an instance. */
export interface OpenBlob {
  info: BlobInfo;
  cache: BlobCache;
  records: RecordTable | undefined;
}

/** @throws UsageError EINVAL  a kind of cache that is not served, or that an image of this version cannot have */
export function checkCache(cache: CacheConfig, version: 5 | 6): void {
  if (cache.type === 'fscache')
    throw new UsageError('cache type fscache is not supported yet', { hint: 'use blobcache' });
  if (cache.type === '' || cache.type === 'dummycache') {
    if (version === 6)
      throw new UsageError('Rafs v6 must have local blobcache configured', {
        hint: 'set cache.type to blobcache',
      });
    return;
  }
  if (cache.filecache === null)
    throw new UsageError(`cache type ${cache.type} needs its settings with a work_dir`);
  sealOf(cache);
}

/**
 * How the cache files are encrypted; undefined when they are not. A compressed cache ignores the wish, as upstream's does.
 *
 * @throws UsageError EINVAL  there is no key, or it is none
 */
export function sealOf(cache: CacheConfig): Seal | undefined {
  const { filecache } = cache;
  if (filecache === null || !filecache.enable_encryption || cache.compressed) return undefined;
  if (filecache.enable_convergent_encryption) return { key: undefined };
  const key = fromHex(filecache.encryption_key);
  if (isXtsKey(key)) return { key };
  throw new UsageError('cache encryption needs `encryption_key`: 64 hexadecimal digits whose halves differ', {
    hint: 'or set enable_convergent_encryption, which takes the digest of each chunk',
  });
}

/**
 * The directory of the cache files, created when missing; undefined without a cache.
 *
 * @throws UsageError EINVAL  it cannot be used
 */
export function prepareWorkDir(cache: CacheConfig): string | undefined {
  if (cache.type === '' || cache.type === 'dummycache' || cache.filecache === null) return undefined;
  const dir = cache.filecache.work_dir;
  try {
    makeDirectories(dir);
    if (!statSync(dir).isDirectory()) throw new Error('not a directory');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EROFS') return dir;
    throw new UsageError(`cannot use work_dir ${dir} of the cache: ${messageOf(error)}`, {
      cause: error,
      hint: 'work_dir names a directory; it is created where its parent may be written to',
    });
  }
  return dir;
}

/** Highest chunk index of a blob and one: for v5 images that do not say how many chunks there are. */
function countChunks(image: RafsImage, blobIndex: number): number {
  const ref = newChunkRef();
  let count = 0;
  let left = image.super.inodesCount;
  for (let ino = 1; left > 0 && ino * 128 <= image.bytes.length; ino++) {
    let chunks: number;
    try {
      chunks = image.chunkCount(ino);
    } catch {
      continue; // no regular file
    }
    left--;
    for (let position = 0; position < chunks; position++) {
      image.chunk(ino, position, ref);
      if (ref.blobIndex === blobIndex) count = Math.max(count, ref.chunkIndex + 1);
    }
  }
  return Math.min(count, MAX_CHUNKS_PER_BLOB);
}

/** What one blob is opened with. */
export interface OpenOneOptions {
  info: BlobInfo;
  bootstrap: OpenedBootstrap;
  backend: Backend;
  workDir: string | undefined;
  cache: CacheConfig;
  rafs: RafsConfig;
  pool: DecodePool;
  meter: CacheMeter;
  logger: Logger;
  publishMs: number | undefined;
  retryMs: number | undefined;
  /** for files that other images use too */
  lend?: LendFiles | undefined;
  /** chunks that other images of the node have */
  dedup?: ChunkDatabase | undefined;
}

/**
 * Open the cache of one blob; undefined for a blob without chunks.
 *
 * @throws BackendError EIO    it is neither in the backend nor complete in the cache
 * @throws FormatError EINVAL  a cache file belongs to something else
 */
export async function openOne(options: OpenOneOptions): Promise<OpenBlob | undefined> {
  const { info, bootstrap, backend, workDir, cache, rafs, pool, meter, logger, publishMs, retryMs, lend } =
    options;
  const { image, path } = bootstrap;
  const known = info.chunkCount > 0;
  const count = known ? info.chunkCount : image.super.version === 5 ? countChunks(image, info.index) : 0;
  if (count === 0) return undefined;
  const blobId = effectiveBlobId(info, path);
  let reader: BlobReader | undefined;
  let missing: unknown;
  try {
    reader = await backend.open(blobId);
  } catch (error) {
    missing = error;
  }
  const indexedMap = known && !(cache.filecache?.disable_indexed_map === true && !hasCi(info));
  const validate = cache.validate || rafs.validate;
  const raw = cache.compressed;
  const opened = openBlob({
    image,
    blob: info,
    blobId,
    count,
    reader,
    workDir,
    raw,
    indexedMap,
    validate,
    seal: sealOf(cache),
    dedup: options.dedup,
    publishMs,
    retryMs,
    lend,
    pool,
    meter,
    logger,
  });
  if (reader === undefined) {
    if (opened.cache.map.heldCount < count) {
      await opened.cache.close();
      throw missing;
    }
    logger.warn(`blob ${blobId} is not in the backend (${messageOf(missing)}); it is complete in the cache`);
  }
  // its failure shows with the first read that needs it, which tries again
  opened.cache.table().catch((error: unknown) => logger.warn(`blob ${blobId}: ${messageOf(error)}`));
  return { info, ...opened };
}
