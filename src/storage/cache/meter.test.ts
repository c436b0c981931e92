import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CacheMeter } from './meter.ts';

test('CacheMeter: starts at zero, and every counter has its place in the metrics', () => {
  const meter = new CacheMeter();
  const names = Object.keys(meter) as (keyof CacheMeter)[];
  assert.ok(names.length >= 10);
  assert.ok(Object.values(meter).every((value) => value === 0));
  Object.assign(meter, {
    partialHits: 1,
    wholeHits: 2,
    total: 3,
    entries: 4,
    buffered: 5,
    prefetchBytes: 6,
    prefetchRequests: 7,
    prefetchWorkers: 8,
    prefetchUnmerged: 9,
    prefetchMillis: 10.75,
    prefetchBegin: 1_700_000_001_250.5,
    prefetchEnd: 1_700_000_002_999,
    evicted: 13,
    dedupChunks: 14,
    dedupBytes: 15,
    dedupShared: 16,
  });
  const health = [
    { isDegraded: true, writeErrors: 5 },
    { isDegraded: false, writeErrors: 7 },
  ];
  assert.deepEqual(meter.metrics(['a.blob.data'], '/cache', true, health), {
    underlying_files: ['a.blob.data'],
    store_path: '/cache',
    partial_hits: 1,
    whole_hits: 2,
    total: 3,
    entries_count: 4,
    buffered_backend_size: 5,
    prefetch_data_amount: 6,
    prefetch_requests_count: 7,
    prefetch_workers: 8,
    prefetch_unmerged_chunks: 9,
    prefetch_cumulative_time_millis: 10,
    prefetch_begin_time_secs: 1_700_000_001,
    prefetch_begin_time_millis: 250,
    prefetch_end_time_secs: 1_700_000_002,
    prefetch_end_time_millis: 999,
    data_all_ready: true,
    degraded_blobs: 1,
    write_errors: 12,
    dedup_chunks: 14,
    dedup_bytes: 15,
    dedup_shared_bytes: 16,
    evicted_bytes: 13,
  });
});
