// Bodies that stall after their headers: the rest comes another way, and the stalled one is let go.
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { SUITE_BLOB, SUITE_BLOB_ID } from '../../../test/conformance/backend-suite.ts';
import { BlobServer, serveRange, stallAfter, type Answer } from '../../../test/support/blob-server.ts';
import { Hedge } from './hedge.ts';
import { bodyPatience } from './hedged-body.ts';
import { HttpProxyBackend, readHttpProxyConfig } from './http-proxy.ts';
import { Link } from './link.ts';

const seams = { env: {}, random: (): number => 0 };

function serve(t: TestContext): Promise<BlobServer> {
  return BlobServer.start(t, { find: () => SUITE_BLOB });
}

/** A backend whose host has answered often enough. */
async function warm(t: TestContext, server: BlobServer, more: object = {}): Promise<HttpProxyBackend> {
  const section = { addr: `http://${server.host}`, path: '/a', timeout: 60, ...more };
  const backend = new HttpProxyBackend(readHttpProxyConfig(section), collectingLogger([]), seams);
  t.after(() => backend.close());
  for (let i = 0; i < 20; i++) await read(backend, i, 100);
  return backend;
}

async function read(backend: HttpProxyBackend, at: number, length: number, prefetch = false): Promise<void> {
  const reader = await backend.open(SUITE_BLOB_ID);
  const seen: number[] = [];
  const into = new Uint8Array(new SharedArrayBuffer(length));
  const how = { prefetch, into, progress: (done: number): void => void seen.push(done) };
  const bytes = await reader.read(at, length, undefined, how);
  assert.ok(Buffer.from(bytes).equals(SUITE_BLOB.subarray(at, at + length)));
  assert.equal(seen.at(-1), length);
  assert.ok(
    seen.every((done, i) => done > (seen[i - 1] ?? 0)),
    'it is told of every byte once',
  );
}

const hedgeOf = (backend: HttpProxyBackend): unknown => backend.meter.metrics('').hedge;
const rangesOf = (server: BlobServer, count: number): (string | undefined)[] =>
  server.requests.slice(-count).map(({ headers }) => headers.range);

/** A fault that says when its connection was closed. */
function watched(answer: Answer): { answer: Answer; closed: Promise<void> } {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  return {
    closed,
    answer: (request, response) => {
      response.on('close', resolve);
      answer(request, response);
    },
  };
}

test('HttpBackend: a body that stalls in the middle: the rest comes over another connection, the stalled one is closed', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  const stalled = watched(stallAfter(SUITE_BLOB, 70_000));
  server.faults.push(stalled.answer);
  await read(backend, 1000, 200_000);
  await stalled.closed;
  assert.deepEqual(rangesOf(server, 2), ['bytes=1000-200999', 'bytes=71000-200999']);
  assert.deepEqual(hedgeOf(backend), { requests: 1, wins: 1 });
  assert.equal(backend.meter.metrics('').read_errors, 0);
  await read(backend, 5, 1000);
});

test('HttpBackend: a body that stalls before its first byte, and one of a read that nobody waits for', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  // enough saved for one more than is kept for readers
  for (let i = 0; i < 40; i++) await read(backend, i, 100);
  server.faults.push(stallAfter(SUITE_BLOB, 0));
  await read(backend, 0, 50_000, true);
  assert.deepEqual(rangesOf(server, 2), ['bytes=0-49999', 'bytes=0-49999']);
  assert.deepEqual(hedgeOf(backend), { requests: 1, wins: 1 });
  // what is left is for those who wait
  server.faults.push(stallAfter(SUITE_BLOB, 0));
  await read(backend, 0, 50_000);
  assert.deepEqual(hedgeOf(backend), { requests: 2, wins: 2 });
});

test('HttpBackend: a body that drips is no better than one that stalls', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  const stalled = watched(stallAfter(SUITE_BLOB, 1000, 2));
  server.faults.push(stalled.answer);
  await read(backend, 0, 200_000);
  await stalled.closed;
  const [first, second] = rangesOf(server, 2);
  assert.equal(first, 'bytes=0-199999');
  const from = Number(/=(\d+)-199999/.exec(second ?? '')?.[1]);
  assert.ok(from >= 1000 && from < 100_000, `${second}`);
  assert.deepEqual(hedgeOf(backend), { requests: 1, wins: 1 });
});

test('HttpBackend: a mirror that stalls in the middle of a body: the rest comes from elsewhere', async (t) => {
  const [origin, mirror] = [await serve(t), await serve(t)];
  const config = { host: `http://${mirror.host}`, ping_url: '', headers: {}, health_check_interval: 5 };
  const mirrors = [{ ...config, failure_limit: 5, health_check_pause_elapsed: 300 }];
  const backend = await warm(t, origin, { mirrors });
  assert.equal(origin.requests.length, 0);
  mirror.always = stallAfter(SUITE_BLOB, 10_000);
  await read(backend, 0, 100_000);
  assert.deepEqual(rangesOf(origin, 1), ['bytes=10000-99999']);
});

