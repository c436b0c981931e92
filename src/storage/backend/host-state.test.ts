// Backends share what is known of a host, of a proxy and of a mirror; a request that stalls goes another way.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { SUITE_BLOB, SUITE_BLOB_ID } from '../../../test/conformance/backend-suite.ts';
import { BlobServer, type Answer } from '../../../test/support/blob-server.ts';
import { HttpProxyBackend, readHttpProxyConfig } from './http-proxy.ts';

const seams = { env: {}, random: (): number => 0 };
/** Takes the request and never answers. */
const stall: Answer = () => {};

function serve(t: TestContext): Promise<BlobServer> {
  return BlobServer.start(t, { find: () => SUITE_BLOB });
}

function open(
  t: TestContext,
  server: BlobServer,
  path: string,
  more: object = {},
  lines: string[] = [],
): HttpProxyBackend {
  const section = { addr: `http://${server.host}`, path, timeout: 60, ...more };
  const backend = new HttpProxyBackend(readHttpProxyConfig(section), collectingLogger(lines), seams);
  t.after(() => backend.close());
  return backend;
}

async function read(backend: HttpProxyBackend, offset = 0, prefetch = false): Promise<void> {
  const reader = await backend.open(SUITE_BLOB_ID);
  const bytes = await reader.read(offset, 100, undefined, { prefetch });
  assert.ok(Buffer.from(bytes).equals(SUITE_BLOB.subarray(offset, offset + 100)));
}

test('HttpBackend: a read whose request stalls is sent again, over another connection', async (t) => {
  const server = await serve(t);
  const backend = open(t, server, '/a');
  for (let i = 0; i < 20; i++) await read(backend, i);
  const requests = server.requests.length;
  const stalled: unknown[] = [];
  server.faults.push(({ socket }) => void stalled.push(socket));
  server.faults.push((request, response) => {
    assert.notEqual(request.socket, stalled[0]);
    server.serve(request, response);
  });
  await read(backend, 500);
  assert.deepEqual(backend.meter.metrics('http-proxy').hedge, { requests: 1, wins: 1 });
  assert.equal(server.requests.length, requests + 2);
  assert.equal(stalled.length, 1);
});

test('HttpBackend: a mirror that stalls is left out of the second request', async (t) => {
  const [origin, mirror] = [await serve(t), await serve(t)];
  const config = { host: `http://${mirror.host}`, ping_url: '', headers: {}, health_check_interval: 5 };
  const mirrors = [{ ...config, failure_limit: 5, health_check_pause_elapsed: 300 }];
  const backend = open(t, origin, '/a', { mirrors });
  for (let i = 0; i < 20; i++) await read(backend, i);
  assert.equal(origin.requests.length, 0);
  mirror.always = stall;
  await read(backend, 500);
  assert.equal(origin.requests.length, 1);
  assert.deepEqual(backend.meter.metrics('http-proxy').hedge, { requests: 1, wins: 1 });
});

test('HttpBackend: images of one host find an outage once and wait for its end together', async (t) => {
  const server = await serve(t);
  const lines: string[] = [];
  const [one, two] = ['/a', '/b'].map((path) => open(t, server, path, { outage_wait: 60 }, lines));
  const other = open(t, await serve(t), '/a', { outage_wait: 60 }, lines);
  assert.ok(one !== undefined && two !== undefined);
  assert.equal(one.link, two.link);
  assert.notEqual(one.link, other.link);
  await read(one);
  await server.down();
  const reads = [read(one, 1)];
  while (!one.isDown) await new Promise((resolve) => void setTimeout(resolve, 5));
  assert.equal(two.isDown, true);
  assert.equal(other.isDown, false);
  reads.push(read(two, 2), read(two, 3));
  // one that is closed ends its own reads, and no others
  const third = open(t, server, '/c', { outage_wait: 60 }, lines);
  const ended = assert.rejects(read(third), /the backend is closed/);
  await new Promise((resolve) => void setImmediate(resolve));
  await third.close();
  await ended;
  await server.up();
  await Promise.all(reads);
  assert.equal(lines.filter((line) => / is down: /.test(line)).length, 1, lines.join('\n'));
  assert.equal(lines.filter((line) => / is back after /.test(line)).length, 1, lines.join('\n'));
  assert.equal(two.meter.metrics('').outage?.outages, 1);
  const { link } = one;
  await one.close();
  await two.close();
  assert.notEqual(open(t, server, '/a').link, link, 'forgotten with its last user');
});

