// The effective configuration (version 2) of one RAFS instance. Keys are spelled as in the files users write.
// Source: nydusd.md 7. Parsing and validation: config-parse.ts.

export interface ProxyConfig {
  url: string;
  ping_url: string;
  fallback: boolean;
  check_interval: number;
  use_http: boolean;
  check_pause_elapsed: number;
  dragonfly_scheduler_endpoint: string;
}

export interface LocalfsConfig {
  blob_file: string;
  dir: string;
  alt_dirs: string[];
  /** record and replay what is read, see blob-and-cache 21.6 */
  readahead: boolean;
  /** seconds that accesses are recorded */
  readahead_sec: number;
}

/** `type` names the section that is present; the readers beside each backend fill in its defaults. */
export interface BackendConfig {
  type: string;
  localfs: LocalfsConfig | null;
  localdisk: Record<string, unknown> | null;
  oss: Record<string, unknown> | null;
  s3: Record<string, unknown> | null;
  registry: Record<string, unknown> | null;
  'http-proxy': Record<string, unknown> | null;
}

export interface PrefetchConfig {
  enable: boolean;
  threads: number;
  batch_size: number;
  bandwidth_limit: number;
  prefetch_all: boolean;
  stream_prefetch: boolean;
}

export interface FileCacheConfig {
  work_dir: string;
  disable_indexed_map: boolean;
  enable_encryption: boolean;
  enable_convergent_encryption: boolean;
  encryption_key: string;
  /** ours: bytes that the files in work_dir may have together; absent = no limit */
  max_size?: number;
}

export interface CacheConfig {
  /** '' and 'dummycache' mean no cache */
  type: '' | 'dummycache' | 'blobcache' | 'filecache' | 'fscache';
  compressed: boolean;
  validate: boolean;
  prefetch: PrefetchConfig;
  filecache: FileCacheConfig | null;
  fscache: { work_dir: string } | null;
}

export interface RafsConfig {
  mode: 'direct' | 'cached';
  batch_size: number;
  validate: boolean;
  enable_xattr: boolean;
  iostats_files: boolean;
  access_pattern: boolean;
  latest_read_files: boolean;
  prefetch: PrefetchConfig;
}

/** How an image gets into the kernel; `auto` takes the best that works here. */
export const DRIVERS = ['auto', 'fuse', 'fileio', 'fanotify'] as const;
export type DriverChoice = (typeof DRIVERS)[number];

export interface ConfigV2 {
  version: 2;
  /** present when the configuration says it */
  driver?: DriverChoice;
  id: string;
  backend: BackendConfig | null;
  external_backends: unknown[];
  cache: CacheConfig | null;
  rafs: RafsConfig | null;
  overlay: { upper_dir: string; work_dir: string } | null;
}
