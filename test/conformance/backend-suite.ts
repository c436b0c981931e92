// What every backend must do. A new backend starts by passing this; one that speaks HTTP also says which server it reads from,
// and meets that server's faults.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../../src/storage/backend/backend.ts';
import { serveRange, stallAfter, type Answer, type BlobServer } from '../support/blob-server.ts';
import type { AfterHook } from '../support/temporary.ts';
import { sampleData } from './make-image.ts';

/** The blob every backend of the suite holds under this id. */
export const SUITE_BLOB_ID = 'a'.repeat(64);
export const SUITE_BLOB = sampleData(300_000, 5);

/** Settings that the suite changes for an HTTP backend. */
export interface SuiteSettings {
  timeout: number;
  outage_wait: number;
}

/** A backend, and the server it reads from. */
export interface HttpSubject {
  backend: Backend;
  server: BlobServer;
  /** the server accepts only new credentials from now on */
  expire?: () => void;
  /** tell the backend the new credentials */
  renew?: () => void;
}

export interface HttpSuite {
  make: (t: AfterHook, settings: Partial<SuiteSettings>) => Promise<HttpSubject>;
}

/**
 * @param make a backend that holds SUITE_BLOB under SUITE_BLOB_ID and nothing else
 * @param http for backends that speak HTTP: the same, with the server in the hands of the suite
 */
export function backendSuite(
  name: string,
  make: (t: AfterHook) => Backend | Promise<Backend>,
  http?: HttpSuite,
): void {
  test(`${name}: size and ranges of a blob`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    assert.equal(reader.blobId, SUITE_BLOB_ID);
    assert.equal(await reader.size(), SUITE_BLOB.length);
    for (const [offset, length] of [
      [0, 1],
      [0, 300_000],
      [4095, 65_537],
      [299_999, 1],
    ] as const) {
      assert.deepEqual(
        Buffer.from(await reader.read(offset, length)),
        SUITE_BLOB.subarray(offset, offset + length),
      );
    }
    await backend.close();
  });

  test(`${name}: a range over the end is cut there`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    assert.deepEqual(Buffer.from(await reader.read(299_990, 100)), SUITE_BLOB.subarray(299_990));
    assert.equal((await reader.read(400_000, 100)).length, 0);
    await backend.close();
  });

  test(`${name}: reads of one blob at the same time`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    const parts = await Promise.all(Array.from({ length: 30 }, (_, i) => reader.read(i * 10_000, 10_000)));
    assert.ok(Buffer.concat(parts).equals(SUITE_BLOB));
    await backend.close();
  });

  test(`${name}: a blob that is not there is a BackendError`, async (t) => {
    const backend = await make(t);
    await assert.rejects(async () => (await backend.open('b'.repeat(64))).size(), {
      code: 'ERR_NYDUS_BACKEND',
      errno: 'EIO',
    });
    await backend.close();
  });

  test(`${name}: an aborted read rejects with the reason`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    const reason = new Error('enough');
    await assert.rejects(reader.read(0, 10, AbortSignal.abort(reason)), reason);
    await backend.close();
  });

  test(`${name}: reads are counted by size`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    await reader.read(0, 1000);
    await reader.read(0, 4096);
    await reader.read(0, 200_000);
    const metrics = backend.meter.metrics(backend.type);
    assert.equal(metrics.backend_type, backend.type);
    assert.equal(metrics.read_count, 3);
    assert.equal(metrics.read_errors, 0);
    assert.equal(metrics.read_amount_total, 205_096);
    assert.deepEqual(metrics.read_count_block_size_dist, [1, 0, 1, 0, 0, 1, 0, 0]);
    assert.equal(
      metrics.read_latency_sizes_dist.flat().reduce((sum, count) => sum + count, 0),
      3,
    );
    await backend.close();
  });

  if (http !== undefined) httpSuite(name, http);
}

async function readAll(backend: Backend, offset = 0, length = SUITE_BLOB.length): Promise<boolean> {
  const bytes = await (await backend.open(SUITE_BLOB_ID)).read(offset, length);
  return Buffer.from(bytes).equals(SUITE_BLOB.subarray(offset, offset + length));
}

const status =
  (code: number): Answer =>
  (_, response) =>
    void response.writeHead(code).end();
