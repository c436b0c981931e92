// nydusd with the registry backend: an image whose blob is in a registry, its faults, and its way back.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer } from '../../src/registry/server/server.ts';
import type { RegistryServerOptions } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { apiRequest, startDaemon } from '../support/daemon.ts';
import { requireFuse } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { tempDir } from '../support/temporary.ts';

const FILES = ['one', 'two', 'three', 'four'];
const credentials = { lookup: () => Promise.resolve({ username: 'user', password: 'pass' }) };
const access = { kind: 'token', users: { user: 'pass' }, ttlSeconds: 2 } as const;

interface Setup {
  dir: string;
  source: string;
  bootstrap: string;
  server: RegistryServer;
  /** the same registry, started again on the same port */
  restart: () => Promise<RegistryServer>;
  config: (more?: object) => object;
}

async function setup(t: TestContext, options: Partial<RegistryServerOptions> = {}): Promise<Setup> {
  const dir = tempDir(t);
  const source = join(dir, 'source');
  mkdirSync(source);
  for (const name of FILES) writeFileSync(join(source, name), randomBytes(3_000_000));
  const bootstrap = join(dir, 'bootstrap');
  const blobs = join(dir, 'blobs');
  mkdirSync(blobs);
  nydusImage(['create', '--bootstrap', bootstrap, '--blob-dir', blobs, source]);
  const start = (port: number): Promise<RegistryServer> =>
    RegistryServer.start({ dir: join(dir, 'registry'), port, access, ...options });
  const server = await start(0);
  const { port } = server;
  t.after(() => server.close().catch(() => undefined));
  const transport = new RegistryTransport({ host: server.host, plainHttp: true, credentials });
  for (const id of readdirSync(blobs)) {
    const { digest } = await new Repository(transport, 'lib/app').pushBytes(readFileSync(join(blobs, id)));
    assert.equal(digest, `sha256:${id}`);
  }
  await transport.close();
  const config = (more: object = {}): object => {
    const auth = Buffer.from('user:pass').toString('base64');
    const registry = { scheme: 'http', host: server.host, repo: 'lib/app', auth, timeout: 2, ...more };
    mkdirSync(join(dir, 'cache'), { recursive: true });
    return {
      device: {
        backend: { type: 'registry', config: registry },
        cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } },
      },
      mode: 'direct',
      digest_validate: true,
      amplify_io: 0,
    };
  };
  const restart = async (): Promise<RegistryServer> => {
    const again = await start(port);
    t.after(() => again.close().catch(() => undefined));
    return again;
  };
  return { dir, source, bootstrap, server, restart, config };
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

async function same(source: string, mountpoint: string, name: string): Promise<void> {
  const [left, right] = await Promise.all([readFile(join(source, name)), readFile(join(mountpoint, name))]);
  assert.equal(digest(right), digest(left));
}

test(
  'nydusd: serves an image from a registry with tokens, also when they are revoked',
  { skip: requireFuse() },
  async (t) => {
    const { dir, source, bootstrap, server, config } = await setup(t);
    await using daemon = await startDaemon({ bootstrap, workDir: join(dir, 'run'), config: config() });
    await Promise.all(FILES.slice(0, 2).map((name) => same(source, daemon.mountpoint, name)));
    server.access.revokeAll();
    await Promise.all(FILES.map((name) => same(source, daemon.mountpoint, name)));
    const metrics = (await daemon.get('/api/v1/metrics/backend')) as {
      backend_type: string;
      read_errors: number;
    };
    assert.deepEqual([metrics.backend_type, metrics.read_errors], ['registry', 0]);
    const text = `${daemon.log}${JSON.stringify(await daemon.get('/api/v1/daemon'))}`;
    assert.ok(!text.includes(Buffer.from('user:pass').toString('base64')));
  },
);

test(
  'nydusd: a registry that stops gives EIO, never wrong bytes; one that is back serves again',
  { skip: requireFuse() },
  async (t) => {
    const { dir, source, bootstrap, server, restart, config } = await setup(t);
    await using daemon = await startDaemon({ bootstrap, workDir: join(dir, 'run'), config: config() });
    await same(source, daemon.mountpoint, 'one');
    await server.close();
    await same(source, daemon.mountpoint, 'one');
    await assert.rejects(readFile(join(daemon.mountpoint, 'two')), { code: 'EIO' });
    await restart();
    for (const name of FILES) await same(source, daemon.mountpoint, name);
  },
);

test(
  'nydusd: flipped bits, cut bodies, 503 and 429 between right answers never give wrong bytes',
  { skip: requireFuse() },
  async (t) => {
    let count = 0;
    const { dir, source, bootstrap, config } = await setup(t, {
      access: { kind: 'open' },
      intercept: (request, response) => {
        if (request.method !== 'GET' || request.headers.range === undefined) return false;
        const turn = count++ % 5;
        if (turn === 1) response.writeHead(503, { 'Retry-After': '0' }).end();
        else if (turn === 2) response.writeHead(429).end();
        else if (turn === 3)
          response.writeHead(206, { 'Content-Range': 'bytes 0-9/10', 'Content-Length': 10 }).end('abc');
        return turn === 1 || turn === 2 || turn === 3;
      },
    });
    await using daemon = await startDaemon({
      bootstrap,
      workDir: join(dir, 'run'),
      config: config({ timeout: 1 }),
    });
    for (const name of FILES) await same(source, daemon.mountpoint, name);
    assert.ok(count > 5);
  },
);

test('nydusd: PUT /config gives a mounted image new credentials', { skip: requireFuse() }, async (t) => {
  const { dir, source, bootstrap, config } = await setup(t);
  const wrong = config({ auth: Buffer.from('user:old').toString('base64') });
  await using daemon = await startDaemon({ bootstrap, workDir: join(dir, 'run'), config: wrong });
  await assert.rejects(readFile(join(daemon.mountpoint, 'one')));
  const body = JSON.stringify({ registry_auth: Buffer.from('user:pass').toString('base64') });
  assert.equal((await apiRequest(daemon.apisock, 'PUT', '/api/v1/config?id=%2F', body)).status, 204);
  await same(source, daemon.mountpoint, 'one');
});
