// Texts of foreign servers: challenges, ranges, waits, URLs for messages, manifests.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseChallenge, parseChallenges } from './challenge.ts';
import { parseIndex, parseManifest } from './manifest.ts';
import { parseContentRange, parseUnsatisfied } from './ranges.ts';
import { redactUrl } from './redact.ts';
import { backoff, parseRetryAfter, pause } from './retry.ts';

test('chooseChallenge: bearer with everything, values may hold = and ,', () => {
  const header = 'Bearer realm="https://a/token?x=1",service="s=1",scope="repository:a:pull,push"';
  assert.deepEqual(chooseChallenge(header), {
    realm: 'https://a/token?x=1',
    service: 's=1',
    scope: 'repository:a:pull,push',
  });
});

test('chooseChallenge: case, blanks, several challenges, escapes', () => {
  assert.equal(chooseChallenge('BASIC realm="x"'), 'basic');
  assert.deepEqual(chooseChallenge('Basic realm="x", bearer Realm = "http://b/t" , SERVICE=s'), {
    realm: 'http://b/t',
    service: 's',
    scope: '',
  });
  assert.equal(parseChallenges('Basic realm="a\\"b"')[0]?.parameters.get('realm'), 'a"b');
});

test('chooseChallenge: what cannot be used is left out, and nothing throws', () => {
  for (const header of [
    '',
    'Bearer',
    'Bearer realm="file:///etc/passwd"',
    'Negotiate',
    '"',
    'Bearer realm="',
    ',,=,',
  ]) {
    assert.equal(chooseChallenge(header), undefined, header);
  }
  assert.equal(chooseChallenge('Bearer realm="nonsense", Basic realm="x"'), 'basic');
});

test('parseContentRange: exact or nothing', () => {
  assert.deepEqual(parseContentRange('bytes 0-9/100'), { start: 0, end: 10, total: 100 });
  assert.deepEqual(parseContentRange('bytes 5-5/*'), { start: 5, end: 6, total: undefined });
  for (const text of [
    '',
    'bytes 9-0/100',
    'bytes 0-100/100',
    'bytes */100',
    'items 0-1/2',
    'bytes 0-1e3/9',
  ]) {
    assert.equal(parseContentRange(text), undefined, text);
  }
  assert.equal(parseUnsatisfied('bytes */100'), 100);
  assert.equal(parseUnsatisfied('bytes 0-1/100'), undefined);
});

test('parseRetryAfter: seconds and dates, at most a minute', () => {
  const now = Date.UTC(2026, 0, 1);
  assert.equal(parseRetryAfter('3', now), 3000);
  assert.equal(parseRetryAfter('999999', now), 60_000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:10 GMT', now), 10_000);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2020 00:00:10 GMT', now), 0);
  assert.equal(parseRetryAfter('soon', now), undefined);
});

test('backoff: doubles, half of it random, capped', () => {
  assert.deepEqual(
    [1, 2, 3, 9].map((failed) => backoff(failed, 100, 1000, 0)),
    [50, 100, 200, 500],
  );
  assert.deepEqual(
    [1, 2, 3, 9].map((failed) => backoff(failed, 100, 1000, 1)),
    [100, 200, 400, 1000],
  );
});

test('pause: an abort ends it with the reason', async () => {
  const reason = new Error('enough');
  await assert.rejects(pause(60_000, AbortSignal.abort(reason)), reason);
  const abort = new AbortController();
  const waiting = pause(60_000, abort.signal);
  abort.abort(reason);
  await assert.rejects(waiting, reason);
});

test('redactUrl: no user, no password, no signature', () => {
  const url = 'https://user:pass@h:5000/v2/a?X-Amz-Signature=abc&X-Amz-Credential=d&page=2&token=t#f';
  assert.equal(redactUrl(url), 'https://h:5000/v2/a?X-Amz-Signature=…&X-Amz-Credential=…&page=2&token=…');
});

const DIGEST = `sha256:${'0'.repeat(64)}`;
const part = { mediaType: 'a/b', digest: DIGEST, size: 1 };

test('parseManifest, parseIndex: what is right is kept whole', () => {
  const manifest = { schemaVersion: 2, config: part, layers: [part], 'x-other': 1 };
  assert.deepEqual(parseManifest(Buffer.from(JSON.stringify(manifest))), manifest);
  const index = {
    schemaVersion: 2,
    manifests: [{ ...part, platform: { os: 'linux', architecture: 'arm64' } }],
  };
  assert.deepEqual(parseIndex(Buffer.from(JSON.stringify(index))), index);
});

const WRONG: [unknown, RegExp][] = [
  [[], /no JSON object/],
  [{ schemaVersion: 1 }, /manifest\.schemaVersion: is 1/],
  [{ schemaVersion: 2, layers: [] }, /manifest\.config: is no descriptor/],
  [{ schemaVersion: 2, config: { ...part, digest: 'sha256:../..' }, layers: [] }, /config: digest/],
  [{ schemaVersion: 2, config: part, layers: [{ ...part, size: -1 }] }, /layers\[0\]: size -1/],
  [{ schemaVersion: 2, config: part, layers: {} }, /layers: is no list/],
];
for (const [value, message] of WRONG) {
  test(`parseManifest: refuses ${JSON.stringify(value).slice(0, 60)}`, () => {
    assert.throws(() => parseManifest(Buffer.from(JSON.stringify(value))), {
      code: 'ERR_NYDUS_FORMAT',
      message,
    });
  });
}
test('parseManifest: refuses what is no JSON, with no content in the message', () => {
  assert.throws(() => parseManifest(Buffer.from([0xff, 0xfe])), { code: 'ERR_NYDUS_FORMAT' });
});
