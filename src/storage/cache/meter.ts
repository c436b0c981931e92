// Counters of the blob caches of one instance, spelled as `/metrics/blobcache` shows them. Source: nydusd.md 6.4.
import type { CacheHealth } from './cache-health.ts';

/** Content of `/metrics/blobcache`. */
export interface BlobcacheMetrics {
  /** file names of the data files */
  underlying_files: string[];
  store_path: string;
  /** chunk reads answered straight from the data file */
  partial_hits: number;
  /** chunk reads for which a whole cached chunk was decoded or verified */
  whole_hits: number;
  /** chunk reads */
  total: number;
  /** chunks that became ready in this process */
  entries_count: number;
  /** stored bytes asked for by prefetch */
  prefetch_data_amount: number;
  prefetch_requests_count: number;
  prefetch_workers: number;
  prefetch_unmerged_chunks: number;
  prefetch_cumulative_time_millis: number;
  prefetch_begin_time_secs: number;
  prefetch_begin_time_millis: number;
  prefetch_end_time_secs: number;
  prefetch_end_time_millis: number;
  /** bytes of fetches that are under way */
  buffered_backend_size: number;
  data_all_ready: boolean;
  /** ours: cache files that refuse data at the moment, and writes they refused so far */
  degraded_blobs: number;
  write_errors: number;
  /** ours: chunks, and their bytes, that came from other cache files of this node; bytes of them whose blocks are shared */
  dedup_chunks: number;
  dedup_bytes: number;
  dedup_shared_bytes: number;
  /** ours: bytes that were taken out of the cache directory to keep it below its size */
  evicted_bytes: number;
}

/** Counters shared by the blob caches and the prefetcher of one instance. */
export class CacheMeter {
  partialHits = 0;
  wholeHits = 0;
  total = 0;
  entries = 0;
  buffered = 0;
  prefetchBytes = 0;
  prefetchRequests = 0;
  prefetchWorkers = 0;
  prefetchUnmerged = 0;
  prefetchMillis = 0;
  /** milliseconds since 1970, 0 while there was none */
  prefetchBegin = 0;
  prefetchEnd = 0;
  evicted = 0;
  dedupChunks = 0;
  dedupBytes = 0;
  dedupShared = 0;

  /** @param health of the files of the instance's blobs */
  metrics(
    files: string[],
    storePath: string,
    allReady: boolean,
    health: readonly Pick<CacheHealth, 'isDegraded' | 'writeErrors'>[],
  ): BlobcacheMetrics {
    return {
      underlying_files: files,
      store_path: storePath,
      partial_hits: this.partialHits,
      whole_hits: this.wholeHits,
      total: this.total,
      entries_count: this.entries,
      prefetch_data_amount: this.prefetchBytes,
      prefetch_requests_count: this.prefetchRequests,
      prefetch_workers: this.prefetchWorkers,
      prefetch_unmerged_chunks: this.prefetchUnmerged,
      prefetch_cumulative_time_millis: Math.floor(this.prefetchMillis),
      prefetch_begin_time_secs: Math.floor(this.prefetchBegin / 1000),
      prefetch_begin_time_millis: Math.floor(this.prefetchBegin % 1000),
      prefetch_end_time_secs: Math.floor(this.prefetchEnd / 1000),
      prefetch_end_time_millis: Math.floor(this.prefetchEnd % 1000),
      buffered_backend_size: this.buffered,
      data_all_ready: allReady,
      degraded_blobs: health.filter(({ isDegraded }) => isDegraded).length,
      write_errors: health.reduce((sum, { writeErrors }) => sum + writeErrors, 0),
      dedup_chunks: this.dedupChunks,
      dedup_bytes: this.dedupBytes,
      dedup_shared_bytes: this.dedupShared,
      evicted_bytes: this.evicted,
    };
  }
}
