import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { startDelayProxy } from './delay-proxy.ts';
import type { DelayProxy } from './delay-proxy.ts';

/** A server that answers whatever it gets with `reply` and closes, behind a link. */
async function link(
  t: TestContext,
  reply: Buffer,
  rttMs: number,
  bitsPerSecond: number,
): Promise<DelayProxy> {
  const server = createServer((socket) => {
    socket.on('error', () => {}); // reset when the link goes down
    socket.once('data', () => socket.end(reply));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const proxy = await startDelayProxy({ target: { host: '127.0.0.1', port }, rttMs, bitsPerSecond });
  t.after(async () => {
    await proxy.close();
    server.close();
  });
  return proxy;
}

function ask(port: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    const socket = connect(port, '127.0.0.1', () => socket.write('x'));
    socket.on('data', (piece: Buffer) => pieces.push(piece));
    socket.on('end', () => resolve(Buffer.concat(pieces)));
    socket.on('error', reject);
  });
}

test('startDelayProxy: every byte arrives in order, no sooner than the link allows', async (t) => {
  const reply = Buffer.from(Uint32Array.from({ length: 50_000 }, (_, i) => i).buffer);
  const proxy = await link(t, reply, 20, 8e6);
  const began = performance.now();
  const answers = await Promise.all([ask(proxy.port), ask(proxy.port)]);
  // 400 kB at 1 MB/s, and two round trips; a lower bound does not depend on the machine
  assert.ok(performance.now() - began >= 430);
  for (const answer of answers) assert.ok(answer.equals(reply));
  assert.deepEqual(proxy.bytes(), { toClient: 400_000, toServer: 2 });
  assert.equal(proxy.connections(), 2);
});

test('startDelayProxy: a link that is down resets and refuses, and is there again at the same port', async (t) => {
  const proxy = await link(t, Buffer.alloc(2_000_000), 0, 8e6);
  const broken = ask(proxy.port);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await Promise.all([assert.rejects(broken, { code: 'ECONNRESET' }), proxy.setDown(true)]);
  await assert.rejects(ask(proxy.port), { code: 'ECONNREFUSED' });
  await proxy.setDown(false);
  assert.equal((await ask(proxy.port)).length, 2_000_000);
});
