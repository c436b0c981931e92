// `GET /metrics`: all counters in the text form that Prometheus scrapes (exposition format 0.0.4). A client library keeps
// histograms of its own; ours are counted in shared memory by other threads, so the few lines of text are written here.
import { readdirSync, readFileSync } from 'node:fs';
import { BUCKETS, FOP_COUNT } from '../serve/counters.ts';
import { versionInfo } from '../base/version.ts';
import type { ApiResponse } from './api-error.ts';
import type { Reports } from './reports.ts';

/** What is read of the daemon. */
export type MetricsSource = Pick<Reports, 'info' | 'fsMetrics' | 'storageMetrics' | 'inflight'>;

type Labels = Readonly<Record<string, string>>;
type Kind = 'counter' | 'gauge' | 'histogram';

/** Operations in the order of `fop_hits` (nydusd.md 6.1). */
const OPERATIONS = [
  'getattr',
  'readlink',
  'open',
  'release',
  'read',
  'statfs',
  'getxattr',
  'listxattr',
  'opendir',
  'lookup',
  'readdir',
  'readdirplus',
  'access',
  'forget',
  'batch_forget',
];
/** Upper bounds in seconds of `read_latency_dist`. */
const READ_SECONDS = [0.0002, 0.001, 0.02, 0.05, 0.5, 1, 2];
/** Upper bounds in seconds of the columns of `read_latency_sizes_dist`. */
const FETCH_SECONDS = [0.001, 0.02, 0.05, 0.1, 0.5, 1, 2];
/** Largest whole size in bytes of the buckets of `block_count_read`. */
const READ_BYTES = [1023, 4095, 16383, 65535, 131071, 524287, 1048575];

