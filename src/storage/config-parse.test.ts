import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { UsageError } from '../base/errors.ts';
import { parseConfig, readConfigFile, redactConfig } from './config-parse.ts';

// The document that issue 5, section 6 says must be accepted as it stands.
const SEED = `{
  "device": {
    "backend": {
      // localfs, oss, or registry
      "type": "localfs",
      "config": { "dir": "/blobs", "readahead": true, "readahead_sec": 5,
        "proxy": "http://p2p-proxy:65001", "proxy_fallback": true, "proxy_ping_url": "http://p2p-proxy:40901/server/ping",
        "proxy_check_interval": 5, "timeout": 5, "connect_timeout": 5, "retry_limit": 2 }
    },
    "cache": { "type": "blobcache", "config": { "work_dir": "cache" } }
  },
  "mode": "direct", "digest_validate": false, "iostats_files": false, "enable_xattr": true,
  "fs_prefetch": { "enable": true, "threads_count": 10, "merging_size": 131072 }
}
`;

const MINIMAL = {
  device: {
    backend: { type: 'localfs', config: { dir: '/blobs' } },
    cache: { type: 'blobcache', config: { work_dir: '/cache' } },
  },
  mode: 'direct',
};

const NO_PREFETCH = {
  enable: false,
  threads: 0,
  batch_size: 0,
  bandwidth_limit: 0,
  prefetch_all: false,
  stream_prefetch: false,
};

const TOML = `version = 2
id = "one"

[backend]
type = "localfs"

[backend.localfs]
dir = "/blobs"

[cache]
type = "filecache"
validate = true

[cache.filecache]
work_dir = "/cache"

[rafs]
mode = "direct"
batch_size = 65536

[rafs.prefetch]
enable = true
threads = 3
`;

/** MINIMAL with one value put at a dotted path. */
function withValue(path: string, value: unknown): string {
  const document = structuredClone(MINIMAL) as Record<string, unknown>;
  let at = document;
  const keys = path.split('.');
  for (const key of keys.slice(0, -1)) {
    at[key] ??= {};
    at = at[key] as Record<string, unknown>;
  }
  at[keys.at(-1) ?? ''] = value;
  return JSON.stringify(document, null, 2);
}

function errorOf(text: string): UsageError {
  try {
    parseConfig(text);
  } catch (error) {
    assert.ok(error instanceof UsageError, String(error));
    return error;
  }
  return assert.fail('the configuration was accepted');
}

/** Line of the first occurrence of `needle`, from 1. */
function lineOf(text: string, needle: string): number {
  return text.slice(0, text.indexOf(needle)).split('\n').length;
}

