import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  backendSuite,
  SUITE_BLOB,
  SUITE_BLOB_ID,
  type HttpSubject,
  type HttpSuite,
} from '../../../test/conformance/backend-suite.ts';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { BlobServer } from '../../../test/support/blob-server.ts';
import { requirePeer } from '../../../test/support/prerequisites.ts';
import type { AfterHook } from '../../../test/support/temporary.ts';
import { verifyAws, verifyOss, type Keys } from '../../../test/support/verify-signature.ts';
import { silentLogger } from '../../base/log.ts';
import { openBackend } from './backend.ts';
import { OssBackend, readOssConfig, readS3Config, S3Backend } from './object-store.ts';

const REGION = 'eu-west-3';
const PREFIX = 'pre fix/ä+(1)/';
const OBJECT = `/${PREFIX}${SUITE_BLOB_ID}`;
const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** A bucket whose key may change. */
interface Bucket {
  server: BlobServer;
  keys: Keys;
}

async function bucket(
  t: AfterHook,
  verify: (request: Parameters<typeof verifyAws>[0], keys: Keys) => boolean,
  path: string,
): Promise<Bucket> {
  const keys: Keys = { AK: 'secret/1' };
  const server = await BlobServer.start(t, {
    authorize: (request) => (verify(request, keys) ? 0 : 403),
    find: (request) =>
      decodeURIComponent(new URL(request.url ?? '', 'http://any').pathname) === path ? SUITE_BLOB : undefined,
  });
  return { server, keys };
}

/** Bucket hosts do not resolve here: requests go through the server as their proxy, as in golden/backend/oss.json. */
function proxyOf(server: BlobServer): object {
  const proxy = { url: `http://${server.host}`, ping_url: '', fallback: false, check_interval: 5 };
  return { ...proxy, use_http: false, check_pause_elapsed: 300, dragonfly_scheduler_endpoint: '' };
}

const COMMON = { scheme: 'http', bucket_name: 'bucket', object_prefix: PREFIX, access_key_id: 'AK' };

function suiteOf(
  start: (t: AfterHook) => Promise<Bucket>,
  open: (server: BlobServer, settings: object) => OssBackend | S3Backend,
): HttpSuite {
  return {
    make: async (t, settings): Promise<HttpSubject> => {
      const { server, keys } = await start(t);
      const backend = open(server, { access_key_secret: 'secret/1', ...settings });
      t.after(() => void backend.close());
      const expire = (): void => {
        delete keys['AK'];
        keys['NEW'] = 'secret:2';
      };
      return {
        backend,
        server,
        expire,
        renew: () => backend.configure('registry_auth', base64('NEW:secret:2')),
      };
    },
  };
}

const oss = suiteOf(
  (t) => bucket(t, (request, keys) => verifyOss(request, keys, 'bucket'), OBJECT),
  (server, settings) => {
    const section = { ...COMMON, endpoint: 'oss.example.test', proxy: proxyOf(server), ...settings };
    return new OssBackend(readOssConfig(section), silentLogger, { env: {}, random: () => 0 });
  },
);
backendSuite('oss', async (t) => (await oss.make(t, {})).backend, oss);

const s3 = suiteOf(
  (t) => bucket(t, (request, keys) => verifyAws(request, keys, REGION), `/bucket${OBJECT}`),
  (server, settings) => {
    const section = { ...COMMON, endpoint: server.host, region: REGION, ...settings };
    return new S3Backend(readS3Config(section), silentLogger, { env: {}, random: () => 0 });
  },
);
backendSuite('s3 path style', async (t) => (await s3.make(t, {})).backend, s3);

const virtual = suiteOf(
  (t) => bucket(t, (request, keys) => verifyAws(request, keys, REGION), OBJECT),
  (server, settings) => {
    const where = { endpoint: 's3.example.test', region: REGION, addressing_style: 'virtual' };
    const section = { ...COMMON, ...where, proxy: proxyOf(server), ...settings };
    return new S3Backend(readS3Config(section), silentLogger, { env: {}, random: () => 0 });
  },
);
backendSuite('s3 virtual host style', async (t) => (await virtual.make(t, {})).backend, virtual);

test(
  'S3Backend: the server of these tests accepts what curl signs, and nothing that was changed',
  {
    skip: requirePeer('curl'),
  },
  async (t) => {
    const { server } = await bucket(t, (request, keys) => verifyAws(request, keys, REGION), '/bucket/one');
    const curl = async (secret: string): Promise<string> => {
      const sign = ['--aws-sigv4', `aws:amz:${REGION}:s3`, '--user', `AK:${secret}`];
      const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
      const args = ['-s', '-o', '/dev/null', '-w', '%{http_code}', ...sign, '-r', '0-9'];
      const child = spawn('curl', [
        ...args,
        '-H',
        `x-amz-content-sha256: ${empty}`,
        `http://${server.host}/bucket/one`,
      ]);
      const pieces: Buffer[] = [];
      child.stdout.on('data', (piece: Buffer) => pieces.push(piece));
      await once(child, 'close');
      return Buffer.concat(pieces).toString();
    };
    assert.equal(await curl('secret/1'), '206');
    assert.equal(await curl('secret/2'), '403');
  },
);

test('S3Backend: wrong keys are refused with a hint, secrets stay out of messages', async (t) => {
  const { server } = await bucket(t, (request, keys) => verifyAws(request, keys, REGION), `/bucket${OBJECT}`);
  const lines: string[] = [];
  const section = { ...COMMON, endpoint: server.host, region: REGION, access_key_secret: 'WRONGSECRET' };
  const backend = new S3Backend(readS3Config(section), collectingLogger(lines), { env: {} });
  t.after(() => void backend.close());
  await assert.rejects(
    (await backend.open(SUITE_BLOB_ID)).read(0, 10),
    (error: Error & { hint?: string }) => {
      assert.match(error.message, /status 403$/);
      assert.match(error.hint ?? '', /access_key_id/);
      return true;
    },
  );
  backend.configure('registry_auth', base64('no colon'));
  assert.deepEqual(lines, [
    'warn registry_auth is not base64 of access_key_id:access_key_secret, it is ignored',
  ]);
});

test('readS3Config: an empty endpoint is Amazon', () => {
  assert.equal(readS3Config({ endpoint: '' }).endpoint, 's3.amazonaws.com');
});

test('openBackend: types oss and s3', async () => {
  const none = { localfs: null, localdisk: null, oss: null, s3: null, registry: null, 'http-proxy': null };
  const section = { endpoint: 'e', bucket_name: 'b', region: 'r' };
  for (const type of ['oss', 's3'] as const) {
    const backend = openBackend({ ...none, type, [type]: section }, silentLogger);
    // upstream's metrics call both so
    assert.equal(backend.type, 'oss');
    await backend.close();
  }
});
