// Answers of an HTTP server with bytes of their head changed: a read gives the right bytes or our error, in bounded time.
// FUZZ_SEED repeats a run, FUZZ_RUNS sets its length.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { test } from 'node:test';
import { NydusError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { HttpProxyBackend, readHttpProxyConfig } from '../../src/storage/backend/http-proxy.ts';
import { sampleData } from '../conformance/make-image.ts';
import { fuzzSeed, Random } from './mutator.ts';

const BLOB = sampleData(50_000, 3);
const RUNS = Number(process.env['FUZZ_RUNS'] ?? 120);
/** Reads under way at the same time: many of them wait for time-outs. */
const WIDTH = 40;
const WORDS = [
  '0',
  '-1',
  '99999999999999999999',
  '206',
  '200',
  '302',
  '\r\n',
  '\r\n\r\n',
  ' ',
  ':',
  'chunked',
  '\0',
  'bytes',
];

function headOf(start: number, end: number): string {
  return [
    'HTTP/1.1 206 Partial Content',
    'Server: s',
    `Content-Range: bytes ${start}-${end - 1}/${BLOB.length}`,
    `Content-Length: ${end - start}`,
    'Connection: keep-alive',
    '',
    '',
  ].join('\r\n');
}

function mutate(head: string, random: Random): string {
  let out = head;
  for (let left = 1 + random.below(3); left > 0; left--) {
    const at = random.below(out.length);
    const kind = random.below(4);
    const word = WORDS[random.below(WORDS.length)] ?? '';
    if (kind === 0) out = out.slice(0, at) + String.fromCharCode(random.below(256)) + out.slice(at + 1);
    else if (kind === 1) out = out.slice(0, at) + word + out.slice(at);
    else if (kind === 2) out = out.slice(0, at) + out.slice(at + 1 + random.below(20));
    else out = out.slice(0, at);
  }
  // what stands behind a blank line would be body: a right answer with other bytes, which only digests can tell (src/storage/lying-server.test.ts)
  const end = out.indexOf('\r\n\r\n');
  return end < 0 ? out : out.slice(0, end + 4);
}

test(`HttpBackend: ${RUNS} mutated answers, right bytes or our error`, async (t) => {
  const seed = fuzzSeed();
  const random = new Random(seed);
  const answer = (socket: Socket, request: string): void => {
    const [, first = 0, last = 0] = (/bytes=(\d+)-(\d+)/.exec(request) ?? []).map(Number);
    const head = headOf(first, last + 1);
    const changed = random.below(3) > 0 ? mutate(head, random) : head;
    socket.write(Buffer.concat([Buffer.from(changed, 'latin1'), BLOB.subarray(first, last + 1)]));
    // some servers end the connection, some keep it
    if (changed !== head && random.below(2) === 0) socket.end();
  };
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (data) => answer(socket, data.toString()));
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  let good = 0;
  let bad = 0;
  const one = async (): Promise<void> => {
    const section = { addr: `http://127.0.0.1:${port}`, timeout: 1, connect_timeout: 5 };
    const backend = new HttpProxyBackend(readHttpProxyConfig(section), silentLogger, {
      env: {},
      random: () => 0,
    });
    try {
      const start = random.below(BLOB.length - 100);
      const length = 1 + random.below(BLOB.length - start);
      const bytes = await (await backend.open('blob')).read(start, length);
      assert.ok(bytes.length <= length);
      assert.ok(
        Buffer.from(bytes).equals(BLOB.subarray(start, start + bytes.length)),
        `seed ${seed}: wrong bytes`,
      );
      good++;
    } catch (error) {
      assert.ok(error instanceof NydusError, `seed ${seed}: ${String(error)}`);
      bad++;
    } finally {
      await backend.close();
    }
  };
  for (let done = 0; done < RUNS; done += WIDTH) await Promise.all(Array.from({ length: WIDTH }, one));
  assert.ok(good > 0 && bad + good >= RUNS, `seed ${seed}: ${good} good, ${bad} failed`);
});
