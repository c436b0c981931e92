// Deferred reads without a kernel: a pipe stands in for the device, so that the reply can be read back.
import assert from 'node:assert/strict';
import { closeSync, readSync } from 'node:fs';
import { test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { socketPair } from '../../native/fd-passing.ts';
import { COUNTER_SET_BYTES, CounterSet, emptyStats, Fop, type Counters } from '../counters.ts';
import { Accounting } from './accounting.ts';
import { MissReader } from './miss-reader.ts';
import type { SessionInstance } from './session.ts';
import type { MissReport } from './thread-messages.ts';

type Read = SessionInstance['read'];

function setUp(read: Read): {
  reader: MissReader;
  report: MissReport;
  counters: Counters;
  reply: () => Buffer;
  close: () => void;
} {
  const set = new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES));
  const counters = set.at(1);
  const accounting = new Accounting();
  const reader = new MissReader(set, accounting, silentLogger);
  const [ours, theirs] = socketPair();
  reader.setInstance(1, { read } as SessionInstance);
  const report: MissReport = {
    type: 'miss',
    fd: theirs,
    uniqueLow: 0x22,
    uniqueHigh: 0,
    index: 1,
    ino: 0x88,
    offset: 4096,
    size: 10,
    startedAtMs: performance.timeOrigin + performance.now(),
  };
  const reply = (): Buffer => {
    const buffer = Buffer.alloc(1000);
    return buffer.subarray(0, readSync(ours, buffer));
  };
  const close = (): void => {
    closeSync(ours);
    closeSync(theirs);
  };
  return { reader, report, counters, reply, close };
}

test('MissReader: replies with the header and the bytes, and counts them', async () => {
  const seen: number[] = [];
  const { reader, report, counters, reply, close } = setUp((ino, offset, size, target) => {
    seen.push(ino, offset, size, target.length);
    target.set(Buffer.from('abc'));
    return Promise.resolve(3);
  });
  reader.start(report);
  assert.equal(reader.inFlight()[0]?.inode, (1n << 56n) | 0x88n);
  await reader.settled();
  assert.deepEqual(seen, [0x88, 4096, 10, 10]);
  // len 19, error 0, unique 0x22, payload
  assert.equal(reply().toString('hex'), `${'13000000'}${'00000000'}${'2200000000000000'}616263`);
  const stats = emptyStats();
  counters.addTo(stats);
  assert.deepEqual([stats.data_read, stats.fop_hits[Fop.read], stats.block_count_read[0]], [3, 1, 1]);
  assert.deepEqual(reader.inFlight(), []);
  close();
});

const untilAborted: Read = (_ino, _offset, _size, _target, signal) =>
  new Promise((_, reject) => {
    const give = (): void => reject(new Error('gave up'));
    if (signal?.aborted === true) give();
    else signal?.addEventListener('abort', give);
  });

/** len 16, error -4 (EINTR), unique 0x22 */
const EINTR_REPLY = '10000000fcffffff2200000000000000';

test('MissReader.interrupt: cancels the read, the reply is EINTR', async () => {
  const { reader, report, reply, close } = setUp(untilAborted);
  reader.start(report);
  reader.interrupt(0x24, 0); // another request
  assert.equal(reader.inFlight().length, 1);
  reader.interrupt(0x22, 0);
  await reader.settled();
  assert.equal(reply().toString('hex'), EINTR_REPLY);
  close();
});

test('MissReader.interrupt: may come before the read it is for', async () => {
  const { reader, report, reply, close } = setUp(untilAborted);
  reader.interrupt(0x22, 0);
  reader.start(report);
  await reader.settled();
  assert.equal(reply().toString('hex'), EINTR_REPLY);
  close();
});

test('MissReader: a failed read is an errno and an error in the counters; a gone image is ENOENT', async () => {
  const { reader, report, counters, reply, close } = setUp(() => Promise.reject(new Error('disk on fire')));
  reader.start(report);
  await reader.settled();
  assert.equal(reply().readInt32LE(4), -5);
  const stats = emptyStats();
  counters.addTo(stats);
  assert.deepEqual([stats.data_read, stats.fop_hits[Fop.read], stats.fop_errors[Fop.read]], [0, 0, 1]);
  reader.setInstance(1, undefined);
  reader.start(report);
  assert.equal(reply().readInt32LE(4), -2);
  close();
});
