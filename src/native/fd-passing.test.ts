// Descriptors over a socket pair of this process.
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { receiveWithFds, sendWithFds, socketPair } from './fd-passing.ts';
import { SystemError } from './libc.ts';

test('sendWithFds, receiveWithFds: bytes and open files arrive', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'nydus-test-'));
  t.after(() => rmSync(dir, { recursive: true }));
  writeFileSync(join(dir, 'a'), 'alpha');
  const fd = openSync(join(dir, 'a'), 'r');
  const [left, right] = socketPair();
  assert.equal(sendWithFds(left, Buffer.from('hello'), [fd, fd]), 5);
  closeSync(fd);
  const { bytes, fds } = receiveWithFds(right);
  assert.equal(bytes.toString(), 'hello');
  assert.equal(fds.length, 2);
  const buffer = Buffer.alloc(10);
  assert.equal(buffer.toString('latin1', 0, readSync(fds[0] ?? -1, buffer, 0, 10, 0)), 'alpha');
  for (const received of fds) closeSync(received);
  sendWithFds(left, Buffer.from('plain'), []);
  assert.deepEqual(receiveWithFds(right), { bytes: Buffer.from('plain'), fds: [] });
  closeSync(left);
  assert.deepEqual(receiveWithFds(right), { bytes: Buffer.alloc(0), fds: [] });
  closeSync(right);
  assert.throws(
    () => receiveWithFds(right),
    (error) => error instanceof SystemError && error.code === 'EBADF',
  );
});
