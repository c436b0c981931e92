import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { BucketServer } from '../../../test/support/bucket-server.ts';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { noise } from '../../../test/support/sample-tree.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { verifyAws, verifyOss } from '../../../test/support/verify-signature.ts';
import { silentLogger } from '../../base/log.ts';
import { isExhausted } from '../exhausted.ts';
import { objectStore } from './object-store.ts';

const KEYS = { AK: 'secret/1' };
const ID = 'ab'.repeat(32);
const CONFIG = { scheme: 'http', bucket_name: 'bucket', object_prefix: 'pre fix/ä+/', access_key_id: 'AK' };
const SIGNAL = new AbortController().signal;

function blobFile(t: TestContext, size: number): { file: string; bytes: Buffer } {
  const bytes = Buffer.from(noise('blob', size));
  const file = join(tempDir(t), 'blob');
  writeFileSync(file, bytes);
  return { file, bytes };
}

const s3 = (port: number, secret = 'secret/1'): Record<string, string> => ({
  ...CONFIG,
  endpoint: `127.0.0.1:${port}`,
  region: 'eu-west-3',
  access_key_secret: secret,
});

const aws = (request: IncomingMessage): boolean => verifyAws(request, KEYS, 'eu-west-3');

test('objectStore: s3, small and large blobs arrive as they are, signed in every request', async (t) => {
  for (const [size, requests] of [
    [1000, ['PUT']],
    [0, ['PUT']],
    [70_000, ['POST', 'PUT', 'PUT', 'PUT', 'POST']],
    [65_536, ['POST', 'PUT', 'PUT', 'POST']],
  ] as const) {
    const bucket = await BucketServer.start(t, { verify: aws });
    const options = { retries: 0, retryDelayMs: 1, logger: silentLogger, pieceSize: 32_768 };
    const store = objectStore({ type: 's3', config: s3(bucket.port), ...options });
    t.after(() => store.close());
    const { file, bytes } = blobFile(t, size);
    assert.equal(await store.has(ID, size, SIGNAL), false);
    await store.put(ID, file, size, SIGNAL);
    assert.ok(bucket.objects.get(`/bucket/pre fix/ä+/${ID}`)?.equals(bytes));
    assert.deepEqual(
      bucket.requests.slice(1).map((line) => line.split(' ')[0]),
      requests,
    );
    assert.equal(await store.has(ID, size, SIGNAL), true);
    assert.equal(await store.has(ID, size + 1, SIGNAL), false);
    assert.equal(bucket.openUploads, 0);
  }
});

test('objectStore: oss, in one request and in pieces, and the CRC of the store is compared', async (t) => {
  let lie = false;
  const bucket = await BucketServer.start(t, {
    verify: (request) => verifyOss(request, KEYS, 'bucket'),
    intercept: (request, response) => {
      if (!lie || request.method !== 'PUT') return false;
      response.writeHead(200, { 'x-oss-hash-crc64ecma': '17', ETag: '"x"', 'Content-Length': 0 }).end();
      return true;
    },
  });
  const config = { ...CONFIG, endpoint: 'oss.invalid', access_key_secret: 'secret/1' };
  const options = { retries: 0, retryDelayMs: 1, logger: silentLogger, pieceSize: 32_768 };
  // the bucket's host does not resolve here: its server stands in as a proxy
  const proxy = `http://127.0.0.1:${bucket.port}`;
  const store = objectStore({ type: 'oss', config, proxyFor: () => proxy, ...options });
  t.after(() => store.close());
  for (const size of [1000, 70_000]) {
    const { file, bytes } = blobFile(t, size);
    await store.put(ID, file, size, SIGNAL);
    assert.ok(bucket.objects.get(`/pre fix/ä+/${ID}`)?.equals(bytes));
  }
  lie = true;
  await assert.rejects(store.put(ID, blobFile(t, 10).file, 10, SIGNAL), {
    code: 'ERR_NYDUS_INTEGRITY',
    message: /has CRC64 17, \d+ was sent/,
  });
});

test('objectStore: what may pass is tried again, what does not is said, and nothing is left behind', async (t) => {
  let faults = 2;
  let status = 503;
  const bucket = await BucketServer.start(t, {
    verify: aws,
    intercept: (request, response) => {
      if (request.method !== 'PUT' || faults-- <= 0) return false;
      const text = '<Error><Code>SlowDown</Code><Message>later</Message></Error>';
      response.writeHead(status, { 'Content-Length': text.length }).end(text);
      return true;
    },
  });
  const lines: string[] = [];
  const logger = collectingLogger(lines);
  const options = { retries: 2, retryDelayMs: 1, logger, pieceSize: 32_768 };
  const store = objectStore({ type: 's3', config: s3(bucket.port), ...options });
  t.after(() => store.close());
  const { file, bytes } = blobFile(t, 70_000);
  await store.put(ID, file, bytes.length, SIGNAL);
  assert.ok(bucket.objects.get(`/bucket/pre fix/ä+/${ID}`)?.equals(bytes));
  assert.equal(lines.filter((line) => line.includes('503 SlowDown later; retry')).length, 2);
  [faults, status] = [100, 500];
  await assert.rejects(store.put(ID, file, bytes.length, SIGNAL), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'ERR_NYDUS_REGISTRY');
    assert.match(error.message, /500 SlowDown/);
    // whoever asked need not begin all of it again
    return isExhausted(error);
  });
  assert.equal(bucket.openUploads, 0);
  faults = 0;
  const stranger = objectStore({ type: 's3', config: s3(bucket.port, 'another-s3cret'), ...options });
  t.after(() => stranger.close());
  await assert.rejects(stranger.put(ID, file, bytes.length, SIGNAL), (error: Error & { hint?: string }) => {
    assert.match(error.message, /403 SignatureDoesNotMatch wrong/);
    assert.match(error.hint ?? '', /check the access key/);
    assert.equal(isExhausted(error), false);
    return !`${error.message}${lines.join()}`.includes('s3cret');
  });
});

test('objectStore: a key that is missing is named', () => {
  const options = { retries: 0, retryDelayMs: 1, logger: silentLogger };
  const { region: _, ...without } = s3(1);
  assert.throws(() => objectStore({ type: 's3', config: without, ...options }), /backend s3 has no region/);
  assert.throws(
    () => objectStore({ type: 'oss', config: CONFIG, ...options }),
    /backend oss has no access_key_secret/,
  );
});
