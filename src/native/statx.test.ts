import assert from 'node:assert/strict';
import { closeSync, lstatSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { SystemError } from './libc.ts';
import { lstatx, newStatx } from './statx.ts';

const cString = (path: string): Buffer => Buffer.from(`${path}\0ignored`);

test('lstatx: agrees with lstat, links not followed', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'f'), 'hello');
  symlinkSync('f', join(dir, 'l'));
  for (const path of [dir, join(dir, 'f'), join(dir, 'l'), '/dev/null']) {
    const out = newStatx();
    lstatx(cString(path), out);
    const stat = lstatSync(path, { bigint: true });
    assert.deepEqual(
      [out.mode, out.nlink, out.uid, out.gid, out.size].map(BigInt),
      [stat.mode, stat.nlink, stat.uid, stat.gid, stat.size],
      path,
    );
    assert.equal((BigInt(out.inoHigh) << 32n) | BigInt(out.inoLow), stat.ino);
    assert.equal(BigInt(out.mtime) * 1_000_000_000n + BigInt(out.mtimeNsec), stat.mtimeNs);
  }
  const device = newStatx();
  lstatx(cString('/dev/null'), device);
  assert.deepEqual([device.rdevMajor, device.rdevMinor], [1, 3]);
});

test('lstatx: a relative path starts at the open directory', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'f'), 'hello');
  const fd = openSync(dir, 'r');
  const out = newStatx();
  lstatx(cString('f'), out, fd);
  closeSync(fd);
  assert.equal(out.size, 5);
});

test('lstatx: a missing file is ENOENT, named', () => {
  assert.throws(
    () => lstatx(cString('/nonexistent/x'), newStatx()),
    (error) =>
      error instanceof SystemError &&
      error.code === 'ENOENT' &&
      error.message.endsWith('statx /nonexistent/x'),
  );
});