describe('parseConfig', () => {
  it('parseConfig: accepts the seed document with comments and flat proxy keys', () => {
    const { config, warnings } = parseConfig(SEED);
    assert.deepEqual(warnings, []);
    assert.deepEqual(config.backend?.localfs, {
      blob_file: '',
      dir: '/blobs',
      alt_dirs: [],
      readahead: true,
      readahead_sec: 5,
    });
    const prefetch = {
      enable: true,
      threads: 10,
      batch_size: 131072,
      bandwidth_limit: 0,
      prefetch_all: true,
      stream_prefetch: false,
    };
    assert.deepEqual(config.rafs?.prefetch, prefetch);
    assert.deepEqual(config.cache?.prefetch, prefetch);
    assert.equal(config.cache?.filecache?.work_dir, 'cache');
    assert.equal(config.rafs?.enable_xattr, true);
  });

  it('parseConfig: fills in the defaults of version 1', () => {
    const { config, warnings } = parseConfig(JSON.stringify(MINIMAL));
    assert.deepEqual(warnings, []);
    assert.deepEqual(config, {
      version: 2,
      id: '',
      backend: {
        type: 'localfs',
        localdisk: null,
        localfs: { blob_file: '', dir: '/blobs', alt_dirs: [], readahead: false, readahead_sec: 5 },
        oss: null,
        s3: null,
        registry: null,
        'http-proxy': null,
      },
      external_backends: [],
      cache: {
        type: 'blobcache',
        compressed: false,
        validate: false,
        prefetch: { ...NO_PREFETCH, prefetch_all: true },
        filecache: {
          work_dir: '/cache',
          disable_indexed_map: false,
          enable_encryption: false,
          enable_convergent_encryption: false,
          encryption_key: '',
        },
        fscache: null,
      },
      rafs: {
        mode: 'direct',
        batch_size: 1048576,
        validate: false,
        enable_xattr: false,
        iostats_files: false,
        access_pattern: false,
        latest_read_files: false,
        prefetch: NO_PREFETCH,
      },
      overlay: null,
    });
  });

  it('parseConfig: reads version 2 from TOML and from JSON alike', () => {
    const fromToml = parseConfig(TOML).config;
    assert.equal(fromToml.id, 'one');
    assert.equal(fromToml.cache?.validate, true);
    assert.equal(fromToml.rafs?.batch_size, 65536);
    assert.deepEqual(fromToml.rafs?.prefetch, {
      ...NO_PREFETCH,
      enable: true,
      threads: 3,
      batch_size: 1048576,
    });
    const json = JSON.stringify({
      version: 2,
      id: 'one',
      backend: { type: 'localfs', localfs: { dir: '/blobs' } },
      cache: { type: 'filecache', validate: true, filecache: { work_dir: '/cache' } },
      rafs: { batch_size: 65536, prefetch: { enable: true, threads: 3 } },
    });
    assert.deepEqual(parseConfig(json).config, fromToml);
  });

  it('parseConfig: makes a proxy object of the flat keys for HTTP backends', () => {
    const text = withValue('device.backend', {
      type: 'registry',
      config: {
        host: 'h:5000',
        repo: 'lib/app',
        auth: 'dTpw',
        proxy: 'http://p:1',
        proxy_fallback: false,
        proxy_check_interval: 9,
      },
    });
    const { config } = parseConfig(text);
    assert.deepEqual(config.backend?.registry, {
      scheme: 'https',
      host: 'h:5000',
      repo: 'lib/app',
      auth: 'dTpw',
      registry_token: null,
      blob_url_scheme: '',
      blob_redirected_host: '',
      skip_verify: false,
      ca_cert_files: [],
      timeout: 5,
      connect_timeout: 5,
      retry_limit: 0,
      proxy: {
        url: 'http://p:1',
        ping_url: '',
        fallback: false,
        check_interval: 9,
        use_http: false,
        check_pause_elapsed: 300,
        dragonfly_scheduler_endpoint: '',
      },
    });
  });

  it('parseConfig: IMAGE_PULL_AUTH replaces the registry credentials', () => {
    const text = withValue('device.backend', {
      type: 'registry',
      config: { host: 'h', repo: 'r', auth: 'dTpw' },
    });
    assert.equal(parseConfig(text, { imagePullAuth: 'eDp5' }).config.backend?.registry?.['auth'], 'eDp5');
    assert.equal(parseConfig(text, { imagePullAuth: '' }).config.backend?.registry?.['auth'], 'dTpw');
  });

  it('parseConfig: warns of unknown keys with path and line, not of those real clients write', () => {
    const text = `{
  "device": {
    "backend": { "type": "localfs", "config": { "dir": "/b", "mirrors": [], "bucket": "" } },
    "cache": { "type": "blobcache", "config": { "work_dir": "/c", "compressed": true,
      "wrok_dir": "/d" } },
    "external_backend": {}
  },
  "id": "x", "warmup": {}, "id_mapping": {},
  "mode": "direct",
  "enable_xatr": true
}`;
    assert.deepEqual(parseConfig(text).warnings, [
      'unknown key `device.backend.config.bucket` at line 3 is ignored',
      'unknown key `device.cache.config.wrok_dir` at line 5 is ignored',
      'unknown key `enable_xatr` at line 10 is ignored',
    ]);
  });

  it('parseConfig: a wrong value names the key and its line', () => {
    const cases: [path: string, value: unknown, problem: RegExp][] = [
      ['mode', 'weird', /`weird` is not one of direct, cached/],
      ['mode', 7, /must be a string, found the number 7/],
      ['digest_validate', 'yes', /must be true or false, found a string/],
      ['amplify_io', 0x1000_0001, /268435457 is out of range, it must be 0 to 268435456/],
      ['amplify_io', -1, /-1 is out of range/],
      ['amplify_io', 1.5, /must be a whole number/],
      ['device.id', [], /must be a string, found a list/],
      ['device.cache.type', 'disk', /`disk` is not one of blobcache, filecache, fscache, dummycache/],
      ['device.cache.validate', 1, /must be true or false/],
      ['device.cache.config.work_dir', '', /must not be empty/],
      ['device.cache.config.encryption_key', 'ab', /64 hexadecimal digits/],
      ['device.backend.type', 'http-proxy', /`http-proxy` is not one of/],
      ['device.backend.config.alt_dirs', ['/x', 3], /must be a string, found the number 3/],
      ['device.backend.config.retry_limit', 256, /0 to 255/],
      ['device.backend.config.readahead_sec', 'soon', /must be a whole number/],
      ['device.backend.config.proxy', 3, /must be an object, found the number 3/],
      ['fs_prefetch', { enable: true, threads_count: 0 }, /0 is out of range, it must be 1 to 1024/],
      ['fs_prefetch', { enable: true, threads_count: 1025 }, /1 to 1024/],
      ['fs_prefetch', { enable: true, merging_size: 0x1000_0001 }, /out of range/],
      ['fs_prefetch', { bandwidth_rate: 2 ** 32 }, /0 to 4294967295/],
    ];
    for (const [path, value, problem] of cases) {
      const text = withValue(path, value);
      const error = errorOf(text);
      assert.match(error.message, problem, path);
      const named = /`([\w.[\]-]+)` at line (\d+)/.exec(error.message);
      assert.ok(named, error.message);
      assert.ok(named[1]?.startsWith(path), error.message);
      const key = (named[1] ?? '')
        .replace(/\[\d+\]$/, '')
        .split('.')
        .at(-1);
      const offset = named[1]?.endsWith('[1]') === true ? 2 : 0;
      const needle = typeof value === 'string' ? `"${key}": ${JSON.stringify(value)}` : `"${key}"`;
      assert.equal(Number(named[2]), lineOf(text, needle) + offset, error.message);
      assert.equal(error.exitCode, 1);
    }
  });

  it('parseConfig: a missing key names the key and the line of its section', () => {
    const cases: [text: string, message: string][] = [
      [
        '{\n "device": {\n  "backend": { "type": "localfs", "config": { "dir": "/b" } }\n } }',
        '`mode` at line 1: is missing, it must be a string',
      ],
      [
        '{ "mode": "direct",\n "device": {} }',
        '`device.backend` at line 2: is missing, it must be an object',
      ],
      [
        '{ "mode": "direct",\n "device": {\n "backend": {"type": "localfs",\n "config": {} } } }',
        '`device.backend.config.dir` at line 4: is missing: a localfs backend needs `dir` or `blob_file`',
      ],
      [
        '{ "mode": "direct",\n "device": {"backend": {"type": "localfs", "config": {"dir": "/b"}},\n "cache": {"type": "blobcache"} } }',
        '`device.cache.config` at line 3: is missing: a cache of type blobcache needs it',
      ],
    ];
    for (const [text, message] of cases) {
      assert.equal(errorOf(text).message, `failed to parse configuration information: ${message}`);
    }
  });

  it('parseConfig: version 2 errors begin with upstream words and name key and line, in TOML too', () => {
    assert.equal(
      errorOf(TOML.replace('"filecache"', '"disk"')).message,
      'invalid configuration: `cache.type` at line 11: `disk` is not one of blobcache, filecache, fscache, dummycache, an empty string',
    );
    assert.equal(
      errorOf(TOML.replace('threads = 3', 'threads = 3000')).message,
      'invalid configuration: `rafs.prefetch.threads` at line 23: 3000 is out of range, it must be 1 to 1024',
    );
    assert.equal(
      errorOf('version = 2\n[backend]\ntype = "s3"\n').message,
      'invalid configuration: `backend.s3` at line 2: is missing, it must be an object',
    );
    assert.match(
      errorOf('{"version":2,"overlay":{"upper_dir":"/u","work_dir":""}}').message,
      /`overlay.work_dir` at line 1: workdir and upperdir must be specified for overlayfs/,
    );
  });

  it('parseConfig: what is neither JSON nor TOML gives upstream words and the line', () => {
    const cases: [text: string, message: string][] = [
      ['', 'failed to parse configuration information'],
      ['{}', 'failed to parse configuration information'],
      ['[]', 'failed to parse configuration information'],
      [
        '{\n  "mode": direct }',
        'failed to parse configuration information: line 2, column 11: expected value',
      ],
      ['{\n  "a": 1,\n}', 'failed to parse configuration information: line 3, column 1: trailing comma'],
      [
        '{ /* never closed }',
        'failed to parse configuration information: line 1, column 3: comment is never closed',
      ],
      [
        '{"version": 3}',
        'failed to parse configuration information: `version` at line 1: only version 2 is known',
      ],
      [
        '{"device": 1,\n "device": 2}',
        'failed to parse configuration information: `device` at line 2: stands twice in its object',
      ],
    ];
    for (const [text, message] of cases) assert.equal(errorOf(text).message, message, text);
    assert.match(errorOf('version = 2\nid = oops\n').message, /^failed to parse .*: line 2: /);
  });

  it('parseConfig: refuses more than 1 MiB and nesting without end', () => {
    assert.match(errorOf(' '.repeat(1048577)).message, /^configuration file size is too big: 1048577 bytes/);
    assert.match(errorOf('['.repeat(100_000)).message, /recursion limit exceeded/);
  });

  it('parseConfig: a secret never shows in an error', () => {
    const text = withValue('device.backend', {
      type: 'registry',
      config: { host: 'h', repo: 'r', auth: 'c2VjcmV0' },
    });
    const error = errorOf(text);
    assert.match(error.message, /`device.backend.config.auth` at line \d+: must be base64/);
    assert.ok(!error.message.includes('c2VjcmV0'));
  });
});

