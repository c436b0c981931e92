import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeDirectories } from './make-directories.ts';

test('makeDirectories: parents too, twice, and errors where nothing can be made', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'nydus-mkdir-'));
  t.after(() => rmSync(dir, { recursive: true }));
  makeDirectories(join(dir, 'a/b/c'));
  makeDirectories(join(dir, 'a/b/c'));
  assert.equal(statSync(join(dir, 'a/b/c')).isDirectory(), true);
  writeFileSync(join(dir, 'file'), '');
  assert.throws(() => makeDirectories(join(dir, 'file/x')), { code: 'ENOTDIR' });
  assert.throws(() => makeDirectories('/proc/none/x/y'), { code: 'ENOENT' });
});
