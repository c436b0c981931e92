import assert from 'node:assert/strict';
import { test } from 'node:test';
import { prometheusText, type MetricsSource } from './prometheus.ts';

const zeros = (length: number): number[] => Array.from({ length }, () => 0);

function source(mountpoint: string): MetricsSource {
  return {
    info: () => ({
      state: 'RUNNING',
      backend_collection: { [mountpoint]: { config: { id: 'cache-id' } } },
    }),
    inflight: () => [{}, {}],
    fsMetrics: (id) => ({
      id,
      data_read: 5000,
      fop_hits: [7, 0, 0, 0, 3, ...zeros(10)],
      fop_errors: [0, 0, 0, 0, 1, ...zeros(10)],
      fop_cumulative_latency_total: [0, 0, 0, 0, 2_500_000, ...zeros(10)],
      read_latency_dist: [1, 0, 2, 0, 0, 0, 0, 1],
      block_count_read: [0, 2, 1, 0, 0, 0, 0, 0],
    }),
    storageMetrics: (kind, id) => {
      if (kind === 'blobcache') {
        return id === 'cache-id'
          ? { total: 10, partial_hits: 6, whole_hits: 1, data_all_ready: true }
          : undefined;
      }
      return {
        backend_type: 'registry',
        read_count: 4,
        read_errors: 1,
        read_amount_total: 9999,
        read_cumulative_latency_millis_total: 1500,
        read_latency_sizes_dist: [
          [1, 0, 0, 0, 0, 0, 0, 0],
          [0, 2, 0, 0, 0, 0, 0, 1],
          ...zeros(6).map(() => zeros(8)),
        ],
      };
    },
  };
}

function lines(text: string, start: string): string[] {
  return text.split('\n').filter((line) => line.startsWith(start));
}

test('prometheusText: histograms are cumulative and end with +Inf', () => {
  const text = prometheusText(source('/'));
  assert.deepEqual(lines(text, 'nydusd_fs_read_duration_seconds'), [
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="0.0002"} 1',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="0.001"} 1',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="0.02"} 3',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="0.05"} 3',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="0.5"} 3',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="1"} 3',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="2"} 3',
    'nydusd_fs_read_duration_seconds_bucket{mountpoint="/",le="+Inf"} 4',
    'nydusd_fs_read_duration_seconds_sum{mountpoint="/"} 2.5',
    'nydusd_fs_read_duration_seconds_count{mountpoint="/"} 4',
  ]);
  assert.deepEqual(lines(text, 'nydusd_backend_request_duration_seconds_bucket').slice(0, 2), [
    'nydusd_backend_request_duration_seconds_bucket{mountpoint="/",backend="registry",le="0.001"} 1',
    'nydusd_backend_request_duration_seconds_bucket{mountpoint="/",backend="registry",le="0.02"} 3',
  ]);
});

test('prometheusText: counters of filesystem, backend and cache carry their mount', () => {
  const text = prometheusText(source('/'));
  for (const line of [
    'nydusd_mounts 1',
    'nydusd_state{state="RUNNING"} 1',
    'nydusd_requests_in_flight 2',
    'nydusd_fs_operations_total{mountpoint="/",operation="getattr"} 7',
    'nydusd_fs_operation_errors_total{mountpoint="/",operation="read"} 1',
    'nydusd_fs_read_bytes_total{mountpoint="/"} 5000',
    'nydusd_backend_bytes_total{mountpoint="/",backend="registry"} 9999',
    'nydusd_cache_chunk_reads_total{mountpoint="/",result="hit"} 7',
    'nydusd_cache_chunk_reads_total{mountpoint="/",result="miss"} 3',
    'nydusd_cache_complete{mountpoint="/"} 1',
  ]) {
    assert.ok(text.split('\n').includes(line), `${line}\nin\n${text}`);
  }
});

test('prometheusText: every metric is described once, before its samples, and hostile names stay in their quotes', () => {
  const text = prometheusText(source('/a"b\\c\nd'));
  assert.match(text, /mountpoint="\/a\\"b\\\\c\\nd"/);
  const described = lines(text, '# TYPE ').map((line) => line.split(' ')[2]);
  assert.equal(new Set(described).size, described.length);
  for (const line of text.split('\n').filter((l) => l !== '' && !l.startsWith('#'))) {
    assert.match(line, /^[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"(,[a-z]+="(\\.|[^"\\])*")*\})? -?[\d.e+-]+$/);
    const name = /^[a-z_]+/.exec(line)?.[0].replace(/_(bucket|sum|count)$/, '');
    assert.ok(described.includes(name) || described.includes(/^[a-z_]+/.exec(line)?.[0]), line);
  }
});
