// Configuration text -> ConfigV2. Three spellings: version 2 as JSON or TOML, and the older JSON of version 1; JSON may
// carry // and /* */ comments. Source: nydusd.md 7, blob-and-cache.md 22.
import { readFileSync, statSync } from 'node:fs';
import { parse as parseToml } from 'smol-toml';
import { NydusError, UsageError, messageOf } from '../base/errors.ts';
import { parseSize } from '../base/size.ts';
import { MAX_CONFIG_SIZE, MIN_CACHE_SIZE } from '../base/limits.ts';
import { DRIVERS } from './config.ts';
import type { BackendConfig, CacheConfig, ConfigV2, PrefetchConfig, RafsConfig } from './config.ts';
import { BACKEND_TYPES, readBackend } from './config-parse-backend.ts';
import { Section, keyError, type ConfigDocument } from './config-parse-fields.ts';
import { JsonSyntaxError, linesOf, parseJson, valueOf } from './config-parse-json.ts';
import { tomlLines } from './config-parse-toml.ts';

/** Upstream's texts; clients match on them. */
const NOT_PARSED = 'failed to parse configuration information';
const NOT_VALID = 'invalid configuration';

/** Largest amplification and merging size (nydusd.md 7.1). */
export const MAX_BATCH_SIZE = 0x1000_0000;
export const DEFAULT_BATCH_SIZE = 0x10_0000;
export const MAX_PREFETCH_THREADS = 1024;
const DEFAULT_PREFETCH_THREADS = 8;

const CACHE_TYPES = ['blobcache', 'filecache', 'fscache', 'dummycache', ''] as const;
const MODES = ['direct', 'cached'] as const;

export interface ParsedConfig {
  /** what was parsed: another process parses it again */
  text: string;
  config: ConfigV2;
  /** one line each: unknown keys, with their line */
  warnings: string[];
}

export interface ParseOptions {
  /** replaces `backend.registry.auth` (IMAGE_PULL_AUTH of the environment) */
  imagePullAuth?: string | undefined;
}

const NO_PREFETCH: PrefetchConfig = {
  enable: false,
  threads: 0,
  batch_size: 0,
  bandwidth_limit: 0,
  prefetch_all: false,
  stream_prefetch: false,
};

function checkText(text: string): void {
  const size = Buffer.byteLength(text);
  if (size > MAX_CONFIG_SIZE) {
    throw new UsageError(
      `configuration file size is too big: ${size} bytes, the limit is ${MAX_CONFIG_SIZE}`,
      {
        exitCode: 1,
      },
    );
  }
}

