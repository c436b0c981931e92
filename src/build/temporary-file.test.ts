import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/golden.ts';
import { sweepAbandoned, temporaryName } from './temporary-file.ts';

test('temporaryName: beside the file, hidden, of bounded length, another one each time', () => {
  const [a, b] = [temporaryName(`/some/dir/${'n'.repeat(255)}`), temporaryName('/some/dir/x')];
  assert.match(a, /^\/some\/dir\/\.nydus-build\.[0-9a-f]{8}-\d+-\d+-[0-9a-f]{12}\.tmp$/);
  assert.notEqual(a, b);
  assert.ok(basename(a).length < 100);
});

test('sweepAbandoned: what a process that is gone left goes; own and foreign files stay', () => {
  const dir = tempDir();
  const mine = temporaryName(join(dir, 'blob'));
  writeFileSync(mine, 'in work');
  // a process that made a file and died
  const script = `const { temporaryName } = await import(${JSON.stringify(new URL('./temporary-file.ts', import.meta.url).href)});
    (await import('node:fs')).writeFileSync(temporaryName(${JSON.stringify(join(dir, 'blob'))}), 'left');`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  assert.equal(readdirSync(dir).length, 2);
  for (const name of ['.blob.1-0123456789ab.tmp', 'notes.tmp', '.nydus-build.tmp'])
    writeFileSync(join(dir, name), '');
  sweepAbandoned(dir);
  assert.deepEqual(
    readdirSync(dir).toSorted(),
    ['.blob.1-0123456789ab.tmp', '.nydus-build.tmp', basename(mine), 'notes.tmp'].toSorted(),
  );
});

test('sweepAbandoned: a process number that was given out again does not protect a file', () => {
  const dir = tempDir();
  const name = temporaryName(join(dir, 'blob')).replace(/-\d+-([0-9a-f]{12}\.tmp)$/, '-1-$1');
  writeFileSync(name, '');
  sweepAbandoned(dir);
  assert.deepEqual(readdirSync(dir), []);
});

test('sweepAbandoned: a file of another machine goes when nobody wrote it for a day', () => {
  const dir = tempDir();
  const name = (unique: string): string => `.nydus-build.00000000-1-1-${unique}.tmp`;
  const [young, old] = [name('000000000001'), name('000000000002')];
  for (const file of [young, old]) writeFileSync(join(dir, file), '');
  const past = Date.now() / 1000 - 25 * 3600;
  utimesSync(join(dir, old), past, past);
  sweepAbandoned(dir);
  assert.deepEqual(readdirSync(dir), [young]);
});

test('sweepAbandoned: a directory that is not there is no error', () => {
  assert.doesNotThrow(() => sweepAbandoned('/nonexistent/directory'));
});
