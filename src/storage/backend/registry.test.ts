import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  backendSuite,
  SUITE_BLOB,
  SUITE_BLOB_ID,
  type HttpSuite,
} from '../../../test/conformance/backend-suite.ts';
import { BlobServer } from '../../../test/support/blob-server.ts';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import type { AfterHook } from '../../../test/support/temporary.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { RegistryServer } from '../../registry/server/server.ts';
import { Repository } from '../../registry/repository.ts';
import { RegistryTransport } from '../../registry/transport.ts';
import { openBackend } from './backend.ts';
import { RegistryBackend } from './registry.ts';
import type { RegistrySeams } from './registry.ts';
import { readRegistryConfig } from './registry-config.ts';
import type { RegistryConfig } from './registry-config.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Serve a script on a free port. */
async function serve(t: AfterHook, answer: Answer): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Answer a range of the suite's blob as a registry does. */
function blob(request: IncomingMessage, response: ServerResponse): void {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (!request.url?.includes(SUITE_BLOB_ID)) return void response.writeHead(404).end();
  if (match === null) {
    response.writeHead(200, { 'Content-Length': SUITE_BLOB.length });
    return void response.end(request.method === 'HEAD' ? undefined : SUITE_BLOB);
  }
  const start = Number(match[1]);
  const end = Math.min(SUITE_BLOB.length, Number(match[2]) + 1);
  if (start >= SUITE_BLOB.length) {
    return void response.writeHead(416, { 'Content-Range': `bytes */${SUITE_BLOB.length}` }).end();
  }
  response.writeHead(206, {
    'Content-Length': end - start,
    'Content-Range': `bytes ${start}-${end - 1}/${SUITE_BLOB.length}`,
  });
  response.end(SUITE_BLOB.subarray(start, end));
}

function backendAt(
  t: AfterHook,
  host: string,
  more: Partial<RegistryConfig> = {},
  seams: RegistrySeams = {},
): RegistryBackend {
  const config = readRegistryConfig({ scheme: 'http', host, repo: 'lib/app', ...more });
  const backend = new RegistryBackend(config, silentLogger, { random: () => 0, env: {}, ...seams });
  t.after(() => void backend.close());
  return backend;
}

async function first(backend: RegistryBackend, length = 10): Promise<Buffer> {
  return Buffer.from(await (await backend.open(SUITE_BLOB_ID)).read(0, length));
}

const suite: HttpSuite = {
  make: async (t, settings) => {
    let token = 'OLD';
    const server: BlobServer = await BlobServer.start(t, {
      authorize: (request) => (request.headers.authorization === `Bearer ${token}` ? 0 : 401),
      find: ({ url }) => (url === `/v2/lib/app/blobs/sha256:${SUITE_BLOB_ID}` ? SUITE_BLOB : undefined),
    });
    const tokens = await serve(t, (_, response) => void response.end(JSON.stringify({ token })));
    const refuse = server.serve.bind(server);
    server.serve = (request, response): void => {
      const challenge = `Bearer realm="http://${tokens}/token",service="s"`;
      response.setHeader('WWW-Authenticate', challenge);
      refuse(request, response);
    };
    const backend = backendAt(t, server.host, { registry_token: 'OLD', ...settings });
    // nobody tells the backend: it asks for a new token
    return { backend, server, expire: () => void (token = 'NEW') };
  },
};
backendSuite('registry', async (t) => (await suite.make(t, {})).backend, suite);

backendSuite('registry that redirects', async (t) => {
  const data = await serve(t, blob);
  const host = await serve(t, (request, response) => {
    if (!request.url?.includes(SUITE_BLOB_ID)) return void response.writeHead(404).end();
    response.writeHead(307, { Location: `http://${data}/data/${SUITE_BLOB_ID}?sig=1` }).end();
  });
  return backendAt(t, host);
});

