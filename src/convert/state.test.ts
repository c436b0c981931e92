import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { ConvertState } from './state.ts';

const digest = (letter: string): string => `sha256:${letter.repeat(64)}`;

test('ConvertState: what was noted is found by the next run, a line that was cut off is not', async (t) => {
  const folder = tempDir(t);
  const first = await ConvertState.open(folder);
  const bootstrap = await first.keepBootstrap(digest('b'), Buffer.from('bootstrap'));
  await first.add({ source: digest('a'), variant: '', digest: digest('b'), size: 7 });
  first.addMember(digest('b'), 1024);
  const file = join(folder, 'state.jsonl');
  appendFileSync(file, `{"source":"${digest('c')}","digest":"${digest('d')}"`);
  const second = await ConvertState.open(folder);
  assert.equal(second.size, 1);
  const { check, ...found } = (await second.find(digest('a'), '')) as Awaited<
    ReturnType<typeof second.find>
  > & {
    check: string;
  };
  assert.deepEqual(found, { source: digest('a'), variant: '', digest: digest('b'), size: 7, bootstrap });
  assert.equal(await second.find(digest('a'), 'dictionary'), undefined);
  assert.match(check, /^[0-9a-f]{64}$/);
  assert.deepEqual(second.members, [{ digest: digest('b'), end: 1024 }]);
  assert.equal(await second.find(digest('c'), ''), undefined);
  // the line that was cut off does not swallow what comes next
  second.addMember(digest('e'), 2048);
  assert.equal((await ConvertState.open(folder)).members.length, 2);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(bootstrap).mode & 0o777, 0o600);
});

test('ConvertState: a bootstrap that is not as it was noted is not used', async (t) => {
  const folder = tempDir(t);
  const state = await ConvertState.open(folder);
  const path = await state.keepBootstrap(digest('b'), Buffer.from('bootstrap'));
  await state.add({ source: digest('a'), variant: '', digest: digest('b'), size: 7 });
  writeFileSync(path, 'bootstrop');
  assert.equal(await (await ConvertState.open(folder)).find(digest('a'), ''), undefined);
});

test('ConvertState: lines that are none of ours are passed over', async (t) => {
  const folder = tempDir(t);
  const lines = ['null', '[]', '{', '{"source":1,"digest":"x"}', `{"digest":"${digest('a')}","end":-1}`];
  writeFileSync(join(folder, 'state.jsonl'), `${lines.join('\n')}\n`);
  const state = await ConvertState.open(folder);
  assert.equal(state.size, 0);
  assert.deepEqual(state.members, []);
  assert.equal(readFileSync(join(folder, 'state.jsonl'), 'utf8').includes('source":1'), true);
});

test('ConvertState: layers that become the same blob at the same time keep one bootstrap', async (t) => {
  const state = await ConvertState.open(tempDir(t));
  const paths = await Promise.all(
    Array.from({ length: 20 }, () => state.keepBootstrap(digest('5'), Buffer.from('boot'))),
  );
  assert.deepEqual(new Set(paths), new Set([state.bootstrapPath(digest('5'))]));
  assert.equal(readFileSync(paths[0] as string, 'utf8'), 'boot');
});