test('HttpBackend: in an outage it is the reader that asks, never what nobody waits for; it goes on first', async (t) => {
  const server = await serve(t);
  const backend = open(t, server, '/a', { outage_wait: 600 });
  await read(backend);
  const order: string[] = [];
  server.always = (_, response) => void response.writeHead(503).end();
  const reader = read(backend, 1000).then(() => order.push('reader'));
  const others = [1, 2, 3, 4].map((i) => read(backend, i * 10_000, true).then(() => order.push('prefetch')));
  while (!backend.isDown) await new Promise((resolve) => void setTimeout(resolve, 5));
  // what was under way when it went down has ended by now
  while (backend.meter.metrics('').outage?.waiting !== 5 && server.requests.length < 40)
    await new Promise((resolve) => void setTimeout(resolve, 5));
  const late = [5, 6].map((i) => read(backend, i * 10_000, true).then(() => order.push('prefetch')));
  const before = server.requests.length;
  while (server.requests.length < before + 4) await new Promise((resolve) => void setTimeout(resolve, 5));
  const asked = server.requests.slice(before).map(({ headers }) => headers.range);
  assert.deepEqual(new Set(asked), new Set(['bytes=1000-1099']));
  server.always = undefined;
  await Promise.all([reader, ...others, ...late]);
  assert.equal(order[0], 'reader');
  assert.equal(order.length, 7);
});

/** A server that takes connections and breaks them. */
async function broken(t: TestContext): Promise<BlobServer> {
  const server = await serve(t);
  server.always = (request) => void request.socket.destroy();
  return server;
}

test('HttpBackend: a proxy that fails for one image is left out for all that use it, whatever host they ask', async (t) => {
  const [proxy, lines] = [await broken(t), [] as string[]];
  const hosts = await Promise.all([serve(t), serve(t)]);
  const more = { proxy: proxyConfig(proxy), retry_limit: 0 };
  const [one, two] = hosts.map((host) => open(t, host, '/a', more, lines));
  assert.ok(one !== undefined && two !== undefined);
  for (let i = 0; i < 3; i++) await read(one, i);
  assert.equal(proxy.requests.length, 3);
  assert.equal(
    lines.filter((line) => line.includes('it is left out for a while')).length,
    1,
    lines.join('\n'),
  );
  await read(two);
  assert.equal(proxy.requests.length, 3, 'nobody asks it');
  assert.equal(hosts[1]?.requests.length, 1);
  // another proxy is another matter
  const well = await serve(t);
  await read(open(t, hosts[0] ?? well, '/a', { proxy: proxyConfig(well) }));
  assert.equal(well.requests.length, 1);
  await one.close();
  await two.close();
  await read(open(t, hosts[0] ?? well, '/b', more));
  assert.equal(proxy.requests.length, 4, 'forgotten with its last user');
});

function proxyConfig(server: BlobServer): object {
  const url = `http://${server.host}`;
  const rest = { ping_url: '', check_interval: 1, use_http: false, check_pause_elapsed: 300 };
  return { url, ...rest, fallback: true, dragonfly_scheduler_endpoint: '' };
}

test('HttpBackend: a mirror that fails for one image is left out for all, and comes back for all when its ping answers', async (t) => {
  const [origin, mirror, lines] = [await serve(t), await broken(t), [] as string[]];
  const config = { host: `http://${mirror.host}`, ping_url: '', headers: {}, health_check_interval: 0.1 };
  const mirrors = [{ ...config, failure_limit: 2, health_check_pause_elapsed: 300 }];
  const [one, two] = ['/a', '/b'].map((path) => open(t, origin, path, { mirrors }, lines));
  assert.ok(one !== undefined && two !== undefined);
  const asked = (): number => mirror.requests.filter(({ url }) => url !== '/v2').length;
  await read(one);
  await read(two);
  assert.equal(asked(), 2);
  await read(one);
  await read(two);
  assert.equal(asked(), 2, 'one failure of each makes two');
  assert.equal(lines.filter((line) => line.includes('is left out')).length, 1);
  mirror.always = undefined;
  while (!lines.some((line) => line.includes('is well')))
    await new Promise((resolve) => void setTimeout(resolve, 5));
  await read(one);
  await read(two);
  assert.equal(asked(), 4);
  // the user that leaves takes nothing from the other
  await one.close();
  mirror.always = (request) => void request.socket.destroy();
  await read(two);
  await read(two);
  mirror.always = undefined;
  while (lines.filter((line) => line.includes('is well')).length < 2)
    await new Promise((resolve) => void setTimeout(resolve, 5));
  const before = asked();
  await read(two);
  assert.equal(asked(), before + 1);
});
