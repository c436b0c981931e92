import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { makeFifo } from '../native/fifo.ts';
import { feedFifo, retireFifo } from './fifo-feed.ts';

async function* pieces(count: number, size: number, end?: Error): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < count; i++) yield Buffer.alloc(size, i);
  if (end !== undefined) throw end;
}

async function read(path: string): Promise<Buffer> {
  const out: Uint8Array[] = [];
  for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) out.push(piece);
  return Buffer.concat(out);
}

function fifo(t: Parameters<typeof tempDir>[0]): string {
  const path = join(tempDir(t), 'fifo');
  makeFifo(path, 0o600);
  return path;
}

test('feedFifo: a reader that opens late gets every byte, then the end', async (t) => {
  for (const [count, size] of [
    [0, 0],
    [1, 1],
    [50, 100_000],
  ] as const) {
    const path = fifo(t);
    const feeding = feedFifo(path, pieces(count, size), new AbortController().signal);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const [bytes] = await Promise.all([read(path), feeding]);
    const expected = Array.from({ length: count }, (_, i) => Buffer.alloc(size, i));
    assert.ok(bytes.equals(Buffer.concat(expected)));
  }
});

test('feedFifo: a source that fails gives its error, and the reader an end', async (t) => {
  const path = fifo(t);
  const failure = new Error('the source broke');
  const reading = read(path);
  await assert.rejects(feedFifo(path, pieces(2, 10, failure), new AbortController().signal), failure);
  assert.equal((await reading).length, 20);
});

test('feedFifo: an abort ends it while nobody reads', async (t) => {
  const path = fifo(t);
  const stop = new AbortController();
  const feeding = feedFifo(path, pieces(1, 1), stop.signal);
  const reason = new Error('enough');
  stop.abort(reason);
  await assert.rejects(feeding, reason);
});

test('retireFifo: a waiting reader sees the end, a later one finds no file', async (t) => {
  const path = fifo(t);
  const reading = read(path);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await retireFifo(path);
  assert.equal((await reading).length, 0);
  await assert.rejects(read(path), { code: 'ENOENT' });
});

test('feedFifo: a reader that goes away is an EPIPE', async (t) => {
  const path = fifo(t);
  const stream = createReadStream(path, { highWaterMark: 10 });
  stream.once('data', () => stream.destroy());
  await assert.rejects(feedFifo(path, pieces(100, 100_000), new AbortController().signal), { code: 'EPIPE' });
});
