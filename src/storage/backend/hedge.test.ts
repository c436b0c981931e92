// Requests that stall are sent once more, a few per cent of them at most.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hedge, type Send } from './hedge.ts';

const good = (): boolean => true;
const drop = (): void => {};

/** A hedge that has seen enough quick answers. */
async function warm(): Promise<Hedge> {
  const hedge = new Hedge(5);
  for (let i = 0; i < 20; i++)
    assert.equal(await hedge.run(() => Promise.resolve(i), good, drop, undefined), i);
  assert.deepEqual(hedge.metrics(), { requests: 0, wins: 0 });
  return hedge;
}

/** Never answers. */
const stall = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));

test('Hedge.run: a request that stalls is sent again, the second answers, the first is cancelled', async () => {
  const hedge = await warm();
  let cancelled: unknown;
  const send: Send<string> = (signal, second) => {
    if (second) return Promise.resolve('second');
    signal.addEventListener('abort', () => (cancelled = signal.reason));
    return stall(signal);
  };
  assert.equal(await hedge.run(send, good, drop, undefined), 'second');
  assert.deepEqual(hedge.metrics(), { requests: 1, wins: 1 });
  assert.match(String(cancelled), /another request was answered first/);
});

test('Hedge.run: the first may still win, and the late answer is let go', async () => {
  const hedge = await warm();
  const first = Promise.withResolvers<string>();
  const second = Promise.withResolvers<string>();
  const dropped: string[] = [];
  const send: Send<string> = (_signal, again) => {
    if (!again) return first.promise;
    first.resolve('first');
    return second.promise;
  };
  assert.equal(await hedge.run(send, good, (answer) => dropped.push(answer), undefined), 'first');
  second.resolve('late');
  await second.promise;
  await new Promise((resolve) => void setImmediate(resolve));
  assert.deepEqual(dropped, ['late']);
  assert.deepEqual(hedge.metrics(), { requests: 1, wins: 0 });
});

test('Hedge.run: an answer that is no good does not win', async () => {
  const hedge = await warm();
  const first = Promise.withResolvers<number>();
  const send: Send<number> = (_signal, second) => {
    if (!second) return first.promise;
    setTimeout(() => first.resolve(206), 5);
    return Promise.resolve(503);
  };
  assert.equal(await hedge.run(send, (status) => status < 500, drop, undefined), 206);
});

test('Hedge.run: when both fail, the error of the first is what is told', async () => {
  const hedge = await warm();
  const first = Promise.withResolvers<string>();
  const send: Send<string> = (_signal, second) => {
    if (!second) return first.promise;
    setTimeout(() => first.reject(new Error('first')), 5);
    return Promise.reject(new Error('second'));
  };
  await assert.rejects(hedge.run(send, good, drop, undefined), /^Error: first$/);
});

test('Hedge.run: an error before its time is an error, and nothing is sent again', async () => {
  const hedge = await warm();
  await assert.rejects(
    hedge.run(() => Promise.reject(new Error('refused')), good, drop, undefined),
    /refused/,
  );
  assert.deepEqual(hedge.metrics(), { requests: 0, wins: 0 });
});

test('Hedge.run: who gives up ends both', async () => {
  const hedge = await warm();
  const giveUp = new AbortController();
  const ended: boolean[] = [];
  const send: Send<string> = (signal, second) => {
    signal.addEventListener('abort', () => ended.push(second));
    if (second) setImmediate(() => giveUp.abort(new Error('given up')));
    return stall(signal);
  };
  await assert.rejects(hedge.run(send, good, drop, giveUp.signal), /given up/);
  assert.deepEqual(new Set(ended), new Set([false, true]));
});

test('Hedge: where everything is slow, a few per cent of the requests are sent again', async () => {
  const hedge = await warm();
  let sent = 0;
  let clock = 0;
  const slow = new Hedge(1, () => (clock += 1000));
  for (const one of [hedge, slow])
    for (let i = 0; i < 60; i++) {
      const send: Send<string> = (_signal, second) => {
        if (second) sent++;
        return new Promise((resolve) => void setTimeout(() => resolve('slow'), 12));
      };
      assert.equal(await one.run(send, good, drop, undefined), 'slow');
    }
  assert.ok(sent <= 1 + 60 * 0.03 + 1, `${sent} of 60`);
  assert.equal(slow.metrics().requests, 0, 'slow answers are the measure there');
});

test('Hedge: nothing is sent again before enough answers were seen', async () => {
  const hedge = new Hedge(1);
  assert.equal(hedge.patienceMs, undefined);
  for (let i = 0; i < 15; i++) await hedge.run(() => Promise.resolve(i), good, drop, undefined);
  assert.equal(hedge.patienceMs, undefined);
  await hedge.run(() => Promise.resolve(0), good, drop, undefined);
  assert.ok((hedge.patienceMs ?? 0) >= 1);
});
