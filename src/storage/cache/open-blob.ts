// Opens the cache files of one blob and says how far they can be trusted. Source: blob-and-cache.md 17.1 to 17.8.
import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { alignUp } from '../../base/bytes.ts';
import { FormatError, messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { XTS_PAGE } from '../../codec/xts.ts';
import { BlobFeature } from '../../format/flags.ts';
import type { BlobInfo, RafsImage } from '../../format/image.ts';
import { isSafeBlobId } from '../backend/localfs.ts';
import type { BlobReader } from '../backend/backend.ts';
import type { LendFiles } from '../shared-storage.ts';
import type { ChunkDatabase } from '../dedup/chunk-database.ts';
import { Neighbours } from '../dedup/neighbours.ts';
import { BlobCache, type BlobCacheOptions } from './blob-cache.ts';
import { BlobFiles } from './blob-files.ts';
import { chunkDataEnd } from '../../format/blobmeta/reader.ts';
import { hasCi } from './blob-sizes.ts';
import { ChunkMap, DamagedMapError } from './chunk-map.ts';
import type { ChunkTable } from './chunk-table.ts';
import { CiChunkTable } from './ci-table.ts';
import { DataFile } from './data-file.ts';
import { RETRY_MS } from './cache-health.ts';
import type { DecodeTarget, Seal } from './decode.ts';
import type { DecodePool } from './decode-pool.ts';
import { loadDigestArray } from './digest-file.ts';
import { loadMeta } from './meta-file.ts';
import type { CacheMeter } from './meter.ts';
import { PUBLISH_MS } from './publisher.ts';
import { RecordTable } from './record-table.ts';

export interface OpenBlobOptions {
  image: RafsImage;
  blob: BlobInfo;
  /** effective id: names the files and the blob of the backend */
  blobId: string;
  /** chunks of the blob */
  count: number;
  reader: BlobReader | undefined;
  /** directory of the cache files; undefined = no cache */
  workDir: string | undefined;
  /** keep stored bytes instead of decoded chunks */
  raw: boolean;
  /** false: readiness is kept in memory only (`disable_indexed_map`, unknown chunk count) */
  indexedMap: boolean;
  validate: boolean;
  /** the plain data file is encrypted */
  seal?: Seal | undefined;
  publishMs?: number | undefined;
  retryMs?: number | undefined;
  /** for files that other images use too */
  lend?: LendFiles | undefined;
  /** chunks that other cache files of the node have; plain caches only */
  dedup?: ChunkDatabase | undefined;
  pool: DecodePool;
  meter: CacheMeter;
  logger: Logger;
}

/** What was opened: the cache, and its table where that did not need to be loaded. */
export interface OpenedBlob {
  cache: BlobCache;
  /** v5: the table, which files that are read tell about their chunks */
  records: RecordTable | undefined;
}

interface Files {
  mode: DecodeTarget;
  map: ChunkMap;
  data: DataFile | undefined;
  /** chunks that are not ready may be in the data file all the same: verify before fetching */
  probe: boolean;
  /** the directory could not be used */
  refused?: boolean;
}

const MEMORY_ONLY = (count: number): Files => ({
  mode: 'memory',
  map: ChunkMap.inMemory(count),
  data: undefined,
  probe: false,
});

function openMap(
  path: string,
  data: DataFile,
  options: OpenBlobOptions,
  dataSize: number,
): { map: ChunkMap; probe: boolean } {
  const { count, logger, validate, raw, seal } = options;
  const selfChecking = raw || seal !== undefined;
  try {
    const map = ChunkMap.open(path, count, { distrust: validate && !selfChecking, selfChecking });
    if (map.suspect) {
      logger.warn(
        `${path} was in use when the machine went down: each of its ${map.heldCount} chunks is verified before its first use`,
      );
    }
    if (data.foundSize >= dataSize || !map.anyInFile()) return { map, probe: false };
    map.close();
    throw new DamagedMapError(
      { struct: path },
      `has ready chunks, but the data file was ${data.foundSize} of ${dataSize} bytes long`,
    );
  } catch (error) {
    if (error instanceof DamagedMapError) {
      logger.warn(
        `${error.message}; starting a new one, chunks found in the data file are verified before they are used`,
      );
      return { map: ChunkMap.rebuild(path, count, []), probe: true };
    }
    if (error instanceof FormatError) throw error;
    // no room for it, perhaps: what is fetched is kept for this process, once the data file takes it
    logger.warn(`cannot use ${path}: ${messageOf(error)}; what is cached is forgotten with the next start`);
    return { map: ChunkMap.inMemory(count), probe: false };
  }
}

function openFiles(options: OpenBlobOptions): Files {
  const { workDir, blobId, blob, raw, count, logger, indexedMap, seal } = options;
  if (workDir === undefined) return MEMORY_ONLY(count);
  const base = join(workDir, blobId);
  const plainSize = seal === undefined ? blob.uncompressedSize : alignUp(blob.uncompressedSize, XTS_PAGE);
  const dataSize = raw ? chunkDataEnd(blob) : plainSize;
  let data: DataFile | undefined;
  try {
    data = DataFile.open(`${base}.blob.${raw ? 'raw' : 'data'}`, dataSize);
    const mode = raw ? 'raw' : seal === undefined ? 'plain' : 'sealed';
    if (!indexedMap) return { mode, map: ChunkMap.inMemory(count), data, probe: mode === 'plain' };
    return { mode, data, ...openMap(`${base}.blob.data.chunk_map`, data, options, dataSize) };
  } catch (error) {
    data?.close();
    if (error instanceof FormatError) throw error;
    logger.warn(
      `cannot use the cache of blob ${blobId} in ${workDir}: ${messageOf(error)}; it is served without caching`,
    );
    return { ...MEMORY_ONLY(count), refused: true };
  }
}

function ownFiles(files: BlobFiles): { files: BlobFiles; release: () => Promise<void> } {
  return { files, release: () => files.close() };
}

/** Images that agree on all of this read the same bytes from the same files. */
function identityOf(options: OpenBlobOptions): object {
  const { blobId, count, indexedMap, validate, publishMs, retryMs, blob, dedup } = options;
  const { chunkSize, features, compressor, digester, compressedSize, uncompressedSize } = blob;
  const { ciCompressor, ciOffset, ciCompressedSize, ciUncompressedSize } = blob;
  const how = { blobId, count, indexedMap, validate, publishMs, retryMs, dedup: dedup?.path };
  const data = { chunkSize, features, compressor, digester, compressedSize, uncompressedSize };
  const table = { ciCompressor, ciOffset, ciCompressedSize, ciUncompressedSize };
  return { how, data, table };
}

function neighboursOf({ dedup, blob }: OpenBlobOptions, files: Files): Neighbours | undefined {
  const { mode, data, map } = files;
  if (dedup === undefined || mode !== 'plain' || data === undefined) return undefined;
  return new Neighbours(dedup, realpathSync(data.path), blob.digester, map);
}

type Loaders = Pick<BlobCacheOptions, 'loadTable' | 'reloadTable'>;

function tableLoaders(options: OpenBlobOptions, files: BlobFiles): Loaders {
  const { image, blob, blobId, reader, workDir, logger } = options;
  const kept = workDir !== undefined && files.data !== undefined;
  const base = kept ? join(workDir, blobId) : undefined;
  const path = base === undefined ? undefined : `${base}.blob.meta`;
  let fromFile = false;
  const load = async (fresh: boolean): Promise<ChunkTable> => {
    const meta = await loadMeta({ path, blob, reader, logger, note: files.map, fresh });
    fromFile = meta.kept;
    const digests = options.validate ? await loadDigestArray(base, blob, reader, logger) : undefined;
    return new CiChunkTable(meta.ci, blob, image, digests, meta.release);
  };
  return {
    // one after another: who comes second finds the file of the first
    loadTable: () => files.inTurn(() => load(false)),
    reloadTable: () => (fromFile && reader !== undefined ? files.inTurn(() => load(true)) : undefined),
  };
}

/**
 * Open the cache of one blob. Its table is loaded in the background.
 *
 * @throws FormatError EINVAL  a cache file belongs to something else
 * @throws UsageError EINVAL   the blob id is no file name
 */
export function openBlob(options: OpenBlobOptions): OpenedBlob {
  const { image, blob, blobId, count } = options;
  if (options.workDir !== undefined && !isSafeBlobId(blobId)) {
    throw new UsageError(`blob id ${JSON.stringify(blobId)} is no file name`);
  }
  if (options.seal !== undefined && (blob.features & BlobFeature.aligned) === 0 && !hasCi(blob)) {
    throw new UsageError(`blob ${blobId}: its chunks are not aligned, which an encrypted cache needs`, {
      hint: 'leave out enable_encryption, or build the image with --aligned-chunk or as version 6',
    });
  }
  const open = (): BlobFiles => {
    const opened = openFiles(options);
    return new BlobFiles({
      ...opened,
      neighbours: neighboursOf(options, opened),
      aligned: hasCi(blob),
      publishMs: options.publishMs ?? PUBLISH_MS,
      retryMs: options.retryMs ?? RETRY_MS,
      logger: options.logger,
    });
  };
  const { files, release } = options.lend?.(identityOf(options), open) ?? ownFiles(open());
  const records = hasCi(blob) ? undefined : new RecordTable(image, blob, count);
  const loaders =
    records === undefined
      ? tableLoaders(options, files)
      : { loadTable: () => Promise.resolve(records), reloadTable: () => undefined };
  const cache = new BlobCache({
    blobId,
    compressor: blob.compressor,
    digester: blob.digester,
    reader: options.reader,
    files,
    release,
    ...loaders,
    seal: options.seal,
    pool: options.pool,
    meter: options.meter,
    logger: options.logger,
  });
  return { cache, records };
}
