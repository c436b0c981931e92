import assert from 'node:assert/strict';
import { fstatSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { openDirectory } from './getdents.ts';

test('openDirectory: all names as raw bytes, without dots, over several reads', (t) => {
  const dir = tempDir(t);
  const names = ['...', '..a', '.a', 'Ã¼', ...Array.from({ length: 12_000 }, (_, i) => `file-${i}`)];
  for (const name of names) writeFileSync(Buffer.from(`${dir}/${name}`, 'latin1'), '');
  const handle = openDirectory(Buffer.from(dir));
  assert.deepEqual(handle.names.map((name) => name.toString('latin1')).toSorted(), names.toSorted());
  assert.ok(fstatSync(handle.fd).isDirectory());
  handle.close();
  assert.throws(() => fstatSync(handle.fd), { code: 'EBADF' });
});

test('openDirectory: a file is refused', (t) => {
  const path = join(tempDir(t), 'f');
  writeFileSync(path, '');
  assert.throws(() => openDirectory(Buffer.from(path)), { code: 'ENOTDIR' });
});
