import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Link, Urgency } from './link.ts';
import { WindowedMin } from './windowed-min.ts';

/** A link with a clock in the hands of the test. */
function fixture(): { link: Link; at: (ms: number) => void; measured: () => void } {
  let now = 1000;
  const link = new Link(() => now);
  const at = (ms: number): void => void (now = ms);
  /** one answer: headers after 30 ms, 1,000,000 bytes in 100 ms */
  const measured = (): void => {
    const began = now;
    const transfer = link.start(1_000_000);
    now = began + 30;
    transfer.answered();
    now = began + 130;
    transfer.progress(1_000_000);
    transfer.end(true);
  };
  return { link, at, measured };
}

test('Link: round trip and rate come from finished requests, the product from both', () => {
  const { link, measured } = fixture();
  assert.deepEqual([link.rttMs, link.bytesPerMs, link.known], [undefined, undefined, false]);
  assert.equal(link.product, 256 * 1024);
  measured();
  assert.deepEqual([link.rttMs, link.bytesPerMs, link.known], [30, 10_000, true]);
  assert.equal(link.product, 300_000);
});

test('Link: requests at the same time share the rate that is measured', () => {
  const { link, at } = fixture();
  const both = [link.start(500_000), link.start(500_000)];
  at(1030);
  for (const one of both) {
    one.answered();
    one.progress(1);
  }
  at(1130);
  for (const one of both) one.progress(500_000);
  for (const one of both) one.end(true);
  assert.equal(Math.round(link.bytesPerMs ?? 0), 10_000);
});

test('Link: a thread that was not on time measures no more than the link carries, and the round trip of the last seconds stays', () => {
  const { link, at, measured } = fixture();
  measured();
  // asked for together, all read at once, long after they came
  const late = [link.start(400_000), link.start(400_000), link.start(400_000)];
  at(1130 + 500);
  for (const one of late) one.answered();
  for (const one of late) one.progress(400_000);
  for (const one of late) one.end(true);
  assert.deepEqual([link.rttMs, link.bytesPerMs], [30, 10_000]);
  // a first answer that was read late, with its body behind it
  const { link: fresh, at: later } = fixture();
  const body = fresh.start(400_000);
  later(1100);
  body.answered();
  body.progress(400_000);
  later(1100.2);
  body.end(true);
  assert.deepEqual([fresh.rttMs, fresh.bytesPerMs], [100, 16_000]);
});

test('WindowedMin: the smallest value of the last seconds', () => {
  const min = new WindowedMin(1000);
  assert.equal(min.value, undefined);
  for (const [value, now, expected] of [
    [30, 0, 30],
    [50, 100, 30],
    [40, 200, 30],
    [60, 900, 30],
    [70, 1001, 40],
    [35, 1100, 35],
    [90, 2101, 90],
  ] as const) {
    min.add(value, now);
    assert.equal(min.value, expected, `${value} at ${now}`);
  }
});

test('Link: what is worth fetching in a round trip is bounded by what half a thread decodes', () => {
  const { link, measured } = fixture();
  measured();
  assert.equal(link.product, 300_000);
  // small jobs say nothing
  link.digested(1000, 100);
  assert.equal(link.product, 300_000);
  for (let i = 0; i < 100; i++) link.digested(180_000, 10);
  assert.equal(Math.round(link.product), 270_000);
  for (let i = 0; i < 100; i++) link.digested(90_000, 1000);
  assert.equal(link.product, 256 * 1024, 'no less than where nothing is known');
});

test('Link: small answers and failed ones say nothing about the rate', () => {
  const { link, at } = fixture();
  for (const [bytes, ok] of [
    [1000, true],
    [100_000, false],
  ] as const) {
    const transfer = link.start(bytes);
    at(1030);
    transfer.answered();
    transfer.progress(1);
    at(1040);
    transfer.progress(bytes);
    transfer.end(ok);
  }
  assert.equal(link.bytesPerMs, undefined);
});

/** What was admitted, in order. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('Link: speculative work waits until what readers asked for has left the far end', async () => {
  const { link, at, measured } = fixture();
  measured();
  const reader = link.start(200_000);
  const order: string[] = [];
  const admit = (name: string, urgency: Urgency): Promise<void> =>
    link.admit(50_000, urgency).then((started) => {
      order.push(name);
      link.start(50_000);
      started();
    });
  const all = [
    admit('bulk', Urgency.prefetch),
    admit('older', Urgency.readAhead),
    admit('newer', Urgency.readAhead),
  ];
  await settled();
  assert.deepEqual(order, []);
  // 200,000 bytes take 20 ms; from an eighth of a round trip before that on there is room for one piece
  at(1130 + 17);
  reader.progress(1);
  await settled();
  assert.deepEqual(order, ['newer']);
  at(1130 + 22);
  reader.progress(2);
  await settled();
  assert.deepEqual(order, ['newer', 'older']);
  at(1130 + 40);
  reader.progress(200_000);
  reader.end(true);
  await Promise.all(all);
  assert.deepEqual(order, ['newer', 'older', 'bulk']);
});

test('Link: while nothing is known one piece at a time, and none beside a reader', async () => {
  const { link } = fixture();
  const first = await link.admit(1000, Urgency.prefetch);
  let second = false;
  const waiting = link.admit(1000, Urgency.prefetch).then((started) => {
    second = true;
    started();
  });
  const transfer = link.start(1000);
  first();
  await settled();
  assert.equal(second, false);
  transfer.end(true);
  await waiting;
});

test('Link: a cancelled wait and a closed link reject with their reasons', async () => {
  const { link } = fixture();
  link.start(1000);
  const cancel = new AbortController();
  const cancelled = assert.rejects(link.admit(1, Urgency.prefetch, cancel.signal), /enough/);
  cancel.abort(new Error('enough'));
  await cancelled;
  await assert.rejects(link.admit(1, Urgency.prefetch, AbortSignal.abort(new Error('before'))), /before/);
  const closed = assert.rejects(link.admit(1, Urgency.prefetch), /closed/);
  link.close(new Error('closed'));
  await closed;
});
