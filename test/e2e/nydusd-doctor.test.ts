// `nydusd doctor` on this machine: what it says is checked against what the tests of the drivers need.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { localConfig } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram, runProgram } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

interface Answer {
  works: boolean;
  findings: { what: string; verdict: string; detail: string; advice: string }[];
}

const skip = firstReason(requireRoot(), requireFuse(), requireProgram('nydusd'));

function ask(...args: string[]): { status: number | null; answer: Answer } {
  const { status, stdout, stderr } = runProgram('nydusd', ['doctor', '--output', 'json', ...args]);
  assert.notEqual(stdout, '', stderr);
  return { status, answer: JSON.parse(stdout) as Answer };
}

function verdict(answer: Answer, what: string): string | undefined {
  return answer.findings.find((finding) => finding.what === what)?.verdict;
}

test(
  'nydusd doctor: tries every driver with the cache of a configuration, and leaves nothing',
  { skip },
  (t) => {
    const dir = tempDir(t);
    const [blobs, cache, config] = [join(dir, 'blobs'), join(dir, 'cache'), join(dir, 'config.json')];
    mkdirSync(blobs);
    writeFileSync(config, JSON.stringify(localConfig(blobs, cache)));
    const { status, answer } = ask('--config', config);
    assert.equal(status, 0, JSON.stringify(answer));
    assert.equal(answer.works, true);
    assert.equal(verdict(answer, `driver fuse with a cache in ${cache}`), 'yes');
    assert.equal(verdict(answer, 'backend localfs'), 'yes');
    assert.equal(verdict(answer, 'guardian'), 'yes');
    const kernel = requirePreContent() === false ? 'yes' : 'limited';
    assert.equal(verdict(answer, `driver fanotify with a cache in ${cache}`), kernel, JSON.stringify(answer));
    assert.deepEqual(readdirSync(cache), []);
    assert.deepEqual(mountsBelow(dir), []);
  },
);

test('nydusd doctor: a cache on tmpfs has no fanotify, says what to do, and still works', { skip }, (t) => {
  const dir = tempDir(t, '../dev/shm/nydus-doctor-');
  const { status, answer } = ask('--cache', dir);
  const found = answer.findings.find(({ what }) => what === `driver fanotify with a cache in ${dir}`);
  assert.equal(found?.verdict, 'limited');
  assert.match(found?.advice ?? '', /ext4, xfs or btrfs|Linux 6\.14/);
  assert.equal(verdict(answer, `driver fuse with a cache in ${dir}`), 'yes');
  assert.equal(status, 0);
});

test('nydusd doctor: a backend that does not answer is a failure with exit status 1', { skip }, (t) => {
  const dir = tempDir(t);
  const config = join(dir, 'config.json');
  const registry = { host: '127.0.0.1:9', repo: 'a/b', scheme: 'http' };
  writeFileSync(
    config,
    JSON.stringify({ device: { backend: { type: 'registry', config: registry } }, mode: 'direct' }),
  );
  const { status, stdout } = runProgram('nydusd', ['doctor', '--config', config]);
  assert.equal(status, 1);
  assert.match(stdout, /backend registry +no +GET http:\/\/127\.0\.0\.1:9\/v2\/: connection refused/);
  assert.match(stdout, /1 of \d+ things do not work\./);
});
