// The `backend` section: one reader per backend type, for both versions of the configuration.
// Source: nydusd.md 7.3, blob-and-cache.md 21; flat proxy keys: older clients.
import { statSync } from 'node:fs';
import type { BackendConfig, LocalfsConfig, ProxyConfig } from './config.ts';
import { Section } from './config-parse-fields.ts';

const U8 = { max: 0xff };
const U32 = { max: 0xffff_ffff };
const SECONDS = { max: Number.MAX_SAFE_INTEGER };
/** Longest outage that a read may wait for, seconds: a day. */
const MAX_OUTAGE_WAIT = 86_400;

/** Seconds that localfs records accesses when `readahead` is on and `readahead_sec` is not given (blob-and-cache 21.6). */
export const DEFAULT_READAHEAD_SEC = 5;

/** Older clients wrote the proxy as a URL with `proxy_*` keys beside it; newer ones as an object. */
function proxyOf(section: Section): ProxyConfig | null {
  const flat = {
    fallback: section.boolean('proxy_fallback', true),
    ping_url: section.string('proxy_ping_url', ''),
    check_interval: section.integer('proxy_check_interval', 5, SECONDS),
  };
  if (!section.has('proxy')) {
    section.ignore('proxy');
    return null;
  }
  const url = typeof section.values['proxy'] === 'string' ? section.string('proxy') : null;
  if (url !== null) {
    return {
      url,
      ping_url: flat.ping_url,
      fallback: flat.fallback,
      check_interval: flat.check_interval,
      use_http: false,
      check_pause_elapsed: 300,
      dragonfly_scheduler_endpoint: '',
    };
  }
  const proxy = section.required('proxy');
  const parsed: ProxyConfig = {
    url: proxy.string('url', ''),
    ping_url: proxy.string('ping_url', flat.ping_url),
    fallback: proxy.boolean('fallback', flat.fallback),
    check_interval: proxy.integer('check_interval', flat.check_interval, SECONDS),
    use_http: proxy.boolean('use_http', false),
    check_pause_elapsed: proxy.integer('check_pause_elapsed', 300, SECONDS),
    dragonfly_scheduler_endpoint: proxy.string('dragonfly_scheduler_endpoint', ''),
  };
  proxy.ignore('cache_dir', 'timeout', 'connect_timeout'); // written by nydusify
  proxy.done();
  return parsed;
}

/** Headers of mirrors may hold credentials: wherever the configuration becomes JSON they are left out. */
function withheld(headers: Record<string, string>): Record<string, string> {
  return Object.defineProperty(headers, 'toJSON', { value: () => ({}), enumerable: false });
}

/** The mirror table of older clients (blob-and-cache 21.5). */
function mirrorsOf(section: Section): Record<string, unknown>[] {
  return section.list('mirrors').map((value, index) => {
    const key = `mirrors[${index}]`;
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      return section.fail(key, 'must be an object');
    }
    const mirror = new Section(section.document, section.pathOf(key), value as Record<string, unknown>);
    const host = mirror.filled('host');
    const scheme = URL.parse(host)?.protocol ?? '';
    if (scheme !== 'http:' && scheme !== 'https:')
      mirror.fail('host', 'must be http://host[:port] or https://host[:port]');
    const headers = mirror.section('headers');
    const parsed = {
      host,
      ping_url: mirror.string('ping_url', ''),
      headers: withheld(
        Object.fromEntries(
          Object.keys(headers?.values ?? {}).map((name) => [name, headers?.string(name) ?? '']),
        ),
      ),
      health_check_interval: mirror.integer('health_check_interval', 5, SECONDS),
      failure_limit: mirror.integer('failure_limit', 5, U8),
      health_check_pause_elapsed: mirror.integer('health_check_pause_elapsed', 300, SECONDS),
    };
    mirror.ignore('auth_through'); // of even older clients
    mirror.done();
    return parsed;
  });
}

/** Options that the four HTTP backends share. localfs accepts them too: clients write one block for every type. */
function common(section: Section): Record<string, unknown> {
  const mirrors = mirrorsOf(section);
  const outageWait = section.integer('outage_wait', 0, { max: MAX_OUTAGE_WAIT });
  return {
    // shown only where they are set: upstream does not know them
    ...(mirrors.length === 0 ? {} : { mirrors }),
    ...(outageWait === 0 ? {} : { outage_wait: outageWait }),
    skip_verify: section.boolean('skip_verify', false),
    ca_cert_files: section.strings('ca_cert_files'),
    timeout: section.integer('timeout', 5, U32),
    connect_timeout: section.integer('connect_timeout', 5, U32),
    retry_limit: section.integer('retry_limit', 0, U8),
    proxy: proxyOf(section),
  };
}

