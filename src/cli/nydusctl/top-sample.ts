// What `nydusctl top` shows: counters of every mount at two moments, and the rates between them.
import { member, numberAt, numbersAt, type DaemonApi, type Json } from './api.ts';

/** Counters of one mount, summed since it was mounted. */
export interface MountSample {
  mountpoint: string;
  type: string;
  operations: number;
  errors: number;
  readBytes: number;
  reads: number;
  /** microseconds spent in reads */
  readMicros: number;
  fetchedBytes: number;
  fetches: number;
  /** reads of chunks, and those that the cache answered */
  chunkReads: number;
  chunkHits: number;
  prefetchedBytes: number;
  /** every chunk is in the cache */
  complete: boolean;
}

/** The daemon at one moment. */
export interface Sample {
  /** milliseconds, from any zero */
  at: number;
  state: string;
  mounts: MountSample[];
}

/** One line of the table. */
export interface Rates {
  mountpoint: string;
  type: string;
  ops_per_second: number;
  read_bytes_per_second: number;
  /** mean of the reads since the last look; null when there was none */
  read_latency_micros: number | null;
  fetched_bytes_per_second: number;
  fetched_bytes: number;
  /** share of the chunk reads since the last look that the cache answered; null when there was none */
  hit_rate: number | null;
  errors: number;
  prefetched_bytes: number;
  complete: boolean;
}

const FOPS = 15;
const READ = 4;

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

async function counters(api: DaemonApi, path: string, id: Json): Promise<Json> {
  if (typeof id !== 'string') return null;
  const { status, body } = await api.request('GET', `${path}?id=${encodeURIComponent(id)}`);
  // 404: nothing is counted of it, or it was unmounted meanwhile
  return status === 200 ? body : null;
}

async function mountSample(api: DaemonApi, mount: Json): Promise<MountSample> {
  const mountpoint = member(mount, 'mountpoint');
  const fs = await counters(api, '/api/v1/metrics', mountpoint);
  const backend = await counters(api, '/api/v1/metrics/backend', mountpoint);
  const cache = await counters(api, '/api/v1/metrics/blobcache', member(mount, 'config', 'id'));
  const hits = numbersAt(fs, 'fop_hits', FOPS);
  const type = member(mount, 'backend_type');
  return {
    mountpoint: typeof mountpoint === 'string' ? mountpoint : '?',
    type: typeof type === 'string' ? type : '?',
    operations: sum(hits),
    errors: sum(numbersAt(fs, 'fop_errors', FOPS)),
    readBytes: numberAt(fs, 'data_read'),
    reads: hits[READ] ?? 0,
    readMicros: numbersAt(fs, 'fop_cumulative_latency_total', FOPS)[READ] ?? 0,
    fetchedBytes: numberAt(backend, 'read_amount_total'),
    fetches: numberAt(backend, 'read_count'),
    chunkReads: numberAt(cache, 'total'),
    chunkHits: numberAt(cache, 'partial_hits') + numberAt(cache, 'whole_hits'),
    prefetchedBytes: numberAt(cache, 'prefetch_data_amount'),
    complete: member(cache, 'data_all_ready') === true,
  };
}

/** Ask the daemon for everything. Throws what DaemonApi throws. */
export async function takeSample(api: DaemonApi): Promise<Sample> {
  const { body } = await api.request('GET', '/api/v1/daemon');
  const mounts = member(body, 'backend_collection');
  const list = mounts !== null && typeof mounts === 'object' && !Array.isArray(mounts) ? mounts : {};
  const state = member(body, 'state');
  const samples: MountSample[] = [];
  for (const key of Object.keys(list).sort()) samples.push(await mountSample(api, list[key] ?? null));
  return { at: performance.now(), state: typeof state === 'string' ? state : '?', mounts: samples };
}

/** What happened between two samples. Mounts that are new count from their beginning. */
export function ratesBetween(before: Sample, now: Sample): Rates[] {
  const seconds = Math.max((now.at - before.at) / 1000, 0.001);
  return now.mounts.map((mount) => {
    const old = before.mounts.find(({ mountpoint }) => mountpoint === mount.mountpoint);
    // counters that went back belong to another mount at the same place
    const since = (key: 'operations' | 'readBytes' | 'reads' | 'readMicros' | 'fetchedBytes'): number => {
      const earlier = old?.[key] ?? 0;
      return mount[key] >= earlier ? mount[key] - earlier : mount[key];
    };
    const chunkReads = mount.chunkReads - (old?.chunkReads ?? 0);
    const chunkHits = mount.chunkHits - (old?.chunkHits ?? 0);
    const reads = since('reads');
    return {
      mountpoint: mount.mountpoint,
      type: mount.type,
      ops_per_second: since('operations') / seconds,
      read_bytes_per_second: since('readBytes') / seconds,
      read_latency_micros: reads === 0 ? null : since('readMicros') / reads,
      fetched_bytes_per_second: since('fetchedBytes') / seconds,
      fetched_bytes: mount.fetchedBytes,
      hit_rate: chunkReads > 0 ? Math.max(0, Math.min(1, chunkHits / chunkReads)) : null,
      errors: mount.errors,
      prefetched_bytes: mount.prefetchedBytes,
      complete: mount.complete,
    };
  });
}