backendSuite('registry through a proxy', async (t) => {
  const proxy = await serve(t, (request, response) => {
    if (!request.url?.startsWith('http://registry.invalid/v2/')) return void response.writeHead(400).end();
    blob(request, response);
  });
  const settings = {
    ping_url: '',
    fallback: false,
    check_interval: 5,
    use_http: false,
    check_pause_elapsed: 300,
  };
  const section = { ...settings, url: `http://${proxy}`, dragonfly_scheduler_endpoint: '' };
  return backendAt(t, 'registry.invalid', { proxy: section });
});

test('RegistryBackend: reads what a registry with tokens has, one token however many reads', async (t) => {
  let tokens = 0;
  const server = await RegistryServer.start({
    dir: join(tempDir(t), 'store'),
    access: { kind: 'token', users: { user: 'pass' }, ttlSeconds: 60 },
    intercept: (request) => {
      if (request.url?.startsWith('/token')) tokens++;
      return false;
    },
  });
  t.after(() => server.close());
  const credentials = { lookup: () => Promise.resolve({ username: 'user', password: 'pass' }) };
  const transport = new RegistryTransport({ host: server.host, plainHttp: true, credentials });
  const { digest } = await new Repository(transport, 'lib/app').pushBytes(SUITE_BLOB);
  await transport.close();
  tokens = 0;
  const auth = Buffer.from('user:pass').toString('base64');
  const backend = backendAt(t, server.host, { auth });
  const reader = await backend.open(digest.slice(7));
  const parts = await Promise.all(Array.from({ length: 30 }, (_, i) => reader.read(i * 10_000, 10_000)));
  assert.ok(Buffer.concat(parts).equals(SUITE_BLOB));
  assert.equal(tokens, 1);
  // the registry forgets its tokens in the middle of reads
  server.access.revokeAll();
  const again = await Promise.all(Array.from({ length: 30 }, (_, i) => reader.read(i * 10_000, 10_000)));
  assert.ok(Buffer.concat(again).equals(SUITE_BLOB));
  assert.equal(tokens, 2);
  assert.equal(backend.meter.metrics('registry').read_errors, 0);
});

test('RegistryBackend: a token is renewed before it ends, and one that ended is replaced before the read', async (t) => {
  let now = 1_000_000;
  let count = 0;
  const sent: string[] = [];
  const host: string = await serve(t, (request, response) => {
    if (request.url?.startsWith('/token')) {
      return void response.end(JSON.stringify({ token: `T${++count}`, expires_in: 100 }));
    }
    const { authorization = '' } = request.headers;
    sent.push(authorization);
    if (authorization !== '') return blob(request, response);
    const realm = `http://${request.headers.host}/token`;
    response.writeHead(401, { 'WWW-Authenticate': `Bearer realm="${realm}",service="s"` }).end();
  });
  const backend = backendAt(t, host, {}, { clock: () => now });
  await first(backend);
  now += 79_000;
  await first(backend);
  assert.deepEqual(sent, ['', 'Bearer T1', 'Bearer T1']);
  now += 2000;
  await first(backend);
  assert.equal(sent.at(-1), 'Bearer T1');
  while (count < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 20));
  await first(backend);
  assert.equal(sent.at(-1), 'Bearer T2');
  now += 200_000;
  await first(backend);
  assert.equal(sent.at(-1), 'Bearer T3');
});

test('RegistryBackend: configure replaces the credentials of the requests to come', async (t) => {
  const pair = (text: string): string => Buffer.from(text).toString('base64');
  const host = await serve(t, (request, response) => {
    if (request.headers.authorization === `Basic ${pair('u:new')}`) return blob(request, response);
    response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="r"' }).end();
  });
  const backend = backendAt(t, host, { auth: pair('u:old') });
  await assert.rejects(first(backend), (error: Error) => {
    assert.match(error.message, /^cannot read bytes 0 to 10 of blob a+: GET .* status 401$/);
    assert.ok(!error.message.includes(pair('u:old')));
    return true;
  });
  backend.configure('registry_auth', pair('u:new'));
  assert.ok((await first(backend)).equals(SUITE_BLOB.subarray(0, 10)));
});

