// The expected texts were printed by nydusctl 2.2.0 for the same answers of a server.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { infoText } from './info.ts';
import { backendDeltaText, backendText, cacheText, fsText } from './metrics-text.ts';

const CACHE = {
  underlying_files: ['a.blob.data', 'b'],
  store_path: '/x/c',
  partial_hits: 3,
  whole_hits: 2,
  total: 9,
  prefetch_data_amount: 1234567,
  prefetch_requests_count: 7,
  prefetch_workers: 8,
  prefetch_cumulative_time_millis: 1555,
  prefetch_begin_time_secs: 1700000000,
  prefetch_begin_time_millis: 250,
  prefetch_end_time_secs: 1700000003,
  prefetch_end_time_millis: 100,
  prefetch_unmerged_chunks: 4,
  buffered_backend_size: 11,
};

test('cacheText: prints what upstream prints', () => {
  assert.equal(
    cacheText(CACHE),
    `
Partial Hits:               3
Whole Hits:                 2
Total Read:                 9
Directory:                  "/x/c"
Files:                      ["a.blob.data","b"]
Persister Buffer:           11

Prefetch Workers:           8
Prefetch Amount:            1234567 = 1205.6318359375 KB
Prefetch Requests:          7
Prefetch Average Size:      176366 Bytes
Prefetch Duration:          2.8499999046325684 Seconds
Prefetch Bandwidth:         0.4131139926948545 MB/S
Prefetch Request Latency:   0.22214285714285714 Seconds
Prefetch Unmerged:          4
`,
  );
});

test('cacheText: without prefetch there is nothing to divide by', () => {
  const text = cacheText({ underlying_files: [], store_path: '' });
  assert.match(text, /\nPrefetch Amount: {12}0 = 0 KB\n/);
  assert.match(text, /\nPrefetch Average Size: {6}0 Bytes\n/);
  assert.match(text, /\nPrefetch Bandwidth: {9}NaN MB\/S\nPrefetch Request Latency: {3}NaN Seconds\n/);
});

const BACKEND = {
  backend_type: 'registry',
  read_count: 13,
  read_errors: 1,
  read_amount_total: 5100002,
  read_cumulative_latency_millis_total: 84,
  read_count_block_size_dist: [0, 3, 5, 3, 6, 7, 9, 8],
  read_cumulative_latency_millis_dist: [0, 2, 11, 9, 19, 34, 56, 89],
};

test('backendText: prints what upstream prints', () => {
  assert.equal(
    backendText(BACKEND).replaceAll(' \n', '$\n'),
    `
Backend Type:       "registry"
Read Amount:        5100002 Bytes (4.863740921020508 MB)
Read Count:         13
Read Errors:        1

Block Sizes:             <1K     1K~     4K~     16K~    64K~    128K~   512K~   1M~    $
Average Latency(millis): 0       0       2       3       3       4       6       11     $

Block Sizes:             <1K     1K~     4K~     16K~    64K~    128K~   512K~   1M~    $
Request Count:           0       3       5       3       6       7       9       8      $
`,
  );
});

test('backendDeltaText: prints what happened between two looks, as upstream does', () => {
  const next = {
    ...BACKEND,
    read_count: 16,
    read_amount_total: 5200003,
    read_cumulative_latency_millis_total: 91,
    read_count_block_size_dist: BACKEND.read_count_block_size_dist.map((value, at) => value + at),
    read_cumulative_latency_millis_dist: BACKEND.read_cumulative_latency_millis_dist.map(
      (value, at) => value + at * at,
    ),
  };
  assert.equal(
    backendDeltaText(BACKEND, next, 1).replaceAll(' \n', '$\n'),
    `
>>> >>> >>> >>> >>>
Backend Read Bandwidth:     97 KB/S
Backend Average IO Size:    33333 Bytes
Backend Average Latency:    2 millis

Block Sizes/millis:
<1K     1K~     4K~     16K~    64K~    128K~   512K~   1M~    $
0       1       2       3       4       5       6       7      $
<<< <<< <<< <<< <<<
`,
  );
});

test('fsText: prints what upstream prints', () => {
  const body = {
    data_read: 3333333,
    fop_hits: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    fop_errors: [0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    read_latency_dist: [1, 22, 333, 4444, 55555, 666666, 7777777, 88888888],
  };
  assert.equal(
    fsText(body).replaceAll(' \n', '$\n'),
    `
Read Latency:   <1ms    ~20ms   ~50ms   ~100ms  ~500ms  ~1s     ~2s     2s~    $
Reads Count:    1       22      333     4444    55555   666666  7777777 88888888

Read Errors: 5
Read Data: 3333333Bytes (3MB)

FOP Counters:
Getattr(1) Readlink(2) Open(3) Release(4) Read(5) Statfs(6) Getxattr(7) Listxattr(8)
Opendir(9) Lookup(10) Readdir(11) Readdirplus(12) Access(13) Forget(14) BatchForget(15)
`,
  );
});

test('infoText: mounts in order of their names, settings of images only', () => {
  const time = '2026-01-01 00:00:00.0 +00:00:00';
  const prefetch = { enable: true, batch_size: 131072 };
  const body = {
    version: { package_ver: 'v2.4.0', git_commit: 'abc', profile: 'release' },
    state: 'RUNNING',
    backend_collection: {
      '/b': { backend_type: 'PassthroughFs', mountpoint: '/b', mounted_time: time, config: null },
      '/': {
        backend_type: 'Rafs',
        mountpoint: '/',
        mounted_time: time,
        config: { rafs: { mode: 'direct' }, cache: { prefetch } },
      },
    },
  };
  assert.equal(
    infoText(body),
    `
Version:                "v2.4.0"
Status:                 "RUNNING"
Profile:                "release"
Commit:                 "abc"
Instances:
\tInstance Mountpoint:  /
\tType:  Rafs
\tMounted Time:  2026-01-01 0:00:00.0 +00:00:00
\tMode:  direct
\tPrefetch:  true
\tPrefetch Merging Size:  131072

\tInstance Mountpoint:  /b
\tType:  PassthroughFs
\tMounted Time:  2026-01-01 0:00:00.0 +00:00:00
`,
  );
});
