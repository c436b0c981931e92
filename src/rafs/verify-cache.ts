// Reads what a cache directory has of an image and compares it with the digests of the image. Chunks that fail are forgotten, so
// that they are fetched again.
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { addressOf, preadFull } from '../native/file-io.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import type { CachedBlob } from '../storage/cache/cache-dir.ts';
import { DecodePool } from '../storage/cache/decode-pool.ts';
import { isVerified } from '../storage/cache/kept-chunks.ts';
import { CacheMeter } from '../storage/cache/meter.ts';
import { openBlob } from '../storage/cache/open-blob.ts';
import { effectiveBlobId } from './blob-id.ts';
import type { OpenedBootstrap } from './open.ts';

export interface VerifiedBlob {
  blobId: string;
  /** chunks that were read, and those of them that are not what the image says */
  checked: number;
  damaged: number;
  /** why the blob could not be verified */
  problem?: string;
}

/** @returns one entry for each blob of the image that the directory has a chunk map of */
export async function verifyCache(
  bootstrap: OpenedBootstrap,
  workDir: string,
  cached: readonly CachedBlob[],
  logger: Logger,
): Promise<VerifiedBlob[]> {
  const { image, path } = bootstrap;
  const results: VerifiedBlob[] = [];
  const pool = new DecodePool(0);
  for (const blob of image.blobs) {
    const blobId = effectiveBlobId(blob, path);
    const there = cached.find((each) => each.blobId === blobId);
    if (there === undefined || blob.chunkCount === 0 || there.ready === 0) continue;
    if (!there.files.some((file) => file.endsWith('.blob.data'))) {
      const problem = 'a compressed cache: each read verifies what it takes';
      results.push({ blobId, checked: 0, damaged: 0, problem });
      continue;
    }
    try {
      const options = { image, blob, blobId, count: blob.chunkCount, reader: undefined, workDir };
      const how = { raw: false, indexedMap: true, validate: true, pool, meter: new CacheMeter(), logger };
      const { cache } = openBlob({ ...options, ...how });
      try {
        results.push(await verifyBlob(cache, blob.digester));
      } finally {
        await cache.close();
      }
    } catch (error) {
      results.push({ blobId, checked: 0, damaged: 0, problem: messageOf(error) });
    }
  }
  await pool.close();
  return results;
}

async function verifyBlob(
  cache: BlobCache,
  digester: Parameters<typeof isVerified>[2],
): Promise<VerifiedBlob> {
  const { map, data, blobId } = cache;
  const table = await cache.table();
  const damaged: number[] = [];
  let checked = 0;
  for (let index = 0; index < map.count; index++) {
    if (!map.isReadyInFile(index) || data === undefined) continue;
    checked++;
    const bytes = new Uint8Array(table.plainSize(index));
    const got = preadFull(data.fd, addressOf(bytes), bytes.length, table.plainOffset(index));
    if (got === bytes.length && isVerified(table, index, digester, bytes)) map.mark(index);
    else damaged.push(index);
    if (checked % 64 === 0) await new Promise((resolve) => void setImmediate(resolve));
  }
  if (damaged.length === checked && checked > 0) {
    const problem = 'not one chunk is what the image says: an encrypted cache, or of another image';
    return { blobId, checked, damaged: damaged.length, problem };
  }
  for (const index of damaged) map.forget(index);
  return { blobId, checked, damaged: damaged.length };
}