test('RegistryBackend: a signed target is used until it is refused or its time is over', async (t) => {
  let now = Date.UTC(2026, 0, 1);
  let signature = 1;
  let asked = 0;
  const data = await serve(t, (request, response) => {
    if (request.url?.includes(`X-Amz-Signature=${signature}`)) return blob(request, response);
    response.writeHead(403).end();
  });
  const host = await serve(t, (_, response) => {
    asked++;
    const stamp = new Date(now).toISOString().replace(/[-:]|\.\d+/g, '');
    const query = `X-Amz-Date=${stamp}&X-Amz-Expires=300&X-Amz-Signature=${signature}`;
    response.writeHead(307, { Location: `http://${data}/${SUITE_BLOB_ID}?${query}` }).end();
  });
  const backend = backendAt(t, host, {}, { clock: () => now });
  await first(backend);
  await first(backend);
  assert.equal(asked, 1);
  signature = 2;
  await first(backend);
  assert.equal(asked, 2);
  now += 291_000;
  await first(backend);
  assert.equal(asked, 3);
  assert.equal(backend.meter.metrics('registry').read_errors, 0);
});

test('RegistryBackend: a target whose host died is asked for anew', async (t) => {
  let target = '127.0.0.1:1';
  const good = await serve(t, blob);
  const host = await serve(t, (_, response) => {
    response.writeHead(307, { Location: `http://${target}/${SUITE_BLOB_ID}` }).end();
    target = good;
  });
  const backend = backendAt(t, host);
  assert.ok((await first(backend)).equals(SUITE_BLOB.subarray(0, 10)));
  assert.equal(backend.meter.metrics('registry').read_errors, 1);
});

test('RegistryBackend: blob_url_scheme and blob_redirected_host change the target, the port stays', async (t) => {
  const data = await serve(t, blob);
  const host = await serve(t, (_, response) => {
    const { port } = new URL(`http://${data}`);
    response.writeHead(302, { Location: `https://elsewhere.invalid:${port}/${SUITE_BLOB_ID}` }).end();
  });
  const more = { blob_url_scheme: 'http', blob_redirected_host: '127.0.0.1' };
  assert.ok((await first(backendAt(t, host, more))).equals(SUITE_BLOB.subarray(0, 10)));
});

const WRONG: Record<string, Answer> = {
  'a whole object for a part': (_, response) =>
    void response.writeHead(200, { 'Content-Length': 300_000 }).end(SUITE_BLOB),
  'a part that was not asked for': (_, response) =>
    void response.writeHead(206, { 'Content-Range': 'bytes 1-10/300000' }).end(SUITE_BLOB.subarray(0, 10)),
  'a part without Content-Range': (_, response) =>
    void response.writeHead(206).end(SUITE_BLOB.subarray(0, 10)),
  'a longer body': (_, response) =>
    void response.writeHead(206, { 'Content-Range': 'bytes 0-9/300000' }).end(SUITE_BLOB.subarray(0, 11)),
  'a shorter body': (_, response) =>
    void response.writeHead(206, { 'Content-Range': 'bytes 0-9/300000' }).end(SUITE_BLOB.subarray(0, 9)),
  'a body that breaks off': (_, response) => {
    response.writeHead(206, { 'Content-Range': 'bytes 0-9/300000', 'Content-Length': 10 });
    response.write(SUITE_BLOB.subarray(0, 3), () => response.destroy());
  },
  'status 500': (_, response) => void response.writeHead(500).end(),
};
for (const [what, answer] of Object.entries(WRONG)) {
  test(`RegistryBackend: ${what} is an error after three retries, and right bytes on a retry are taken`, async (t) => {
    let wrong = Infinity;
    const host = await serve(t, (request, response) =>
      wrong-- > 0 ? answer(request, response) : blob(request, response),
    );
    const backend = backendAt(t, host);
    await assert.rejects(first(backend), { code: 'ERR_NYDUS_BACKEND', errno: 'EIO' });
    assert.equal(backend.meter.metrics('registry').read_errors, 4);
    wrong = 2;
    assert.ok((await first(backend)).equals(SUITE_BLOB.subarray(0, 10)));
    assert.equal(backend.meter.metrics('registry').read_errors, 6);
  });
}

