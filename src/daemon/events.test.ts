import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EventRing, MAX_EVENTS, MAX_EVENT_BYTES } from './events.ts';

const now = (): Date => new Date(Date.UTC(2026, 0, 1));

describe('EventRing', () => {
  it('EventRing: is empty at first, as golden/api shows it', () => {
    assert.equal(
      JSON.stringify(new EventRing(now).report()),
      '{"max_errors":500,"total_errors":0,"max_size":51200,"total_size":0,"errors":[]}',
    );
  });

  it('EventRing: dates its entries', () => {
    const ring = new EventRing(now);
    ring.add('text');
    assert.deepEqual(ring.report().errors, ['Thu, 01 Jan 2026 00:00:00 GMT - text']);
    assert.equal(ring.report().total_size, 36);
  });

  it('EventRing: the oldest make room, by count and by bytes', () => {
    const ring = new EventRing(now);
    for (let i = 0; i < MAX_EVENTS + 3; i++) ring.add(String(i));
    assert.equal(ring.report().total_errors, MAX_EVENTS);
    assert.match(ring.report().errors[0] ?? '', / - 3$/);
    for (let i = 0; i < 60; i++) ring.add('x'.repeat(1000));
    const { total_size, errors } = ring.report();
    assert.ok(total_size <= MAX_EVENT_BYTES);
    assert.equal(total_size, errors.join('').length);
    ring.add('y'.repeat(10 * MAX_EVENT_BYTES));
    assert.ok(ring.report().total_size <= MAX_EVENT_BYTES);
    assert.match(ring.report().errors.at(-1) ?? '', / - y+$/);
  });
});