function localfs(section: Section): LocalfsConfig {
  const parsed: LocalfsConfig = {
    blob_file: section.string('blob_file', ''),
    dir: section.string('dir', ''),
    alt_dirs: section.strings('alt_dirs'),
    readahead: section.boolean('readahead', false),
    readahead_sec: section.integer('readahead_sec', DEFAULT_READAHEAD_SEC, U32),
  };
  if (parsed.blob_file === '' && parsed.dir === '') {
    section.fail('dir', 'is missing: a localfs backend needs `dir` or `blob_file`');
  }
  common(section);
  return parsed;
}

/** Blobs at offsets of a disk without partitions. */
function extentsOf(section: Section): { id: string; offset: number; length: number }[] {
  return section.list('blobs').map((value, index) => {
    const key = `blobs[${index}]`;
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      return section.fail(key, 'must be an object');
    }
    const blob = new Section(section.document, section.pathOf(key), value as Record<string, unknown>);
    const bytes = { max: Number.MAX_SAFE_INTEGER };
    const parsed = {
      id: blob.filled('id'),
      offset: blob.integer('offset', 0, bytes),
      length: blob.integer('length', 0, bytes),
    };
    if (parsed.length === 0) blob.fail('length', 'is missing, it must be the bytes of the blob');
    blob.done();
    return parsed;
  });
}

function localdisk(section: Section): Record<string, unknown> {
  const blobs = extentsOf(section);
  return {
    device_path: section.filled('device_path', ''),
    disable_gpt: section.boolean('disable_gpt', false),
    ...(blobs.length === 0 ? {} : { blobs }),
  };
}

const scheme = (section: Section): string => section.choice('scheme', ['https', 'http'], 'https');

function oss(section: Section): Record<string, unknown> {
  return {
    scheme: scheme(section),
    endpoint: section.filled('endpoint'),
    bucket_name: section.filled('bucket_name'),
    object_prefix: section.string('object_prefix', ''),
    access_key_id: section.string('access_key_id', ''),
    access_key_secret: section.string('access_key_secret', ''),
    ...common(section),
  };
}

function s3(section: Section): Record<string, unknown> {
  const style = section.choice('addressing_style', ['path', 'virtual'], 'path');
  return {
    ...(style === 'path' ? {} : { addressing_style: style }),
    scheme: scheme(section),
    endpoint: section.string('endpoint'),
    region: section.filled('region'),
    bucket_name: section.filled('bucket_name'),
    object_prefix: section.string('object_prefix', ''),
    access_key_id: section.string('access_key_id', ''),
    access_key_secret: section.string('access_key_secret', ''),
    ...common(section),
  };
}

function checkedAuth(section: Section): string | null {
  const auth = section.text('auth')?.trim() ?? '';
  if (auth === '') return null;
  if (!Buffer.from(auth, 'base64').toString('utf8').includes(':')) {
    section.fail('auth', 'must be base64 of user:password');
  }
  return auth;
}

function registry(section: Section): Record<string, unknown> {
  const token = section.text('registry_token')?.trim() ?? '';
  return {
    scheme: scheme(section),
    host: section.filled('host'),
    repo: section.filled('repo'),
    auth: checkedAuth(section),
    registry_token: token === '' ? null : token,
    blob_url_scheme: section.string('blob_url_scheme', ''),
    blob_redirected_host: section.string('blob_redirected_host', ''),
    ...common(section),
  };
}

function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

function httpProxy(section: Section): Record<string, unknown> {
  const addr = section.string('addr');
  if (!/^https?:\/\//.test(addr) && !(addr.startsWith('/') && isSocket(addr))) {
    section.fail('addr', 'must begin with http:// or https://, or be the path of an existing Unix socket');
  }
  return { addr, path: section.string('path', ''), ...common(section) };
}

const READERS = { localdisk, localfs, oss, s3, registry, 'http-proxy': httpProxy } as const;

/** Backend types of version 2; version 1 lacks `http-proxy`. */
export const BACKEND_TYPES = ['localdisk', 'localfs', 'oss', 's3', 'registry', 'http-proxy'] as const;
export type BackendType = (typeof BACKEND_TYPES)[number];

/** Read the section of one backend type. */
export function readBackend(type: BackendType, section: Section): BackendConfig {
  const parsed = READERS[type](section);
  section.done();
  const backend: BackendConfig = {
    type,
    localdisk: null,
    localfs: null,
    oss: null,
    s3: null,
    registry: null,
    'http-proxy': null,
  };
  if (type === 'localfs') backend.localfs = parsed as LocalfsConfig;
  else backend[type] = parsed as Record<string, unknown>;
  return backend;
}