test('RegistryBackend: a range that the server cuts short is read on', async (t) => {
  const host = await serve(t, (request, response) => {
    const [, start = 0, last = 0] = (/(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? []).map(Number);
    request.headers.range = `bytes=${start}-${Math.min(last, start + 999)}`;
    blob(request, response);
  });
  assert.ok((await first(backendAt(t, host), 5500)).equals(SUITE_BLOB.subarray(0, 5500)));
});

test('RegistryBackend: a server that drips is given up in the configured time', async (t) => {
  const timers: NodeJS.Timeout[] = [];
  t.after(() => timers.forEach(clearInterval));
  const host = await serve(t, (request, response) => {
    const start = Number(/(\d+)-/.exec(request.headers.range ?? '')?.[1]);
    const range = `bytes ${start}-9999/300000`;
    response.writeHead(206, { 'Content-Range': range, 'Content-Length': 10_000 - start });
    timers.push(setInterval(() => response.write('x'), 50));
  });
  const backend = backendAt(t, host, { timeout: 1 });
  const reader = await backend.open(SUITE_BLOB_ID);
  const reading = reader.read(0, 10_000, undefined, { prefetch: true });
  await assert.rejects(reading, { message: /not complete within 1 s: \d+ bytes of the answer came/ });
  assert.equal(backend.meter.metrics('registry').read_errors, 2);
});

test('RegistryBackend: without a proxy that is well, fallback decides', async (t) => {
  const origin = await serve(t, blob);
  const base = { ping_url: '', check_interval: 1, use_http: false, check_pause_elapsed: 300 };
  const proxy = { ...base, url: 'http://127.0.0.1:1', dragonfly_scheduler_endpoint: '', fallback: true };
  assert.ok((await first(backendAt(t, origin, { proxy }))).equals(SUITE_BLOB.subarray(0, 10)));
  const strict = backendAt(t, origin, { proxy: { ...proxy, fallback: false } });
  await assert.rejects(first(strict), { code: 'ERR_NYDUS_BACKEND' });
});

test('RegistryBackend: a proxy whose ping fails is left out', async (t) => {
  const origin = await serve(t, blob);
  let through = 0;
  let pings = 0;
  const url = await serve(t, (request, response) => {
    if (request.url === '/ping') {
      pings++;
      return void response.writeHead(503).end();
    }
    through++;
    blob(request, response);
  });
  const base = {
    check_interval: 1,
    use_http: false,
    check_pause_elapsed: 300,
    dragonfly_scheduler_endpoint: '',
  };
  const proxy = { ...base, url: `http://${url}`, ping_url: `http://${url}/ping`, fallback: true };
  const backend = backendAt(t, origin, { proxy });
  await first(backend);
  while (pings === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await first(backend);
  assert.equal(through, 1);
});

test('RegistryBackend: signals of Dragonfly: forbidden ends a read, rate limited goes around the proxy', async (t) => {
  let status = 403;
  const direct: boolean[] = [];
  const origin = await serve(t, (request, response) => {
    direct.push(request.headers['x-dragonfly-use-p2p'] === undefined);
    blob(request, response);
  });
  let asked = 0;
  const url = await serve(t, (request, response) => {
    asked++;
    assert.equal(request.headers['x-dragonfly-priority'], '6');
    response.writeHead(status, { 'X-Dragonfly-Error-Type': 'proxy' }).end();
  });
  const base = { ping_url: '', check_interval: 1, use_http: false, check_pause_elapsed: 300 };
  const proxy = { ...base, url: `http://${url}`, fallback: true, dragonfly_scheduler_endpoint: '' };
  const backend = backendAt(t, origin, { proxy });
  await assert.rejects(first(backend), { message: /the proxy says forbidden/ });
  assert.equal(asked, 1);
  status = 429;
  assert.ok((await first(backend)).equals(SUITE_BLOB.subarray(0, 10)));
  assert.deepEqual([asked, direct], [2, [true]]);
});

test('RegistryBackend: mirrors come before the origin, a dead one is left out', async (t) => {
  const lines: string[] = [];
  const logger = collectingLogger(lines);
  let mirrored = 0;
  const origin = await serve(t, (_, response) => void response.writeHead(404).end());
  const good = await serve(t, (request, response) => {
    assert.equal(request.headers['x-from'], 'us');
    mirrored++;
    blob(request, response);
  });
  const base = { ping_url: '', health_check_interval: 5, failure_limit: 1, health_check_pause_elapsed: 300 };
  const mirrors = [
    { ...base, host: 'http://127.0.0.1:1', headers: {} },
    { ...base, host: `http://${good}`, headers: { 'X-From': 'us' } },
  ];
  const config = readRegistryConfig({ scheme: 'http', host: origin, repo: 'lib/app', mirrors });
  const backend = new RegistryBackend(config, logger, { env: {} });
  t.after(() => backend.close());
  await first(backend);
  await first(backend);
  assert.equal(mirrored, 2);
  assert.equal(lines.filter((line) => line.includes('127.0.0.1:1 failed')).length, 1);
});

test('RegistryBackend: headers of the environment are sent, and skip_verify falls back to HTTP', async (t) => {
  const seen: (string | undefined)[] = [];
  const host = await serve(t, (request, response) => {
    seen.push(String(request.headers['x-team']), request.headers['user-agent']);
    blob(request, response);
  });
  const more = { scheme: 'https', skip_verify: true };
  const backend = backendAt(t, host, more, { env: { 'NYDUS_HEADER_X-Team': 'blue' } });
  assert.ok((await first(backend)).equals(SUITE_BLOB.subarray(0, 10)));
  assert.deepEqual(seen, ['blue', 'nydusd/1.0.0']);
  await assert.rejects(first(backendAt(t, host, { scheme: 'https' })), { code: 'ERR_NYDUS_BACKEND' });
});

test('openBackend: type registry', async (t) => {
  const host = await serve(t, blob);
  const sections = { localfs: null, localdisk: null, oss: null, s3: null, 'http-proxy': null };
  const backend = openBackend(
    { type: 'registry', ...sections, registry: { scheme: 'http', host, repo: 'a' } },
    silentLogger,
  );
  t.after(() => backend.close());
  assert.equal(backend.type, 'registry');
  await assert.rejects(backend.open('../x'), { code: 'ERR_NYDUS_BACKEND' });
  const bytes = await (await backend.open(SUITE_BLOB_ID)).read(0, 300_000);
  const sum = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
  assert.equal(sum(bytes), sum(SUITE_BLOB));
});

test('RegistryBackend: a registry that comes back within the retries of a read serves it', async (t) => {
  const dir = join(tempDir(t), 'store');
  const server = await RegistryServer.start({ dir });
  const { host, port } = server;
  const transport = new RegistryTransport({ host, plainHttp: true });
  const { digest } = await new Repository(transport, 'lib/app').pushBytes(SUITE_BLOB);
  await transport.close();
  await server.close();
  const backend = backendAt(t, host, { retry_limit: 20 });
  const reading = (await backend.open(digest.slice(7))).read(5, 1000);
  while (backend.meter.metrics('registry').read_errors < 3) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const again = await RegistryServer.start({ dir, port });
  t.after(() => again.close());
  assert.ok(Buffer.from(await reading).equals(SUITE_BLOB.subarray(5, 1005)));
});

test('RegistryBackend: reads that wait for the first one do not queue behind a dead registry', async (t) => {
  const backend = backendAt(t, '127.0.0.1:1');
  const reader = await backend.open(SUITE_BLOB_ID);
  const ends = await Promise.allSettled(Array.from({ length: 20 }, () => reader.read(0, 10)));
  assert.ok(ends.every(({ status }) => status === 'rejected'));
  assert.equal(backend.meter.metrics('registry').read_errors, 80);
});
