// Reads what a cache directory has of an image and compares it with the digests of the image. Chunks that fail are forgotten, so
// that they are fetched again.
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { addressOf, preadFull } from '../native/file-io.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import type { CachedBlob } from '../storage/cache/cache-dir.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import type { Seal } from '../storage/cache/decode.ts';
import { decodeJob } from '../storage/cache/decode-plan.ts';
import { DecodePool } from '../storage/cache/decode-pool.ts';
import { rangeOf } from '../storage/cache/fetch-plan.ts';
import { isVerified } from '../storage/cache/kept-chunks.ts';
import { CacheMeter } from '../storage/cache/meter.ts';
import { openBlob } from '../storage/cache/open-blob.ts';
import { SealedTable } from '../storage/cache/sealed-table.ts';
import { chunkIdOf } from '../storage/dedup/neighbours.ts';
import { effectiveBlobId } from './blob-id.ts';
import type { BlobInfo } from '../format/image.ts';
import type { OpenedBootstrap } from './open.ts';

export interface VerifiedBlob {
  blobId: string;
  /** chunks that were read, and those of them that are not what the image says */
  checked: number;
  damaged: number;
  /** why the blob could not be verified */
  problem?: string;
}

export interface VerifyOptions {
  logger: Logger;
  /** how the cache files are encrypted; undefined when they are not */
  seal?: Seal | undefined;
  /** told of damaged chunks, by what the dedup database calls them, before they are forgotten */
  refute?: (blobId: string, ids: readonly string[]) => void;
}

/**
 * @returns one entry for each blob of the image that the directory has a chunk map of
 */
export async function verifyCache(
  bootstrap: OpenedBootstrap,
  workDir: string,
  cached: readonly CachedBlob[],
  options: VerifyOptions,
): Promise<VerifiedBlob[]> {
  const { logger, seal } = options;
  const { image, path } = bootstrap;
  const results: VerifiedBlob[] = [];
  const pool = new DecodePool(0);
  for (const blob of image.blobs) {
    const blobId = effectiveBlobId(blob, path);
    const there = cached.find((each) => each.blobId === blobId);
    if (there === undefined || blob.chunkCount === 0 || there.ready === 0) continue;
    const raw = !there.files.some((file) => file.endsWith('.blob.data'));
    try {
      const what = { image, blob, blobId, count: blob.chunkCount, reader: undefined, workDir };
      const how = { raw, indexedMap: true, validate: true, pool, meter: new CacheMeter(), logger };
      const { cache } = openBlob({ ...what, ...how, seal: raw ? undefined : seal });
      try {
        results.push(await verifyBlob(cache, blob, pool, options));
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

/** Says whether a chunk of a cache file is what the image says. */
type Check = (index: number) => Promise<boolean>;

function plainCheck({ data }: BlobCache, table: ChunkTable, { digester }: BlobInfo): Check {
  return (index) => {
    const bytes = new Uint8Array(table.plainSize(index));
    const got = preadFull(data?.fd ?? -1, addressOf(bytes), bytes.length, table.plainOffset(index));
    return Promise.resolve(got === bytes.length && isVerified(table, index, digester, bytes));
  };
}

/** Compressed and encrypted files: as a read does it. */
function decodedCheck(
  { mode, data, map }: BlobCache,
  table: ChunkTable,
  { compressor, digester }: BlobInfo,
  pool: DecodePool,
  seal: Seal | undefined,
): Check {
  const opens = mode === 'sealed';
  const stored = opens ? new SealedTable(table) : table;
  const source = { sourceFd: data?.fd ?? -1, stored: undefined, opens, seal };
  const target = { target: 'memory', dataFd: -1, ready: map.ready } as const;
  return async (index) => {
    const how = { compressor, digester, wanted: new Set([index]), ...source, ...target };
    const { plain } = await pool.run(decodeJob(stored, rangeOf(stored, [index]), how), () => false);
    return plain.has(index);
  };
}

async function verifyBlob(
  cache: BlobCache,
  blob: BlobInfo,
  pool: DecodePool,
  { seal, refute }: VerifyOptions,
): Promise<VerifiedBlob> {
  const { map, data, blobId, mode } = cache;
  const table = await cache.table();
  const check =
    mode === 'plain' ? plainCheck(cache, table, blob) : decodedCheck(cache, table, blob, pool, seal);
  const damaged: number[] = [];
  let checked = 0;
  for (let index = 0; index < map.count; index++) {
    if (!map.isReadyInFile(index) || data === undefined) continue;
    checked++;
    if (await check(index)) map.mark(index);
    else damaged.push(index);
    if (checked % 64 === 0) await new Promise((resolve) => void setImmediate(resolve));
  }
  if (damaged.length === checked && checked > 0) {
    const problem =
      seal === undefined
        ? 'not one chunk is what the image says: an encrypted cache, which needs --config, or of another image'
        : 'not one chunk is what the image says: encrypted with another key, or of another image';
    return { blobId, checked, damaged: damaged.length, problem };
  }
  const ids = damaged.map((index) => chunkIdOf(table, index, blob.digester));
  refute?.(
    blobId,
    ids.filter((id) => id !== undefined),
  );
  for (const index of damaged) map.forget(index);
  return { blobId, checked, damaged: damaged.length };
}