test('HttpBackend: a body that gets on again before the second answer wins, and the second is closed', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  const second = Promise.withResolvers<void>();
  server.faults.push((request, response) => {
    const end = response.end.bind(response);
    response.end = () => response;
    serveRange(request, response, SUITE_BLOB);
    response.write(SUITE_BLOB.subarray(0, 500));
    void second.promise.then(() => end(SUITE_BLOB.subarray(500, 100_000)));
  });
  const late = watched(() => second.resolve());
  server.faults.push(late.answer);
  await read(backend, 0, 100_000);
  await late.closed;
  assert.deepEqual(hedgeOf(backend), { requests: 1, wins: 0 });
});

test('HttpBackend: the second request fails: the first is waited for; both fail: the read is tried again', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  let release = (): void => {};
  server.faults.push((request, response) => {
    const end = response.end.bind(response);
    response.end = () => response;
    serveRange(request, response, SUITE_BLOB);
    response.flushHeaders();
    release = () => void end(SUITE_BLOB.subarray(0, 1000));
  });
  server.faults.push((_, response) => {
    response.writeHead(503).end();
    setImmediate(() => release());
  });
  await read(backend, 0, 1000);
  assert.equal(backend.meter.metrics('').read_errors, 0);
  let first: (() => void) | undefined;
  server.faults.push((request, response) => {
    stallAfter(SUITE_BLOB, 3000)(request, response);
    first = () => response.destroy();
  });
  server.faults.push((_, response) => {
    response.destroy();
    first?.();
  });
  await topUp(backend, server);
  await read(backend, 0, 9000);
  assert.equal(backend.meter.metrics('').read_errors, 1);
  assert.deepEqual(rangesOf(server, 1), ['bytes=3000-8999']);
});

/** Reads that save up for a second request, past the faults that are set. */
async function topUp(backend: HttpProxyBackend, server: BlobServer): Promise<void> {
  const faults = server.faults.splice(0);
  for (let i = 0; i < 40; i++) await read(backend, i, 100);
  server.faults.push(...faults);
}

test('HttpBackend: a second answer that is longer than it says spoils the race: everything is asked for again', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  server.faults.push(stallAfter(SUITE_BLOB, 5000));
  server.faults.push((_, response) => {
    response.writeHead(206, { 'Content-Range': 'bytes 5000-19999/300000' });
    response.end(Buffer.alloc(15_001, 'x'));
  });
  const reader = await backend.open(SUITE_BLOB_ID);
  const bytes = await reader.read(0, 20_000);
  assert.ok(Buffer.from(bytes).equals(SUITE_BLOB.subarray(0, 20_000)));
  assert.deepEqual(rangesOf(server, 3), ['bytes=0-19999', 'bytes=5000-19999', 'bytes=0-19999']);
});

test('HttpBackend: who gives up ends both requests', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  const cancel = new AbortController();
  const reason = new Error('enough');
  const [one, two] = [watched(stallAfter(SUITE_BLOB, 10)), watched(() => cancel.abort(reason))];
  server.faults.push(one.answer, two.answer);
  const reading = (await backend.open(SUITE_BLOB_ID)).read(0, 1000, cancel.signal);
  await assert.rejects(reading, reason);
  await Promise.all([one.closed, two.closed]);
});

test('HttpBackend: giving up ends reads whose bodies stall', async (t) => {
  const server = await serve(t);
  const backend = await warm(t, server);
  server.always = stallAfter(SUITE_BLOB, 10);
  const reader = await backend.open(SUITE_BLOB_ID);
  const reads = [reader.read(0, 1000), reader.read(0, 1000, undefined, { prefetch: true })];
  const ended = Promise.allSettled(reads);
  while (server.requests.length < 22) await new Promise((resolve) => void setTimeout(resolve, 5));
  backend.giveUp();
  for (const end of await ended) assert.equal(end.status, 'rejected');
});

test('bodyPatience: as long as an answer may take, longer where a share of the link needs it', async () => {
  const hedge = new Hedge(200);
  let now = 0;
  const link = new Link(() => now);
  const patience = (): object => {
    const { millis = 0, bytes = 0 } = bodyPatience(hedge, link) ?? {};
    return { millis: Math.floor(millis), bytes };
  };
  assert.equal(bodyPatience(hedge, link), undefined);
  for (let i = 0; i < 20; i++)
    await hedge.run(
      () => Promise.resolve(1),
      () => true,
      () => {},
      undefined,
    );
  assert.deepEqual(bodyPatience(hedge, link), { millis: 200, bytes: 1024 });
  // 100 bytes a millisecond
  const transfer = link.start(100_000);
  transfer.answered();
  transfer.progress(1);
  now += 1000;
  transfer.progress(100_000);
  transfer.end(true);
  assert.deepEqual(patience(), { millis: 654, bytes: 4096 });
  const others = [link.start(10), link.start(10), link.start(10), link.start(10)];
  assert.deepEqual(patience(), { millis: 2618, bytes: 4096 });
  for (const other of others) other.end(false);
});
