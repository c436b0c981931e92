// Shapes of the API's bodies as JSON Schema (2020-12), for the OpenAPI document. Source: nydusd.md 5.4-5.8, 6.
import { BUCKETS, FOP_COUNT } from '../serve/counters.ts';
import { LOG_LEVELS } from '../base/log.ts';

/** A JSON Schema. */
export type Schema = Readonly<Record<string, unknown>>;

const text: Schema = { type: 'string' };
const flag: Schema = { type: 'boolean' };
const count: Schema = { type: 'integer', minimum: 0 };
const nullable = (type: string): Schema => ({ type: [type, 'null'] });
const list = (items: Schema, length?: number): Schema => ({
  type: 'array',
  items,
  ...(length === undefined ? {} : { minItems: length, maxItems: length }),
});

/** An object with exactly these keys, all of them present unless listed as optional. */
function object(properties: Record<string, Schema>, optional: readonly string[] = []): Schema {
  const required = Object.keys(properties).filter((key) => !optional.includes(key));
  return { type: 'object', properties, required, additionalProperties: false };
}

function counts(...names: string[]): Record<string, Schema> {
  return Object.fromEntries(names.map((name) => [name, count]));
}

/** Reference to a schema of the document. */
export function ref(name: keyof typeof schemas): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

const version = object({
  package_ver: text,
  git_commit: text,
  build_time: text,
  profile: { enum: ['release', 'debug'] },
  rustc: { ...text, description: 'upstream names its compiler here; ours names the runtime' },
});

const mount = {
  ...object({
    backend_type: { enum: ['Rafs', 'PassthroughFs'] },
    mountpoint: text,
    mounted_time: { ...text, examples: ['2026-01-01 00:00:00.0 +00:00:00'] },
    config: {
      type: ['object', 'null'],
      description: 'the effective configuration, version 2, without secrets; null for a directory',
    },
  }),
  // drivers and later versions may say more of a mount
  additionalProperties: true,
};

/** All named schemas. */
export const schemas = {
  DaemonInfo: {
    ...object({
      version,
      id: nullable('string'),
      supervisor: nullable('string'),
      state: { enum: ['INIT', 'READY', 'RUNNING', 'STOPPED'] },
      backend_collection: {
        type: ['object', 'null'],
        description: 'what is mounted, by mountpoint; null in version 2 of the API',
        additionalProperties: mount,
      },
    }),
    additionalProperties: true,
  },
  DaemonConf: object({
    log_level: { ...text, description: `${LOG_LEVELS.join(', ')}; upper case too` },
  }),
  Error: object({
    code: { const: 'UNDEFINED' },
    message: {
      ...text,
      examples: ['Mount(MountFilesystem(Other("object or filesystem already exists")))'],
    },
  }),
  Events: object({
    ...counts('max_errors', 'total_errors', 'max_size', 'total_size'),
    errors: list(text),
  }),
  MountCommand: {
    ...object(
      {
        source: { ...text, description: 'path of the bootstrap, or of the directory to serve' },
        fs_type: { enum: ['rafs', 'passthrough', 'passthroughfs', 'passthrough_fs'] },
        config: { ...text, description: 'the text of a configuration, JSON or TOML' },
        prefetch_files: list({ ...text, description: 'absolute path in the image' }),
      },
      ['prefetch_files'],
    ),
    additionalProperties: true,
  },
  OlderMountCommand: {
    ...object({
      source: text,
      fstype: { enum: ['rafs', 'passthrough', 'passthroughfs', 'passthrough_fs'] },
      mountpoint: text,
      config: { ...text, description: 'path of a configuration file' },
    }),
    additionalProperties: true,
  },
  SuperMeta: {
    ...object({
      ...counts(
        'magic',
        'version',
        'sb_size',
        'root_inode',
        'chunk_size',
        'batch_size',
        'inodes_count',
        'inode_table_entries',
        'inode_table_offset',
        'blob_table_size',
        'blob_table_offset',
        'extended_blob_table_offset',
        'extended_blob_table_entries',
        'blob_device_table_count',
        'blob_device_table_offset',
        'prefetch_table_offset',
        'prefetch_table_entries',
        'meta_blkaddr',
        'root_nid',
        'chunk_table_offset',
        'chunk_table_size',
      ),
      flags: object({ bits: count }),
      attr_timeout: object(counts('secs', 'nanos')),
      entry_timeout: object(counts('secs', 'nanos')),
      is_chunk_dict: flag,
    }),
  },
  FsMetrics: object({
    files_account_enabled: flag,
    access_pattern_enabled: flag,
    record_latest_read_files_enabled: flag,
    measure_latency: flag,
    id: text,
    ...counts('nr_opens', 'data_read'),
    block_count_read: list(count, BUCKETS),
    fop_hits: list(count, FOP_COUNT),
    fop_errors: list(count, FOP_COUNT),
    fop_cumulative_latency_total: list(count, FOP_COUNT),
    read_latency_dist: list(count, BUCKETS),
  }),
  FileMetrics: {
    type: 'object',
    description: 'by inode number',
    additionalProperties: object({
      ...counts('total_fops', 'data_read'),
      block_count_read: list(count, BUCKETS),
      fop_hits: list(count, FOP_COUNT),
      fop_errors: list(count, FOP_COUNT),
    }),
  },
  LatestFiles: { ...list(list(count)), description: 'ranges of inode numbers read since the last call' },
  AccessPattern: list(object(counts('ino', 'nr_read', 'first_access_time_secs', 'first_access_time_nanos'))),
  BackendMetrics: {
    ...object({
      backend_type: text,
      ...counts('read_count', 'read_errors', 'read_amount_total', 'read_cumulative_latency_millis_total'),
      read_cumulative_latency_millis_dist: list(count, BUCKETS),
      read_count_block_size_dist: list(count, BUCKETS),
      read_latency_sizes_dist: list(list(count, BUCKETS), BUCKETS),
    }),
    additionalProperties: true,
  },
  BlobcacheMetrics: {
    ...object({
      underlying_files: list(text),
      store_path: text,
      ...counts(
        'partial_hits',
        'whole_hits',
        'total',
        'entries_count',
        'prefetch_data_amount',
        'prefetch_requests_count',
        'prefetch_workers',
        'prefetch_unmerged_chunks',
        'prefetch_cumulative_time_millis',
        'prefetch_begin_time_secs',
        'prefetch_begin_time_millis',
        'prefetch_end_time_secs',
        'prefetch_end_time_millis',
        'buffered_backend_size',
      ),
      data_all_ready: flag,
    }),
    additionalProperties: true,
  },
  Inflight: list(object(counts('inode', 'opcode', 'unique', 'timestamp_secs'))),
  Settings: {
    type: 'object',
    description:
      'registry_auth, proxy_url, dragonfly_scheduler_endpoint; without an id the keys begin with the id and a colon',
    additionalProperties: text,
  },
  BlobCacheEntry: {
    type: 'object',
    properties: { type: text, id: text, domain_id: text },
    required: ['type', 'id'],
  },
} as const satisfies Record<string, Schema>;