/** The right headers, half of the body, then nothing more. */
const stall: Answer = (request, response) => {
  const [, start = 0, last = 0] = (/(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? []).map(Number);
  stallAfter(SUITE_BLOB, Math.floor((last - start) / 2))(request, response);
};
const breakOff: Answer = (_, response) => void response.destroy();

function httpSuite(name: string, { make }: HttpSuite): void {
  test(`${name}: 5xx, broken connections and wrong ranges between right answers are asked for again`, async (t) => {
    const { backend, server } = await make(t, {});
    const whole: Answer = (_, response) =>
      void response.writeHead(200, { 'Content-Length': SUITE_BLOB.length }).end(SUITE_BLOB);
    const shifted: Answer = (_, response) =>
      void response
        .writeHead(206, { 'Content-Range': 'bytes 1-1000/300000' })
        .end(SUITE_BLOB.subarray(1, 1001));
    assert.ok(await readAll(backend, 0, 10));
    for (const fault of [status(500), status(503), status(429), breakOff, whole, shifted]) {
      const { length } = server.requests;
      server.faults.push(fault);
      assert.ok(await readAll(backend, 5000, 1000));
      assert.equal(server.requests.length - length, 2);
    }
    assert.equal(backend.meter.metrics(backend.type).read_errors, 6);
    await backend.close();
  });

  test(`${name}: what stays wrong is EIO after four attempts, 404 and 403 at once`, async (t) => {
    const { backend, server } = await make(t, { outage_wait: 0 });
    for (const [fault, attempts] of [
      [status(500), 4],
      [status(404), 1],
      [status(403), 1],
    ] as const) {
      server.requests.length = 0;
      server.always = fault;
      await assert.rejects(readAll(backend), { code: 'ERR_NYDUS_BACKEND', errno: 'EIO' });
      assert.equal(server.requests.length, attempts);
    }
    server.always = undefined;
    assert.ok(await readAll(backend));
    await backend.close();
  });

  test(`${name}: an answer that stalls is given up, and asked for from where it stopped`, async (t) => {
    const { backend, server } = await make(t, { timeout: 1 });
    server.faults.push(stall);
    const progress: number[] = [];
    const into = new Uint8Array(new SharedArrayBuffer(200_000));
    const reader = await backend.open(SUITE_BLOB_ID);
    const how = { into, progress: (done: number): void => void progress.push(done) };
    const bytes = await reader.read(1000, 200_000, undefined, how);
    assert.equal(bytes.buffer, into.buffer);
    assert.ok(Buffer.from(bytes).equals(SUITE_BLOB.subarray(1000, 201_000)));
    assert.equal(server.requests.at(-1)?.headers.range, 'bytes=100999-200999');
    assert.ok(progress.includes(99_999) && progress.at(-1) === 200_000);
    await backend.close();
  });

  test(`${name}: a read that is cancelled while its answer stalls rejects with the reason`, async (t) => {
    const { backend, server } = await make(t, { timeout: 60 });
    const reached = new Promise<void>((resolve) =>
      server.faults.push((...both) => (stall(...both), resolve())),
    );
    const cancel = new AbortController();
    const reason = new Error('enough');
    const reading = (await backend.open(SUITE_BLOB_ID)).read(0, 1000, cancel.signal);
    await reached;
    cancel.abort(reason);
    await assert.rejects(reading, reason);
    assert.ok(await readAll(backend));
    await backend.close();
  });

  test(`${name}: a hundred reads one after the other use two connections at most`, async (t) => {
    const { backend, server } = await make(t, {});
    for (let i = 0; i < 100; i++) assert.ok(await readAll(backend, i * 1000, 1000));
    // the next read may start before the last connection is free again
    assert.ok(server.connections <= 2, `${server.connections} connections`);
    await backend.close();
  });

  test(`${name}: one flipped bit in transit is handed on as it came, never mixed up with another range`, async (t) => {
    const { backend, server } = await make(t, {});
    server.faults.push((request, response) => {
      const damaged = Buffer.from(SUITE_BLOB);
      damaged[777] = (damaged[777] ?? 0) ^ 1;
      serveRange(request, response, damaged);
    });
    const bytes = await (await backend.open(SUITE_BLOB_ID)).read(700, 100);
    // digests are the business of the cache: it asks again, and gets other bytes
    assert.equal(bytes[77], (SUITE_BLOB[777] ?? 0) ^ 1);
    assert.ok(await readAll(backend, 700, 100));
    await backend.close();
  });

  test(`${name}: reads wait for a server that is gone, and go on by themselves`, async (t) => {
    const { backend, server } = await make(t, { outage_wait: 60 });
    await server.down();
    const reading = Promise.all([0, 1, 2, 3].map((i) => readAll(backend, i * 50_000, 50_000)));
    while (backend.meter.metrics(backend.type).outage?.waiting !== 3)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(backend.isDown, true);
    await server.up();
    assert.deepEqual(await reading, [true, true, true, true]);
    assert.equal(backend.isDown, false);
    assert.equal(backend.meter.metrics(backend.type).outage?.outages, 1);
    await backend.close();
  });

  test(`${name}: closing ends what waits for an outage to end`, async (t) => {
    const { backend, server } = await make(t, { outage_wait: 600 });
    await server.down();
    const reading = assert.rejects(readAll(backend), { code: 'ERR_NYDUS_BACKEND' });
    while (!backend.isDown) await new Promise((resolve) => setTimeout(resolve, 5));
    backend.giveUp?.();
    await reading;
    await backend.close();
  });

  test(`${name}: credentials that end in the middle of reads are replaced`, async (t) => {
    const { backend, expire, renew } = await make(t, { outage_wait: 60 });
    assert.ok(await readAll(backend));
    if (expire === undefined) return backend.close();
    expire();
    if (renew !== undefined) {
      await assert.rejects(readAll(backend), { code: 'ERR_NYDUS_BACKEND' });
      renew();
    }
    const all = await Promise.all(Array.from({ length: 30 }, (_, i) => readAll(backend, i * 10_000, 10_000)));
    assert.ok(all.every(Boolean));
    await backend.close();
  });
}
