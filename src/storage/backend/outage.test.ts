import assert from 'node:assert/strict';
import { test } from 'node:test';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { BackendError, RegistryError } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { Breaker } from './breaker.ts';
import { isOutage, OutageGate } from './outage.ts';

const far = (): number => performance.now() + 60_000;
const gone = new Error('connection refused');

test('isOutage: no answer, 5xx, 408 and 429; not 4xx, certificates or wrong ranges', () => {
  const error = (status: number, retryable = true): RegistryError =>
    new RegistryError({ method: 'GET', url: 'u', status, codes: [] }, 'x', { retryable });
  for (const status of [0, 408, 429, 500, 502, 503, 504])
    assert.equal(isOutage(error(status)), true, `${status}`);
  for (const status of [401, 403, 404]) assert.equal(isOutage(error(status, false)), false, `${status}`);
  assert.equal(isOutage(error(0, false)), false);
  assert.equal(isOutage(new BackendError('x', { retryable: true })), false);
});

test('OutageGate: one line when it goes, one when it returns, readers before prefetch', async () => {
  const lines: string[] = [];
  const gate = new OutageGate('registry h', collectingLogger(lines));
  const first = await gate.enter({ until: far(), urgent: true });
  assert.equal(first.probing, false);
  gate.failed(first, gone);
  gate.failed(first, gone);
  assert.equal(gate.isDown, true);
  const order: string[] = [];
  const prefetch = gate
    .enter({ until: far(), urgent: false })
    .then((turn) => void order.push(`prefetch ${turn.probing}`));
  const probe = gate.enter({ until: far(), urgent: true });
  const reader = gate
    .enter({ until: far(), urgent: true })
    .then((turn) => void order.push(`reader ${turn.probing}`));
  const turn = await probe;
  assert.equal(turn.probing, true);
  assert.deepEqual([order, gate.metrics().waiting], [[], 2]);
  gate.answered(turn);
  await Promise.all([prefetch, reader]);
  assert.deepEqual(order, ['reader false', 'prefetch false']);
  assert.deepEqual([gate.metrics().down, gate.metrics().outages, gate.metrics().waiting], [false, 1, 0]);
  assert.equal(lines.length, 2);
  assert.equal(lines[0], 'warn registry h is down: connection refused');
  assert.match(lines[1] ?? '', /^warn registry h is back after \d+\.\d s, 2 reads go on$/);
});

test('OutageGate: a probe that fails or is dropped hands over to the next reader', async () => {
  const gate = new OutageGate('b', silentLogger);
  gate.failed({ probing: false }, gone);
  const one = await gate.enter({ until: far(), urgent: true });
  const second = gate.enter({ until: far(), urgent: true });
  gate.failed(one, gone);
  const two = await second;
  const third = gate.enter({ until: far(), urgent: true });
  gate.dropped(two);
  const three = await third;
  assert.deepEqual([one.probing, two.probing, three.probing], [true, true, true]);
});

test('OutageGate: waiting ends at its time, with the signal, and with the gate', async () => {
  const gate = new OutageGate('b', silentLogger);
  gate.failed({ probing: false }, gone);
  const probing = await gate.enter({ until: far(), urgent: true });
  const message = /^b is down for \d+\.\d s: connection refused$/;
  await assert.rejects(gate.enter({ until: performance.now() + 20, urgent: true }), {
    code: 'ERR_NYDUS_BACKEND',
    message,
  });
  const cancel = new AbortController();
  const cancelled = assert.rejects(
    gate.enter({ until: far(), urgent: true, signal: cancel.signal }),
    /enough/,
  );
  cancel.abort(new Error('enough'));
  await cancelled;
  // without an outage policy: a reader waits for the probe under way, prefetch does not
  const now = performance.now();
  await assert.rejects(gate.enter({ until: now, urgent: false }), { message });
  const reader = assert.rejects(gate.enter({ until: now, urgent: true }), { message });
  gate.failed(probing, gone);
  await reader;
  const last = await gate.enter({ until: far(), urgent: true });
  const closed = assert.rejects(gate.enter({ until: far(), urgent: true }), /closed/);
  gate.close(new Error('closed'));
  await closed;
  await assert.rejects(gate.enter({ until: far(), urgent: true }), /closed/);
  gate.dropped(last);
});

test('Breaker: opens at the third failure in a row, lets one trial through per interval, closes with a success', () => {
  let now = 0;
  const breaker = new Breaker(() => now);
  assert.deepEqual([breaker.failed(), breaker.failed(), breaker.allows()], [false, false, true]);
  breaker.succeeded();
  assert.deepEqual([breaker.failed(), breaker.failed(), breaker.failed()], [false, false, true]);
  assert.equal(breaker.allows(), false);
  now = 1000;
  assert.deepEqual([breaker.allows(), breaker.allows()], [true, false]);
  assert.equal(breaker.failed(), false);
  now = 2999;
  assert.equal(breaker.allows(), false);
  now = 3000;
  assert.equal(breaker.allows(), true);
  breaker.succeeded();
  assert.deepEqual([breaker.allows(), breaker.allows()], [true, true]);
});