describe('readConfigFile', () => {
  it('readConfigFile: reads a file, and says which one it cannot read', () => {
    const dir = mkdtempSync(join(tmpdir(), 'config-'));
    try {
      writeFileSync(join(dir, 'a.json'), SEED);
      assert.equal(readConfigFile(join(dir, 'a.json')).config.backend?.type, 'localfs');
      assert.throws(() => readConfigFile(join(dir, 'b.json')), {
        code: 'ERR_NYDUS_USAGE',
        exitCode: 1,
        message: /cannot read the configuration .*b\.json: ENOENT/,
      });
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('redactConfig', () => {
  it('redactConfig: shows the document as golden/api does', () => {
    const { config } = parseConfig(JSON.stringify({ ...MINIMAL, digest_validate: true, enable_xattr: true }));
    assert.equal(
      JSON.stringify(redactConfig(config)),
      '{"version":2,"id":"","backend":{"type":"localfs","localdisk":null,"localfs":{"blob_file":"","dir":"/blobs","alt_dirs":[]},"oss":null,"s3":null,"registry":null,"http-proxy":null},"external_backends":[],"cache":{"type":"blobcache","compressed":false,"validate":false,"prefetch":{"enable":false,"threads":0,"batch_size":0,"bandwidth_limit":0,"prefetch_all":true,"stream_prefetch":false},"filecache":{"work_dir":"/cache","disable_indexed_map":false,"enable_encryption":false,"enable_convergent_encryption":false,"encryption_key":""},"fscache":null},"rafs":{"mode":"direct","batch_size":1048576,"validate":true,"enable_xattr":true,"iostats_files":false,"access_pattern":false,"latest_read_files":false,"prefetch":{"enable":false,"threads":0,"batch_size":0,"bandwidth_limit":0,"prefetch_all":false,"stream_prefetch":false}},"overlay":null}',
    );
  });

  it('redactConfig: blanks secrets', () => {
    const shown = (type: string, config: Record<string, unknown>): string =>
      JSON.stringify(
        redactConfig(parseConfig(withValue('device.backend', { type, config })).config)['backend'],
      );
    const keys = { access_key_id: 'KEYID', access_key_secret: 'KEYSECRET' };
    assert.ok(!shown('oss', { endpoint: 'e', bucket_name: 'b', ...keys }).includes('KEY'));
    assert.ok(!shown('s3', { endpoint: '', region: 'r', bucket_name: 'b', ...keys }).includes('KEY'));
    const registry = shown('registry', { host: 'h', repo: 'r', auth: 'dTpw', registry_token: 'TOKEN' });
    assert.ok(!registry.includes('dTpw') && !registry.includes('TOKEN'), registry);
    assert.match(registry, /"auth":null,"registry_token":null/);
  });
});

it('parseConfig: max_size of the cache is bytes or text with a unit, and at least 1 MiB', () => {
  const parse = (max_size: unknown): number | undefined =>
    parseConfig(
      JSON.stringify({
        version: 2,
        cache: { type: 'blobcache', filecache: { work_dir: '/c', max_size } },
      }),
    ).config.cache?.filecache?.max_size;
  assert.equal(parse('10GiB'), 10 * 2 ** 30);
  assert.equal(parse(1048576), 1048576);
  assert.equal(parse(0), undefined);
  for (const wrong of ['much', '1KiB', 1000, -1, true])
    assert.throws(() => parse(wrong), /cache\.filecache\.max_size/);
});
