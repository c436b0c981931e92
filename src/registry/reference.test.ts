import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apiHost, formatReference, parseReference } from './reference.ts';

const HEX = 'a'.repeat(64);

/** text, then its complete form */
const GOOD: [string, string][] = [
  ['ubuntu', 'docker.io/library/ubuntu:latest'],
  ['ubuntu:24.04', 'docker.io/library/ubuntu:24.04'],
  ['user/app', 'docker.io/user/app:latest'],
  ['index.docker.io/library/a', 'docker.io/library/a:latest'],
  ['docker.io/a', 'docker.io/library/a:latest'],
  ['localhost/app', 'localhost/app:latest'],
  ['localhost:5000/a/b_c/d-e:v1.0', 'localhost:5000/a/b_c/d-e:v1.0'],
  ['Registry/app', 'Registry/app:latest'],
  ['[::1]:5000/app', '[::1]:5000/app:latest'],
  [`ghcr.io/o/r@sha256:${HEX}`, `ghcr.io/o/r@sha256:${HEX}`],
  [`ghcr.io/o/r:v1@sha256:${HEX}`, `ghcr.io/o/r:v1@sha256:${HEX}`],
  ['a.b/c__d', 'a.b/c__d:latest'],
];
for (const [text, complete] of GOOD) {
  test(`parseReference: ${text} is ${complete}`, () => {
    assert.equal(formatReference(parseReference(text)), complete);
    assert.deepEqual(parseReference(complete), parseReference(text));
  });
}

for (const text of [
  '',
  ':tag',
  'a:',
  'A/b/C',
  'ubuntu/',
  'a//b',
  'a..b/c__',
  'http://a/b',
  HEX,
  'a@sha256:12',
  'a:.tag',
  `a:${'t'.repeat(129)}`,
  'host:99999999/a',
  'a b',
  `${'a'.repeat(250)}/bcdef`,
  '../etc',
]) {
  test(`parseReference: refuses ${JSON.stringify(text.slice(0, 40))}`, () => {
    assert.throws(() => parseReference(text), { code: 'ERR_NYDUS_USAGE', exitCode: 1 });
  });
}

test('parseReference: no tag where none is wanted', () => {
  assert.equal(parseReference('a', { defaultTag: false }).tag, undefined);
});

test('apiHost: Docker Hub answers elsewhere', () => {
  assert.equal(apiHost('docker.io'), 'registry-1.docker.io');
  assert.equal(apiHost('ghcr.io'), 'ghcr.io');
});
