// The backend of a configuration, asked over real HTTP: there, refused, gone, silent; and no credentials in what is said.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { parseConfig } from '../../storage/config-parse.ts';
import { BlobServer } from '../../../test/support/blob-server.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { backendCheck, placeOf } from './backend.ts';
import type { Finding } from './finding.ts';
import { runChecks } from './run-checks.ts';

const SECRET = 'geheim';
const AUTH = Buffer.from(`user:${SECRET}`).toString('base64');

async function look(backend: object, signal = new AbortController().signal): Promise<Finding> {
  const text = JSON.stringify({
    version: 2,
    backend,
    cache: { type: 'blobcache', filecache: { work_dir: '/none' } },
    rafs: { mode: 'direct' },
  });
  const [finding] = await runChecks([backendCheck(parseConfig(text).config)], signal);
  assert.ok(finding !== undefined);
  assert.ok(!JSON.stringify(finding).includes(SECRET) && !JSON.stringify(finding).includes(AUTH));
  return finding;
}

/** A registry that lets `user` in and has no blob. */
async function registry(t: TestContext): Promise<BlobServer> {
  return BlobServer.start(t, { find: () => undefined });
}

function basic(server: BlobServer): void {
  server.always = (request, response) => {
    if (request.headers.authorization === `Basic ${AUTH}`) return server.serve(request, response);
    response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
  };
}

function section(server: { host: string }, more: object = {}): object {
  return { type: 'registry', registry: { scheme: 'http', host: server.host, repo: 'a/b', ...more } };
}

test('backendCheck: a registry that knows no such blob is reached', async (t) => {
  const server = await registry(t);
  const { status, detail, essential } = await look(section(server));
  assert.deepEqual(
    [status, detail, essential],
    ['ok', `${server.host}/a/b answers, not encrypted, without credentials`, true],
  );
  assert.equal(server.requests.length, 1);
});

test('backendCheck: credentials that are taken, wrong and missing', async (t) => {
  const server = await registry(t);
  basic(server);
  const good = await look(section(server, { auth: AUTH }));
  assert.deepEqual(
    [good.status, good.detail],
    ['ok', `${server.host}/a/b answers, not encrypted, with credentials`],
  );
  const wrong = await look(section(server, { auth: Buffer.from('user:other').toString('base64') }));
  assert.equal(wrong.status, 'fail');
  assert.equal(wrong.detail, `${server.host}/a/b refuses us (401), not encrypted, with credentials`);
  const none = await look(section(server));
  assert.equal(none.detail, `${server.host}/a/b refuses us (401), not encrypted, without credentials`);
  assert.equal(none.fix, 'set backend.registry.auth or IMAGE_PULL_AUTH');
});

test('backendCheck: nobody listens, and no TLS where TLS is asked for', async (t) => {
  const server = await registry(t);
  const tls = await look(section(server, { scheme: 'https' }));
  assert.equal(tls.status, 'fail');
  assert.match(tls.detail, /no TLS/);
  assert.match(tls.fix ?? '', /ask for http/);
  await server.down();
  const gone = await look(section(server));
  assert.equal(gone.status, 'fail');
  assert.match(gone.detail, /connection refused/);
});

test('backendCheck: a server that says nothing is given up after its time-out, whatever outage_wait says', async (t) => {
  const server = await registry(t);
  server.always = () => {};
  const finding = await look(section(server, { timeout: 1, outage_wait: 3600 }));
  assert.equal(finding.status, 'fail');
  assert.match(finding.detail, /within 1 s/);
});

test('backendCheck: an object store that hides what is not there may be well', async (t) => {
  const server = await registry(t);
  server.always = (_request, response) => void response.writeHead(403).end();
  const keys = { access_key_id: 'id', access_key_secret: SECRET };
  const s3 = { scheme: 'http', endpoint: server.host, region: 'r', bucket_name: 'b', ...keys };
  const finding = await look({ type: 's3', s3 });
  assert.equal(finding.status, 'warn');
  assert.match(finding.detail, /answers 403, not encrypted, with credentials/);
});

test('backendCheck: directories of blobs', async (t) => {
  const dir = tempDir(t);
  const there = await look({ type: 'localfs', localfs: { dir } });
  assert.deepEqual([there.status, there.detail], ['ok', `localfs: ${dir} can be read`]);
  const none = await look({ type: 'localfs', localfs: { dir: `${dir}/none` } });
  assert.equal(none.status, 'fail');
  assert.equal(none.fix, `create ${dir}/none, or let this user read it`);
});

test('placeOf: names the server and nothing else', () => {
  assert.equal(placeOf('http-proxy', { addr: `http://user:${SECRET}@host:81/x` }), 'host:81');
  assert.equal(placeOf('http-proxy', { addr: '/run/proxy.sock' }), '/run/proxy.sock');
  assert.equal(placeOf('s3', { endpoint: 'e', bucket_name: 'b' }), 'e b');
});
