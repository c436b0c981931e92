import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { tempDir } from '../../test/support/temporary.ts';
import { FormatError, UsageError } from '../base/errors.ts';
import { openLocalFiles, readSmall } from './local-files.ts';

const LONG = `${'deep/'.repeat(30)}${'n'.repeat(120)}`;

function makeArchive(dir: string, format: string): string {
  const tree = join(dir, 'tree');
  mkdirSync(join(tree, LONG, '..'), { recursive: true });
  writeFileSync(join(tree, LONG), 'long');
  writeFileSync(join(tree, 'a'), 'first');
  linkSync(join(tree, 'a'), join(tree, 'hard'));
  mkdirSync(join(tree, 'x'));
  symlinkSync('../a', join(tree, 'x/soft'));
  symlinkSync('loop', join(tree, 'loop'));
  const path = join(dir, `${format}.tar`);
  const tar = spawnSync('tar', [`--format=${format}`, '-cf', path, '-C', tree, '.']);
  assert.equal(tar.status, 0, String(tar.stderr));
  return path;
}

for (const format of ['pax', 'gnu']) {
  test(`openLocalFiles: members of a ${format} archive are found by path and through links`, async (t) => {
    const files = await openLocalFiles(makeArchive(tempDir(t), format));
    for (const [path, content] of [
      [LONG, 'long'],
      ['a', 'first'],
      ['hard', 'first'],
      ['x/soft', 'first'],
    ] as const) {
      assert.equal((await readSmall(files, path, 100)).toString(), content, path);
    }
    assert.equal(await files.find('missing'), undefined);
    assert.equal((await files.find('a'))?.whole, false);
    await assert.rejects(async () => files.find('loop'), FormatError);
    await assert.rejects(readSmall(files, 'a', 4), /a has 5 bytes, limit 4/);
  });
}

test('openLocalFiles: links may not lead out of a directory', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'in'));
  writeFileSync(join(dir, 'secret'), 's');
  symlinkSync('../secret', join(dir, 'in/link'));
  const files = await openLocalFiles(join(dir, 'in'));
  await assert.rejects(files.find('link'), /leads out of the directory/);
  await assert.rejects(files.find('../secret'), /leads out of the directory/);
});

test('openLocalFiles: what is no plain tar is refused with a reason', async (t) => {
  const dir = tempDir(t);
  const put = (name: string, bytes: Uint8Array): string => {
    writeFileSync(join(dir, name), bytes);
    return join(dir, name);
  };
  await assert.rejects(openLocalFiles(join(dir, 'none')), (error: unknown) => {
    assert.ok(error instanceof UsageError);
    assert.equal(error.message, `source archive not accessible: ${join(dir, 'none')}`);
    return true;
  });
  await assert.rejects(openLocalFiles(put('z', gzipSync('x'))), /is compressed/);
  await assert.rejects(openLocalFiles(put('text', Buffer.alloc(600, 'text'))), /is no image archive/);
  await assert.rejects(openLocalFiles(put('tiny', Buffer.alloc(2, 'x'))), /is no image archive/);
});