function notRecognised(hint: string): UsageError {
  return new UsageError(NOT_PARSED, { exitCode: 1, hint });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function jsonDocument(text: string): ConfigDocument {
  const root = parseJson(text, { comments: true });
  const { lines, duplicate } = linesOf(text, root);
  const value = valueOf(root);
  if (!isObject(value)) throw notRecognised('the document must be an object');
  const document: ConfigDocument = {
    value,
    lineOf: (path) => lines.get(path),
    complaint: NOT_PARSED,
    warnings: [],
  };
  if (duplicate !== undefined) throw keyError(document, duplicate, 'stands twice in its object');
  return document;
}

function tomlDocument(text: string): ConfigDocument {
  const value = parseToml(text) as Record<string, unknown>;
  const lines = tomlLines(text);
  return { value, lineOf: (path) => lines.get(path), complaint: NOT_VALID, warnings: [] };
}

/** JSON first, then TOML; when neither, the message is about the one the text looks like. */
function readDocument(text: string): ConfigDocument {
  try {
    return jsonDocument(text);
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    const start = text.trimStart();
    const looksLikeJson = /^\s*(\{|\[|\/\/|\/\*)/.test(text) && !/^\s*\[[\w.[\]"-]+\]/.test(text);
    if (start === '') throw notRecognised('the configuration is empty');
    if (looksLikeJson) {
      throw new UsageError(`${NOT_PARSED}: line ${error.line}, column ${error.column}: ${error.message}`, {
        exitCode: 1,
        cause: error,
        hint: 'the text must be JSON (// and /* */ comments are fine) or TOML',
      });
    }
    try {
      return tomlDocument(text);
    } catch (tomlError) {
      const line = (tomlError as { line?: number }).line;
      const problem = messageOf(tomlError)
        .split('\n')[0]
        ?.replace(/^Invalid TOML document: /, '');
      throw new UsageError(`${NOT_PARSED}: ${line === undefined ? '' : `line ${line}: `}${problem}`, {
        exitCode: 1,
        cause: tomlError,
        hint: 'the text must be JSON (// and /* */ comments are fine) or TOML',
      });
    }
  }
}

interface PrefetchKeys {
  threads: string;
  batch: string;
  bandwidth: string;
  allByDefault: boolean;
  enableRequired: boolean;
}

function readPrefetch(section: Section, keys: PrefetchKeys): PrefetchConfig {
  const enable = section.boolean('enable', keys.enableRequired ? undefined : false);
  const prefetch: PrefetchConfig = {
    enable,
    threads: section.integer(
      keys.threads,
      DEFAULT_PREFETCH_THREADS,
      enable ? { min: 1, max: MAX_PREFETCH_THREADS } : { max: Number.MAX_SAFE_INTEGER },
    ),
    batch_size: section.integer(keys.batch, DEFAULT_BATCH_SIZE, {
      max: enable ? MAX_BATCH_SIZE : Number.MAX_SAFE_INTEGER,
    }),
    bandwidth_limit: section.integer(keys.bandwidth, 0, { max: 0xffff_ffff }),
    prefetch_all: section.boolean('prefetch_all', keys.allByDefault),
    stream_prefetch: section.boolean('stream_prefetch', false),
  };
  section.done();
  return prefetch;
}

const V1_PREFETCH: PrefetchKeys = {
  threads: 'threads_count',
  batch: 'merging_size',
  bandwidth: 'bandwidth_rate',
  allByDefault: true,
  enableRequired: false,
};

const V2_PREFETCH: PrefetchKeys = {
  threads: 'threads',
  batch: 'batch_size',
  bandwidth: 'bandwidth_limit',
  allByDefault: false,
  enableRequired: true,
};

/** `max_size`, a key of ours: bytes, or text with a unit. */
function readMaxSize(settings: Section): { max_size?: number } {
  if (typeof settings.raw('max_size') !== 'string') {
    const bytes = settings.integer('max_size', 0, { max: Number.MAX_SAFE_INTEGER });
    if (bytes !== 0 && bytes < MIN_CACHE_SIZE)
      settings.fail('max_size', `${bytes} is less than ${MIN_CACHE_SIZE}, the least that makes sense`);
    return bytes === 0 ? {} : { max_size: bytes };
  }
  const bytes = parseSize(settings.string('max_size'));
  if (bytes === undefined || bytes < MIN_CACHE_SIZE)
    return settings.fail('max_size', 'must be a number of bytes or text like 10GiB, at least 1MiB');
  return { max_size: bytes };
}

/** File or fscache sections of the cache; `settings` is absent when the document has none. */
function readCacheSettings(
  type: CacheConfig['type'],
  settings: Section | undefined,
  fail: (problem: string) => never,
): Pick<CacheConfig, 'filecache' | 'fscache'> {
  if (type === '' || type === 'dummycache') return { filecache: null, fscache: null };
  if (settings === undefined) return fail(`is missing: a cache of type ${type} needs it`);
  const work_dir = settings.filled('work_dir', '.');
  settings.ignore('compressed');
  if (type === 'fscache') {
    settings.done();
    return { filecache: null, fscache: { work_dir } };
  }
  const encryption_key = settings.string('encryption_key', '');
  if (encryption_key !== '' && !/^[0-9a-fA-F]{64}$/.test(encryption_key)) {
    settings.fail('encryption_key', 'must be 64 hexadecimal digits, 32 bytes');
  }
  const filecache = {
    work_dir,
    disable_indexed_map: settings.boolean('disable_indexed_map', false),
    enable_encryption: settings.boolean('enable_encryption', false),
    enable_convergent_encryption: settings.boolean('enable_convergent_encryption', false),
    encryption_key,
    ...readMaxSize(settings),
  };
  settings.done();
  return { filecache, fscache: null };
}

function readV1Cache(device: Section, prefetch: PrefetchConfig): CacheConfig {
  const cache = device.section('cache') ?? new Section(device.document, device.pathOf('cache'), {});
  const type = cache.choice('type', CACHE_TYPES, '');
  const settings = cache.section('config');
  const parsed: CacheConfig = {
    type,
    compressed: false,
    validate: cache.boolean('validate', false),
    prefetch: prefetch.enable ? { ...prefetch } : { ...NO_PREFETCH, prefetch_all: true },
    ...readCacheSettings(type, settings, (problem) => cache.fail('config', problem)),
  };
  cache.boolean('compressed', false); // historic, without effect
  cache.done();
  return parsed;
}

function readV1(document: ConfigDocument): ConfigV2 {
  const root = new Section(document, '', document.value);
  const device = root.required('device');
  const types = BACKEND_TYPES.filter((type) => type !== 'http-proxy');
  const backend = device.required('backend');
  const type = backend.choice('type', types);
  const backendConfig = readBackend(type, backend.required('config'));
  backend.done();
  const mode = root.choice('mode', MODES);
  const prefetchSection = root.section('fs_prefetch');
  const prefetch =
    prefetchSection === undefined ? { ...NO_PREFETCH } : readPrefetch(prefetchSection, V1_PREFETCH);
  const config: ConfigV2 = {
    version: 2,
    id: device.string('id', ''),
    backend: backendConfig,
    external_backends: device.list('external_backends'),
    cache: readV1Cache(device, prefetch),
    rafs: {
      mode,
      batch_size: root.integer('amplify_io', DEFAULT_BATCH_SIZE, { max: MAX_BATCH_SIZE }),
      validate: root.boolean('digest_validate', false),
      enable_xattr: root.boolean('enable_xattr', false),
      iostats_files: root.boolean('iostats_files', false),
      access_pattern: root.boolean('access_pattern', false),
      latest_read_files: root.boolean('latest_read_files', false),
      prefetch,
    },
    overlay: null,
    ...readDriver(root),
  };
  device.ignore('external_backend');
  device.done();
  root.ignore('id', 'warmup', 'id_mapping', 'version');
  root.done();
  return config;
}

function readV2Backend(root: Section): BackendConfig | null {
  const backend = root.section('backend');
  if (backend === undefined) return null;
  const type = backend.choice('type', BACKEND_TYPES);
  const parsed = readBackend(type, backend.required(type));
  // sections of other types may stand beside the chosen one, unread
  backend.ignore(...BACKEND_TYPES);
  backend.done();
  return parsed;
}

function readV2Cache(root: Section): CacheConfig | null {
  const cache = root.section('cache');
  if (cache === undefined) return null;
  const type = cache.choice('type', CACHE_TYPES, '');
  const key = type === 'fscache' ? 'fscache' : 'filecache';
  const prefetch = cache.section('prefetch');
  const parsed: CacheConfig = {
    type,
    compressed: cache.boolean('compressed', false),
    validate: cache.boolean('validate', false),
    prefetch: prefetch === undefined ? { ...NO_PREFETCH } : readPrefetch(prefetch, V2_PREFETCH),
    ...readCacheSettings(type, cache.section(key), (problem) => cache.fail(key, problem)),
  };
  cache.ignore('filecache', 'fscache');
  cache.done();
  return parsed;
}

function readV2Rafs(root: Section): RafsConfig | null {
  const rafs = root.section('rafs');
  if (rafs === undefined) return null;
  const prefetch = rafs.section('prefetch');
  const parsed: RafsConfig = {
    mode: rafs.choice('mode', MODES, 'direct'),
    batch_size: rafs.integer('batch_size', DEFAULT_BATCH_SIZE, { max: MAX_BATCH_SIZE }),
    validate: rafs.boolean('validate', false),
    enable_xattr: rafs.boolean('enable_xattr', false),
    iostats_files: rafs.boolean('iostats_files', false),
    access_pattern: rafs.boolean('access_pattern', false),
    latest_read_files: rafs.boolean('latest_read_files', false),
    prefetch: prefetch === undefined ? { ...NO_PREFETCH } : readPrefetch(prefetch, V2_PREFETCH),
  };
  rafs.done();
  return parsed;
}

/** `driver`, a key of ours at the top of both versions. */
function readDriver(root: Section): Pick<ConfigV2, 'driver'> {
  const driver = root.choice('driver', ['', ...DRIVERS], '');
  return driver === '' ? {} : { driver };
}

function readOverlay(root: Section): ConfigV2['overlay'] {
  const overlay = root.section('overlay');
  if (overlay === undefined) return null;
  const parsed = { upper_dir: overlay.string('upper_dir'), work_dir: overlay.string('work_dir') };
  if (parsed.upper_dir === '' || parsed.work_dir === '') {
    const key = parsed.upper_dir === '' ? 'upper_dir' : 'work_dir';
    overlay.fail(key, 'workdir and upperdir must be specified for overlayfs');
  }
  overlay.done();
  return parsed;
}

function readV2(document: ConfigDocument): ConfigV2 {
  document.complaint = NOT_VALID;
  const root = new Section(document, '', document.value);
  root.ignore('version', 'id_mapping', 'warmup');
  const config: ConfigV2 = {
    version: 2,
    id: root.string('id', ''),
    backend: readV2Backend(root),
    external_backends: root.list('external_backends'),
    cache: readV2Cache(root),
    rafs: readV2Rafs(root),
    overlay: readOverlay(root),
    ...readDriver(root),
  };
  root.done();
  return config;
}

/**
 * Parse and check a configuration.
 *
 * @throws UsageError that names the key by its full path, and its line
 * Source: nydusd.md 7
 */
export function parseConfig(text: string, options: ParseOptions = {}): ParsedConfig {
  checkText(text);
  const document = readDocument(text);
  const version = document.value['version'];
  let config: ConfigV2;
  if (version === 2) config = readV2(document);
  else if ('device' in document.value) config = readV1(document);
  else if (version === undefined) {
    throw notRecognised('a configuration has `version: 2`, or `device` and `mode`; this one has neither');
  } else throw keyError(document, 'version', 'only version 2 is known');
  const auth = options.imagePullAuth ?? '';
  const registry = config.backend?.registry;
  if (auth !== '' && registry) registry['auth'] = auth;
  return { text, config, warnings: document.warnings };
}

/**
 * Read and parse a configuration file.
 *
 * @throws UsageError, exit 1, when it cannot be read, is over 1 MiB, or is wrong; the message begins with the path
 */
export function readConfigFile(path: string, options: ParseOptions = {}): ParsedConfig {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_CONFIG_SIZE) {
      throw new UsageError(
        `configuration file size is too big: ${size} bytes, the limit is ${MAX_CONFIG_SIZE}`,
        {
          exitCode: 1,
        },
      );
    }
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof NydusError) throw error;
    throw new UsageError(`cannot read the configuration ${path}: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: 'name a readable file with --config',
    });
  }
  return parseConfig(text, options);
}

/**
 * The configuration as the API shows it: every section, absent ones as null, secrets blanked as upstream blanks them
 * (S3 keys too). `readahead` of localfs shows only when it is on: upstream does not know it.
 */
export function redactConfig(config: ConfigV2): Record<string, unknown> {
  const backend = config.backend;
  const blank = (section: Record<string, unknown> | null): Record<string, unknown> | null =>
    section === null ? null : { ...section, access_key_id: '', access_key_secret: '' };
  const localfs = backend?.localfs ?? null;
  const registry = backend?.registry ?? null;
  return {
    version: 2,
    id: config.id,
    backend: backend && {
      type: backend.type,
      localdisk: backend.localdisk,
      localfs: localfs && {
        blob_file: localfs.blob_file,
        dir: localfs.dir,
        alt_dirs: localfs.alt_dirs,
        ...(localfs.readahead ? { readahead: true, readahead_sec: localfs.readahead_sec } : {}),
      },
      oss: blank(backend.oss),
      s3: blank(backend.s3),
      registry: registry && { ...registry, auth: null, registry_token: null },
      'http-proxy': backend['http-proxy'],
    },
    external_backends: config.external_backends,
    cache: config.cache && {
      ...config.cache,
      filecache: config.cache.filecache && {
        ...config.cache.filecache,
        encryption_key: '',
      },
    },
    rafs: config.rafs,
    overlay: config.overlay,
  };
}