function labelText(labels: Labels): string {
  const escape = (value: string): string => value.replace(/[\\"\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`));
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escape(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

/** Collects samples by metric, so that each is described once however many mounts have it. */
class Exposition {
  readonly #metrics = new Map<string, { kind: Kind; help: string; lines: string[] }>();

  #lines(name: string, kind: Kind, help: string): string[] {
    let metric = this.#metrics.get(name);
    if (metric === undefined) this.#metrics.set(name, (metric = { kind, help, lines: [] }));
    return metric.lines;
  }

  sample(kind: 'counter' | 'gauge', name: string, help: string, labels: Labels, value: number): void {
    this.#lines(name, kind, help).push(`${name}${labelText(labels)} ${value}`);
  }

  /** @param counts by bucket, the last one without an upper bound */
  histogram(
    name: string,
    help: string,
    labels: Labels,
    data: { bounds: readonly number[]; counts: readonly number[]; sum: number },
  ): void {
    const lines = this.#lines(name, 'histogram', help);
    let total = 0;
    data.counts.forEach((count, at) => {
      total += count;
      const bound = data.bounds[at];
      const le = bound === undefined ? '+Inf' : String(bound);
      lines.push(`${name}_bucket${labelText({ ...labels, le })} ${total}`);
    });
    lines.push(`${name}_sum${labelText(labels)} ${data.sum}`, `${name}_count${labelText(labels)} ${total}`);
  }

  text(): string {
    let text = '';
    for (const [name, { kind, help, lines }] of this.#metrics) {
      text += `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${lines.join('\n')}\n`;
    }
    return text;
  }
}

function numberOf(record: Record<string, unknown>, key: string): number {
  const value = record[key];
  return typeof value === 'number' ? value : 0;
}

function textOf(record: Record<string, unknown>, key: string): string {
  const value = record[key];
  return typeof value === 'string' ? value : '';
}

function listOf(record: Record<string, unknown>, key: string, length: number): number[] {
  const list = Array.isArray(record[key]) ? (record[key] as unknown[]) : [];
  return Array.from({ length }, (_, at) => Number(list[at] ?? 0));
}

function addFilesystem(out: Exposition, labels: Labels, m: Record<string, unknown>): void {
  const hits = listOf(m, 'fop_hits', FOP_COUNT);
  const errors = listOf(m, 'fop_errors', FOP_COUNT);
  const micros = listOf(m, 'fop_cumulative_latency_total', FOP_COUNT);
  OPERATIONS.forEach((operation, at) => {
    const by = { ...labels, operation };
    const add = (name: string, help: string, value: number): void =>
      out.sample('counter', `nydusd_fs_operation${name}_total`, help, by, value);
    add('s', 'Operations of the filesystem that succeeded.', hits[at] ?? 0);
    add('_errors', 'Operations of the filesystem that failed.', errors[at] ?? 0);
    add('_seconds', 'Time spent in operations.', (micros[at] ?? 0) / 1e6);
  });
  const bytes = numberOf(m, 'data_read');
  out.sample('counter', 'nydusd_fs_read_bytes_total', 'Bytes that readers got.', labels, bytes);
  out.histogram('nydusd_fs_read_duration_seconds', 'Time a read took.', labels, {
    bounds: READ_SECONDS,
    counts: listOf(m, 'read_latency_dist', BUCKETS),
    sum: (micros[OPERATIONS.indexOf('read')] ?? 0) / 1e6,
  });
  out.histogram('nydusd_fs_read_size_bytes', 'Bytes a read returned.', labels, {
    bounds: READ_BYTES,
    counts: listOf(m, 'block_count_read', BUCKETS),
    sum: bytes,
  });
}

function addBackend(out: Exposition, labels: Labels, m: Record<string, unknown>): void {
  const by = { ...labels, backend: textOf(m, 'backend_type') };
  const add = (name: string, help: string, key: string): void =>
    out.sample('counter', `nydusd_backend_${name}_total`, help, by, numberOf(m, key));
  add('requests', 'Ranges asked of the backend.', 'read_count');
  add('errors', 'Ranges that the backend did not give.', 'read_errors');
  add('bytes', 'Bytes that came from the backend.', 'read_amount_total');
  const hedge = (m['hedge'] ?? undefined) as Record<string, unknown> | undefined;
  if (hedge !== undefined) {
    const count = (name: string, help: string, key: string): void =>
      out.sample('counter', `nydusd_backend_hedged_${name}_total`, help, by, numberOf(hedge, key));
    count('requests', 'Requests to the host that stalled and were sent again.', 'requests');
    count('wins', 'Requests of which the second answer came first.', 'wins');
  }
  const rows = Array.isArray(m['read_latency_sizes_dist'])
    ? (m['read_latency_sizes_dist'] as number[][])
    : [];
  out.histogram('nydusd_backend_request_duration_seconds', 'Time the backend took for a range.', by, {
    bounds: FETCH_SECONDS,
    counts: Array.from({ length: BUCKETS }, (_, at) => rows.reduce((sum, row) => sum + (row[at] ?? 0), 0)),
    sum: numberOf(m, 'read_cumulative_latency_millis_total') / 1000,
  });
}

function addCache(out: Exposition, labels: Labels, m: Record<string, unknown>): void {
  const counter = (name: string, help: string, value: number, more: Labels = {}): void =>
    out.sample('counter', `nydusd_cache_${name}`, help, { ...labels, ...more }, value);
  const gauge = (name: string, help: string, value: number): void =>
    out.sample('gauge', `nydusd_cache_${name}`, help, labels, value);
  const hits = numberOf(m, 'partial_hits') + numberOf(m, 'whole_hits');
  const reads = 'Reads of chunks, by whether the cache had them.';
  counter('chunk_reads_total', reads, hits, { result: 'hit' });
  counter('chunk_reads_total', reads, Math.max(0, numberOf(m, 'total') - hits), { result: 'miss' });
  counter('chunks_stored_total', 'Chunks that became ready in this process.', numberOf(m, 'entries_count'));
  counter('prefetch_bytes_total', 'Stored bytes asked for by prefetch.', numberOf(m, 'prefetch_data_amount'));
  counter('prefetch_requests_total', 'Ranges asked for by prefetch.', numberOf(m, 'prefetch_requests_count'));
  gauge('prefetch_workers', 'Prefetches that may run at once.', numberOf(m, 'prefetch_workers'));
  gauge('fetching_bytes', 'Bytes of fetches that are under way.', numberOf(m, 'buffered_backend_size'));
  gauge('degraded_blobs', 'Blobs whose cache file refuses data.', numberOf(m, 'degraded_blobs'));
  counter('write_errors_total', 'Writes that cache files refused.', numberOf(m, 'write_errors'));
  counter('dedup_chunks_total', 'Chunks copied from other caches of this node.', numberOf(m, 'dedup_chunks'));
  counter('dedup_bytes_total', 'Bytes copied from other caches of this node.', numberOf(m, 'dedup_bytes'));
  counter(
    'evicted_bytes_total',
    'Bytes taken out of the cache to keep its size.',
    numberOf(m, 'evicted_bytes'),
  );
  gauge('complete', '1 when every chunk of the image is in the cache.', m['data_all_ready'] === true ? 1 : 0);
}

/** Clock ticks of /proc per second: Linux shows 100 to user space on every architecture we run on. */
const TICKS = 100;

function addProcess(out: Exposition): void {
  const { rss } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const started = Date.now() / 1000 - process.uptime();
  const gauge = (name: string, help: string, value: number): void =>
    out.sample('gauge', `process_${name}`, help, {}, value);
  out.sample('counter', 'process_cpu_seconds_total', 'Processor time used.', {}, (user + system) / 1e6);
  gauge('start_time_seconds', 'Start of the process since 1970.', Math.round(started * TICKS) / TICKS);
  gauge('resident_memory_bytes', 'Resident memory.', rss);
  gauge('open_fds', 'Open file descriptors.', readdirSync('/proc/self/fd').length - 1);
  const limit = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  if (limit !== undefined) gauge('max_fds', 'Limit of open file descriptors.', Number(limit));
}

interface MountInfo {
  config: { id?: unknown } | null;
}

/** All counters of a daemon. */
export function prometheusText(daemon: MetricsSource): string {
  const out = new Exposition();
  const { package_ver: version, git_commit: commit } = versionInfo();
  const info = daemon.info(true);
  const state = String(info['state']);
  out.sample('gauge', 'nydusd_info', 'The program; always 1.', { version, commit }, 1);
  out.sample('gauge', 'nydusd_state', 'The state the daemon is in; always 1.', { state }, 1);
  const mounts = Object.entries((info['backend_collection'] ?? {}) as Record<string, MountInfo>);
  out.sample('gauge', 'nydusd_mounts', 'Images and directories that are mounted.', {}, mounts.length);
  const busy = daemon.inflight().length;
  out.sample('gauge', 'nydusd_requests_in_flight', 'Requests that are being served.', {}, busy);
  for (const [mountpoint, { config }] of mounts) {
    const labels = { mountpoint };
    const fs = daemon.fsMetrics(mountpoint);
    if (fs !== undefined) addFilesystem(out, labels, fs);
    const backend = daemon.storageMetrics('backend', mountpoint) as Record<string, unknown> | undefined;
    if (backend !== undefined) addBackend(out, labels, backend);
    const id = typeof config?.id === 'string' ? config.id : undefined;
    const cache = id === undefined ? undefined : daemon.storageMetrics('blobcache', id);
    if (cache !== undefined) addCache(out, labels, cache as Record<string, unknown>);
  }
  addProcess(out);
  return out.text();
}

/** The answer to a scrape. */
export function prometheusAnswer(daemon: MetricsSource): ApiResponse {
  return {
    status: 200,
    body: prometheusText(daemon),
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
  };
}
