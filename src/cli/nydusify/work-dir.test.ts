import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { withResumableDir } from './work-dir.ts';

const KEY = 'convert something';

/** Run once in a work directory. @returns the folder it had */
async function run(path: string): Promise<string> {
  let folder = '';
  await withResumableDir(path, KEY, collectingLogger([]), ({ scratch }) => {
    folder = join(scratch, '..');
    assert.deepEqual(readdirSync(scratch), []);
    return Promise.resolve();
  });
  return folder;
}

test('withResumableDir: a work directory that is missing is made and removed, one that is there is kept', async (t) => {
  const dir = tempDir(t);
  await run(join(dir, 'a/b'));
  assert.deepEqual(readdirSync(dir, { recursive: true }), ['a']);
  mkdirSync(join(dir, 'there'));
  await run(join(dir, 'there'));
  assert.equal(existsSync(join(dir, 'there')), true);
});

test('withResumableDir: what a run killed at its first or last step has made goes with the next run', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'work');
  const folder = await run(path);
  // killed after the work directory was made, or when only it was left; then before anything was in the folder
  for (const left of [path, folder]) {
    mkdirSync(path, { mode: 0o1700 });
    if (left !== path) mkdirSync(left, { mode: 0o700 });
    await run(path);
    assert.deepEqual(readdirSync(dir), [], left);
  }
});
