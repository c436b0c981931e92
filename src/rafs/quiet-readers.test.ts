import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { QuietReaders } from './quiet-readers.ts';

/** Runs the timers of the test in steps until the wait is over. @returns how long that took, in their time */
async function waited(t: TestContext, quiet: QuietReaders, step: (now: number) => void): Promise<number> {
  let over = false;
  const began = performance.now();
  void quiet.wait().then(() => (over = true));
  for (;;) {
    await new Promise((resolve) => void setImmediate(resolve));
    if (over) return performance.now() - began;
    step(performance.now() - began);
    t.mock.timers.tick(10);
  }
}

function mockClock(t: TestContext): void {
  let now = 0;
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const { tick } = t.mock.timers;
  t.mock.method(t.mock.timers, 'tick', (millis: number) => {
    now += millis;
    tick.call(t.mock.timers, millis);
  });
  t.mock.method(performance, 'now', () => now);
}

test('QuietReaders: 250 ms after the last miss, and at once as long as it stays quiet', async (t) => {
  mockClock(t);
  let bytes = 0;
  const { signal } = new AbortController();
  const quiet = new QuietReaders({ isBusy: () => false, userBytes: () => bytes, signal });
  const first = await waited(t, quiet, (now) => {
    if (now < 300) bytes += 1;
  });
  assert.equal(first, 550);
  assert.equal(await waited(t, quiet, () => assert.fail('nobody has missed')), 0);
});

test('QuietReaders: readers that wait are not quiet, and are not waited for without end', async (t) => {
  mockClock(t);
  const { signal } = new AbortController();
  const quiet = new QuietReaders({ isBusy: () => true, userBytes: () => 0, signal });
  assert.equal(await waited(t, quiet, () => {}), 2000);
});

test('QuietReaders: the end of the prefetch ends the wait', async (t) => {
  mockClock(t);
  const stop = new AbortController();
  const quiet = new QuietReaders({ isBusy: () => true, userBytes: () => 0, signal: stop.signal });
  const took = await waited(t, quiet, (now) => {
    if (now >= 100) stop.abort();
  });
  assert.equal(took, 110);
});
