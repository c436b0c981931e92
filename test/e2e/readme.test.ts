// The commands of README's first ten minutes, run as they stand: only the folder /tmp/n and the programs are this test's.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { firstReason, repoRoot, requireFuse, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { programCommand } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

const skip = firstReason(requireFuse(), requireRoot(), requirePeer('curl'), requirePeer('jq'));

/** The shell block of README that has this text. */
function block(text: string): string {
  const readme = readFileSync(join(repoRoot, 'README.md'), 'utf8');
  const found = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)]
    .map((match) => match[1] ?? '')
    .find((each) => each.includes(text));
  if (found === undefined) throw new Error(`README has no block with ${text}`);
  return found;
}

/** A folder with `bin/nydus-image` and `bin/nydusd`. */
function programs(work: string): void {
  mkdirSync(join(work, 'bin'));
  for (const name of ['nydus-image', 'nydusd'] as const) {
    const path = join(work, 'bin', name);
    writeFileSync(path, `#!/bin/sh\nexec ${programCommand(name).join(' ')} "$@"\n`);
    chmodSync(path, 0o755);
  }
}

function bash(work: string, script: string): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, PATH: `${join(work, 'bin')}:${process.env['PATH']}` };
  return spawnSync('bash', ['-c', script], { cwd: work, env, encoding: 'utf8', timeout: 60_000 });
}

test('README: an image of a tree is built, checked, mounted and read', { skip }, (t) => {
  const work = tempDir(t);
  programs(work);
  const here = join(work, 'n');
  mkdirSync(join(work, 'doc/package'), { recursive: true });
  writeFileSync(join(work, 'doc/package/copyright'), 'first\nsecond\nthird\nfourth\n');
  // kill ends it as it ends the daemon in a terminal; its status is what the block promises
  const script = block('--mountpoint /tmp/n/mnt')
    .replaceAll('/tmp/n', here)
    .replaceAll('/usr/share/doc', join(work, 'doc'))
    .replace('kill %1', 'kill %1; wait %1; echo "status $?"');
  const { status, stdout, stderr } = bash(work, script);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^RAFS filesystem metadata is valid/m, stderr);
  assert.match(stdout, /^package\nfirst\nsecond\nthird\n/m);
  assert.match(stdout, /"backend_type":"localfs","read_count":[1-9]/);
  assert.match(stdout, /status 0\n$/, stderr);
  assert.deepEqual(mountsBelow(work), []);
});

test('README: layers are made and merged', { skip }, (t) => {
  const work = tempDir(t);
  programs(work);
  mkdirSync(join(work, 'blobs'));
  mkdirSync(join(work, 'one'));
  mkdirSync(join(work, 'two'));
  for (const name of ['kept', 'gone']) writeFileSync(join(work, 'one', name), name);
  for (const name of ['.wh.gone', 'added']) writeFileSync(join(work, 'two', name), name);
  for (const [at, dir] of ['one', 'two'].entries())
    assert.equal(spawnSync('tar', ['-C', dir, '-cf', `layer${at + 1}.tar`, '.'], { cwd: work }).status, 0);
  const { status, stderr } = bash(work, `set -e\n${block('--type tar-rafs')}`);
  assert.equal(status, 0, stderr);
  const tree = bash(work, 'echo ls | nydus-image inspect image.boot');
  assert.match(tree.stdout, /kept/, tree.stderr);
  assert.match(tree.stdout, /added/);
  assert.doesNotMatch(tree.stdout, /gone/);
});
