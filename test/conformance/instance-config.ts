// Configurations of instances for tests, complete and explicit.
import type {
  CacheConfig,
  ConfigV2,
  FileCacheConfig,
  PrefetchConfig,
  RafsConfig,
} from '../../src/storage/config.ts';

export const noPrefetch: PrefetchConfig = {
  enable: false,
  threads: 8,
  batch_size: 1048576,
  bandwidth_limit: 0,
  prefetch_all: false,
  stream_prefetch: false,
};

export interface InstanceConfigOptions {
  blobDir: string;
  /** undefined = no cache */
  workDir: string | undefined;
  cache?: Partial<CacheConfig>;
  filecache?: Partial<FileCacheConfig>;
  rafs?: Partial<RafsConfig>;
  prefetch?: Partial<PrefetchConfig>;
  altDirs?: string[];
}

/** A localfs backend with a blobcache (or none). */
export function instanceConfig(options: InstanceConfigOptions): ConfigV2 {
  const { blobDir, workDir, filecache } = options;
  const prefetch = { ...noPrefetch, ...options.prefetch };
  return {
    version: 2,
    id: '',
    backend: {
      type: 'localfs',
      localfs: {
        blob_file: '',
        dir: blobDir,
        alt_dirs: options.altDirs ?? [],
        readahead: false,
        readahead_sec: 0,
      },
      localdisk: null,
      oss: null,
      s3: null,
      registry: null,
      'http-proxy': null,
    },
    external_backends: [],
    cache: {
      type: workDir === undefined ? '' : 'blobcache',
      compressed: false,
      validate: false,
      prefetch,
      filecache:
        workDir === undefined
          ? null
          : {
              work_dir: workDir,
              disable_indexed_map: filecache?.disable_indexed_map ?? false,
              enable_encryption: filecache?.enable_encryption ?? false,
              enable_convergent_encryption: filecache?.enable_convergent_encryption ?? false,
              encryption_key: filecache?.encryption_key ?? '',
              ...(filecache?.max_size === undefined ? {} : { max_size: filecache.max_size }),
            },
      fscache: null,
      ...options.cache,
    },
    rafs: {
      mode: 'direct',
      batch_size: 1048576,
      validate: false,
      enable_xattr: true,
      iostats_files: false,
      access_pattern: false,
      latest_read_files: false,
      prefetch,
      ...options.rafs,
    },
    overlay: null,
  };
}
