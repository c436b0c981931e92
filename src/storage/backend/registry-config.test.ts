import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../../test/support/temporary.ts';
import { parseConfig, redactConfig } from '../config-parse.ts';
import { readCaFiles } from './http-config.ts';
import { readRegistryConfig } from './registry-config.ts';

function text(mirrors: unknown): string {
  const config = {
    scheme: 'http',
    host: 'h:5000',
    repo: 'lib/app',
    auth: 'dTpw',
    registry_token: ' T ',
    mirrors,
  };
  const cache = { type: 'blobcache', config: { work_dir: '/c' } };
  return JSON.stringify({ device: { backend: { type: 'registry', config }, cache }, mode: 'direct' });
}

test('readRegistryConfig: every key of the parser, mirrors with their defaults', () => {
  const mirrors = [
    { host: 'http://m:1', headers: { 'X-A': 'secret' }, failure_limit: 2, auth_through: false },
  ];
  const { config, warnings } = parseConfig(text(mirrors));
  assert.deepEqual(warnings, []);
  assert.deepEqual(readRegistryConfig(config.backend?.registry ?? {}), {
    scheme: 'http',
    host: 'h:5000',
    repo: 'lib/app',
    auth: 'dTpw',
    registry_token: 'T',
    blob_url_scheme: '',
    blob_redirected_host: '',
    skip_verify: false,
    ca_cert_files: [],
    timeout: 5,
    connect_timeout: 5,
    retry_limit: 0,
    outage_wait: 0,
    proxy: null,
    mirrors: [
      {
        host: 'http://m:1',
        ping_url: '',
        headers: { 'X-A': 'secret' },
        health_check_interval: 5,
        failure_limit: 2,
        health_check_pause_elapsed: 300,
      },
    ],
  });
  const shown = JSON.stringify(redactConfig(config));
  assert.ok(shown.includes('http://m:1'));
  for (const secret of ['secret', 'dTpw', '"T"']) assert.ok(!shown.includes(secret), secret);
});

for (const [mirrors, message] of [
  [[{ host: 'm:1' }], /mirrors\[0\]\.host`.*must be http:\/\//],
  [[{}], /mirrors\[0\]\.host/],
  [['m'], /mirrors\[0\]`.*must be an object/],
  [{}, /mirrors`.*must be a list/],
  [[{ host: 'http://m', headers: { A: 1 } }], /mirrors\[0\]\.headers\.A/],
] as const) {
  test(`parseConfig: refuses mirrors ${JSON.stringify(mirrors)}`, () => {
    assert.throws(() => parseConfig(text(mirrors)), { code: 'ERR_NYDUS_USAGE', message });
  });
}

test('readCaFiles: a file that is missing or holds no certificate is named', (t) => {
  const path = join(tempDir(t), 'ca.pem');
  assert.throws(() => readCaFiles([path]), { message: /cannot read the CA certificate .*ca\.pem/ });
  writeFileSync(path, 'nothing');
  assert.throws(() => readCaFiles([path]), { message: /ca\.pem has no PEM certificate$/ });
});
