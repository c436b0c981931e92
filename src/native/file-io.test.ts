// Positioned I/O by address: exact bytes, short reads, and errno instead of exceptions.
import assert from 'node:assert/strict';
import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { addressOf, fallocate, preadFull, preadInto, pwriteFrom, pwriteFull, willNeed } from './file-io.ts';

const { EBADF, ENOSPC, EISDIR } = constants.errno;

function openFile(t: TestContext, content: string): { path: string; fd: number } {
  const path = join(tempDir(t), 'file');
  writeFileSync(path, content);
  const fd = openSync(path, 'r+');
  t.after(() => closeSync(fd));
  return { path, fd };
}

test('addressOf: views of one buffer lie as far apart as their offsets', () => {
  const buffer = new ArrayBuffer(4096);
  const base = addressOf(new Uint8Array(buffer));
  assert.ok(Number.isSafeInteger(base) && base > 0);
  assert.equal(addressOf(new Uint8Array(buffer, 100, 7)), base + 100);
  assert.equal(addressOf(new DataView(buffer, 4000)), base + 4000);
  // the first view that is seen need not start at the buffer
  const other = new SharedArrayBuffer(64);
  const late = addressOf(new Uint8Array(other, 10));
  assert.equal(addressOf(new Uint8Array(other)), late - 10);
});

test('addressOf: an empty view', () => {
  assert.equal(addressOf(new Uint8Array(0)), 0);
});

test('preadFull: fills exactly the wanted bytes, fewer at the end of the file, none behind it', (t) => {
  const { fd } = openFile(t, 'hello world');
  const target = Buffer.alloc(8, '.');
  assert.equal(preadFull(fd, addressOf(target) + 1, 5, 6), 5);
  assert.equal(target.toString(), '.world..');
  assert.equal(preadFull(fd, addressOf(target), 8, 9), 2);
  assert.equal(target.toString(), 'ldorld..');
  assert.equal(preadFull(fd, addressOf(target), 8, 11), 0);
  assert.equal(preadInto(fd, addressOf(target), 2, 0), 2);
  assert.equal(target.toString(), 'heorld..');
});

test('preadFull, preadInto: minus the errno', (t) => {
  const target = Buffer.alloc(8);
  assert.equal(preadFull(-1, addressOf(target), 8, 0), -EBADF);
  assert.equal(preadInto(-1, addressOf(target), 8, 0), -EBADF);
  const dir = openSync(tempDir(t), 'r');
  t.after(() => closeSync(dir));
  assert.equal(preadFull(dir, addressOf(target), 8, 0), -EISDIR);
});

test('pwriteFull: all bytes at their place, a hole in front of them', (t) => {
  const { path, fd } = openFile(t, 'abcdef');
  const data = Buffer.from('XYZ!');
  assert.equal(pwriteFull(fd, addressOf(data) + 1, 2, 2), 0);
  assert.equal(readFileSync(path, 'latin1'), 'abYZef');
  assert.equal(pwriteFull(fd, addressOf(data), 4, 8), 0);
  assert.equal(readFileSync(path, 'latin1'), 'abYZef\0\0XYZ!');
  assert.equal(pwriteFrom(fd, addressOf(data), 1, 0), 1);
  assert.equal(readFileSync(path, 'latin1')[0], 'X');
});

test('pwriteFull, pwriteFrom: errno of a full disk and of a bad descriptor', () => {
  const data = Buffer.alloc(10_000, 1);
  const full = openSync('/dev/full', 'w');
  try {
    assert.equal(pwriteFull(full, addressOf(data), data.length, 0), ENOSPC);
    assert.equal(pwriteFrom(full, addressOf(data), data.length, 0), -ENOSPC);
  } finally {
    closeSync(full);
  }
  assert.equal(pwriteFull(-1, addressOf(data), 1, 0), EBADF);
});

test('fallocate: the file has blocks for its length, its content stays', (t) => {
  const { path, fd } = openFile(t, 'abc');
  assert.equal(fallocate(fd, 100_000), 0);
  assert.equal(fstatSync(fd).size, 100_000);
  assert.ok(fstatSync(fd).blocks * 512 >= 100_000);
  assert.equal(readFileSync(path).subarray(0, 3).toString(), 'abc');
  assert.equal(fallocate(-1, 10), EBADF);
});

test('willNeed: advice never fails the caller', (t) => {
  const { path, fd } = openFile(t, 'abc');
  willNeed(fd, 0, 3);
  willNeed(-1, 0, 3);
  assert.equal(readFileSync(path, 'latin1'), 'abc');
});
