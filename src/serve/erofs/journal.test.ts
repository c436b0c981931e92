import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { EVENT_SIZE, newEvent, readEvent, settleEvent } from './events.ts';
import { Journal, UNKNOWN_BLOB } from './journal.ts';

/** An event as Linux 6.18 writes it: taken from a read of a marked file. */
function eventBytes(fd: number, offset: number, count: number): Buffer {
  const bytes = Buffer.from(
    '3000000003001800' + // event_len 48, version 3, reserved, metadata_len 24
      '0000100000000000' + // mask FAN_PRE_ACCESS
      '1700000049360000' + // fd, tid 13897
      '0600180000000000' + // info type 6, pad, len 24, pad
      '0000000000000000' + // offset
      '0000000000000000', // count
    'hex',
  );
  bytes.writeInt32LE(fd, 16);
  bytes.writeBigUInt64LE(BigInt(offset), 32);
  bytes.writeBigUInt64LE(BigInt(count), 40);
  return bytes;
}

test('readEvent: descriptor, thread and range of an event; nothing behind the end', () => {
  const bytes = eventBytes(23, 0x2000, 0x1000);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const event = newEvent();
  assert.equal(readEvent(view, 0, bytes.length, event), true);
  assert.deepEqual(event, { fd: 23, tid: 13897, offset: 0x2000, count: 0x1000, length: EVENT_SIZE });
  assert.equal(readEvent(view, EVENT_SIZE, bytes.length, event), false);
  assert.equal(readEvent(view, 0, 40, event), false);
});

test('Journal: what was written down and not settled is left for the next process', (t) => {
  const journal = Journal.create();
  t.after(() => closeSync(journal.fd));
  const first = journal.add(7, 2, 4096, 8192);
  const second = journal.add(9, UNKNOWN_BLOB, 0, 4096);
  journal.settle(first);
  const successor = new Journal(journal.fd);
  assert.deepEqual(successor.left(), [{ slot: second, fd: 9, blob: UNKNOWN_BLOB, offset: 0, count: 4096 }]);
  successor.settle(second);
  assert.deepEqual(new Journal(journal.fd).left(), []);
});

test('Journal: an event that was only read is left too, once, and gets a slot', (t) => {
  const journal = Journal.create();
  t.after(() => closeSync(journal.fd));
  journal.read.bytes.set(eventBytes(11, 0, 4096), 0);
  journal.read.bytes.set(eventBytes(12, 8192, 4096), EVENT_SIZE);
  settleEvent(journal.read.view, 0);
  // killed between writing down and settling: the slot counts
  journal.add(12, 5, 8192, 4096);
  const left = new Journal(journal.fd).left();
  assert.deepEqual(left, [{ slot: 0, fd: 12, blob: 5, offset: 8192, count: 4096 }]);
  journal.settle(0);
  journal.read.bytes.set(eventBytes(11, 0, 4096), 0);
  const [event] = new Journal(journal.fd).left();
  assert.equal(event?.fd, 11);
  assert.ok((event?.slot ?? -1) >= 0);
});

test('Journal: a file that is none is refused', (t) => {
  const fd = openSync('/dev/null', 'r');
  t.after(() => closeSync(fd));
  assert.throws(() => new Journal(fd), /journal: 0 bytes long/);
});
