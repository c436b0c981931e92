// The pool: the same results on a thread as here, readers first, and nobody waits forever.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { BackendError } from '../../base/errors.ts';
import { ChunkOutcome } from './decode.ts';
import { acquireDecodePool, DecodePool, releaseDecodePool } from './decode-pool.ts';
import { makeJob, openContent, patterned, readyIndexes } from './testing/decode-job.ts';
import type { DecodeJob } from './decode.ts';

/** More than the pool decodes on the calling thread. */
const BIG = 256 * 1024;

function bigJob(tag: string, more: Partial<DecodeJob> = {}): { job: DecodeJob; plain: Buffer } {
  const plain = patterned(BIG, tag);
  return { plain, job: makeJob([{ index: 1, plain, plainOffset: 0, wanted: true }], 'zstd', more) };
}

test('DecodePool: a job gives the same on a thread as on the calling one', async (t) => {
  for (const threads of [0, 2]) {
    const pool = new DecodePool(threads);
    t.after(() => pool.close());
    const jobs = ['a', 'b', 'c', 'd', 'e'].map((tag) => bigJob(tag));
    const results = await Promise.all(jobs.map(({ job }, at) => pool.run(job, () => at % 2 === 0)));
    results.forEach(({ outcomes, plain }, at) => {
      assert.deepEqual([...outcomes], [ChunkOutcome.decoded]);
      assert.ok(jobs[at]?.plain.equals(plain.get(1) ?? new Uint8Array(0)), `${threads} threads, job ${at}`);
    });
    assert.equal(pool.width, Math.max(1, threads));
  }
});

test('DecodePool: a thread writes the data file and sets the bits of this process', async (t) => {
  const pool = new DecodePool(1);
  t.after(() => pool.close());
  const { fd, path } = openContent(t, Buffer.alloc(BIG));
  const { job, plain } = bigJob('w', { target: 'plain', dataFd: fd });
  const result = await pool.run(job, () => false);
  assert.deepEqual([...result.outcomes], [ChunkOutcome.cached]);
  assert.ok(readFileSync(path).equals(plain));
  assert.deepEqual(readyIndexes(job.ready), [1]);
});

test('DecodePool: a job that a reader waits for overtakes those that nobody waits for', async (t) => {
  const pool = new DecodePool(1);
  t.after(() => pool.close());
  await pool.run(bigJob('warm').job, () => false);
  const order: string[] = [];
  const run = (name: string, urgent: boolean): Promise<void> =>
    pool.run(bigJob(name).job, () => urgent).then(() => void order.push(name));
  await Promise.all([run('first', false), run('second', false), run('third', false), run('reader', true)]);
  assert.deepEqual(order, ['first', 'reader', 'second', 'third']);
});

test('DecodePool: a job that a reader comes to wait for overtakes the others from then on', async (t) => {
  const pool = new DecodePool(1);
  t.after(() => pool.close());
  await pool.run(bigJob('warm').job, () => false);
  const order: string[] = [];
  let wanted = '';
  const run = (name: string): Promise<void> =>
    pool.run(bigJob(name).job, () => wanted === name).then(() => void order.push(name));
  const all = ['first', 'second', 'third', 'fourth'].map(run);
  wanted = 'third';
  await Promise.all(all);
  assert.deepEqual(order, ['first', 'third', 'second', 'fourth']);
});

test('DecodePool: a job that cannot run is rejected, the next one runs', async (t) => {
  const pool = new DecodePool(1);
  t.after(() => pool.close());
  const { fd } = openContent(t, Buffer.alloc(BIG));
  const plain = patterned(BIG, 'far');
  // no bit for chunk 5000 in 8 bytes
  const impossible = makeJob([{ index: 5000, plain, plainOffset: 0 }], 'zstd', {
    target: 'plain',
    dataFd: fd,
    ready: new Uint8Array(new SharedArrayBuffer(8)),
  });
  await assert.rejects(
    pool.run(impossible, () => false),
    (error: unknown) => {
      assert.ok(error instanceof BackendError);
      assert.match(error.message, /^decode job failed: RangeError/);
      return true;
    },
  );
  const { job, plain: good } = bigJob('good');
  assert.ok(good.equals((await pool.run(job, () => false)).plain.get(1) ?? new Uint8Array(0)));
});

test('DecodePool: close rejects what waits, later jobs run on the calling thread', async () => {
  const pool = new DecodePool(1);
  const outcomes = ['a', 'b', 'c'].map((tag) =>
    pool
      .run(bigJob(tag).job, () => false)
      .then(
        () => 'done',
        (error: unknown) => (error instanceof BackendError ? error.message : String(error)),
      ),
  );
  await pool.close();
  assert.deepEqual((await Promise.all(outcomes)).slice(1), [
    'decode pool was closed',
    'decode pool was closed',
  ]);
  const { job, plain } = bigJob('late');
  assert.ok(plain.equals((await pool.run(job, () => true)).plain.get(1) ?? new Uint8Array(0)));
});

test('acquireDecodePool: all users get one pool, which the last one closes', async () => {
  const first = acquireDecodePool(1);
  assert.equal(acquireDecodePool(1), first);
  await releaseDecodePool(first);
  assert.equal(acquireDecodePool(1), first);
  await releaseDecodePool(first);
  await releaseDecodePool(first);
  const next = acquireDecodePool(1);
  assert.notEqual(next, first);
  await releaseDecodePool(next);
});
