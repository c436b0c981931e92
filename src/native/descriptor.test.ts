// poll, eventfd and reads by address on descriptors of this process.
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'node:test';
import {
  createEventfd,
  Poller,
  POLLIN,
  readByAddress,
  setNonBlocking,
  signalEventfd,
  tryWrite,
} from './descriptor.ts';
import { socketPair } from './fd-passing.ts';
import { lastErrno } from './libc.ts';
import { allocateMemory } from './memory.ts';
import { getResourceLimit, RLIMIT_NOFILE, setResourceLimit } from './process.ts';

test('Poller: says which descriptor has input', () => {
  const [first, second] = [createEventfd(), createEventfd()];
  const poller = new Poller([first, second]);
  assert.equal(poller.wait(0), 0);
  signalEventfd(second);
  assert.equal(poller.wait(-1), 1);
  assert.deepEqual([poller.events(0), poller.events(1)], [0, POLLIN]);
  const memory = allocateMemory(8);
  assert.equal(readByAddress()(second, memory.address, 8), 8);
  assert.equal(memory.view.getBigUint64(0, true), 1n);
  assert.equal(poller.wait(0), 0);
  closeSync(first);
  closeSync(second);
});

test('setNonBlocking: a read without input is EAGAIN', () => {
  const [left, right] = socketPair();
  setNonBlocking(left, true);
  const memory = allocateMemory(16);
  assert.equal(readByAddress()(left, memory.address, 16), -1);
  assert.equal(lastErrno(), constants.errno.EAGAIN);
  assert.equal(tryWrite(right, Buffer.from('abc')), 3);
  assert.equal(readByAddress()(left, memory.address, 16), 3);
  assert.equal(Buffer.from(memory.bytes.subarray(0, 3)).toString(), 'abc');
  closeSync(left);
  closeSync(right);
});

test('setResourceLimit: the soft limit can be changed and read back', () => {
  const before = getResourceLimit(RLIMIT_NOFILE);
  setResourceLimit(RLIMIT_NOFILE, { soft: before.soft - 1, hard: before.hard });
  assert.deepEqual(getResourceLimit(RLIMIT_NOFILE), { soft: before.soft - 1, hard: before.hard });
  setResourceLimit(RLIMIT_NOFILE, before);
});
