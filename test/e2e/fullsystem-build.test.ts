// Building on a bad day: killed at any moment, or out of disk space. No file that looks finished may stay behind.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { firstReason, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage, programCommand, requireProgram, runProgram } from '../support/programs.ts';
import { noise, text } from '../support/sample-tree.ts';
import { fileDigest } from '../support/tree-manifest.ts';

const skip = requireProgram('nydus-image');

/** A tree that takes long enough to be interrupted: about 40 MB, half of it incompressible. */
function makeSource(dir: string): void {
  mkdirSync(dir);
  for (let at = 0; at < 40; at++) {
    const data = at % 2 === 0 ? noise(`file ${at}`, 1 << 20) : text(`file ${at}`, 1 << 20);
    writeFileSync(join(dir, `file-${at}`), data);
  }
  mkdirSync(join(dir, 'small'));
  for (let at = 0; at < 2000; at++) writeFileSync(join(dir, 'small', `f${at}`), `small file ${at}`);
}

/** Files that a consumer would take for a finished blob or bootstrap: named by a digest, or as the caller asked. */
function finished(dir: string, ...names: string[]): string[] {
  return readdirSync(dir).filter((name) => /^[0-9a-f]{64}$/.test(name) || names.includes(name));
}

/** Blobs in a directory whose content does not have the digest they are named by. */
function wrongNames(dir: string): string[] {
  return finished(dir).filter((name) => fileDigest(join(dir, name)) !== name);
}

for (const compressor of ['none', 'zstd']) {
  test(
    `nydus-image create (${compressor}): killed at any moment, leaves nothing that looks finished`,
    { skip },
    async (t) => {
      const dir = tempDir(t);
      const source = join(dir, 'source');
      makeSource(source);
      const fullArgs = (out: string): string[] => {
        const target = ['--blob-dir', out, '--bootstrap', join(out, 'bootstrap')];
        return ['create', '--type', 'dir-rafs', '--compressor', compressor, ...target, source];
      };
      const whole = join(dir, 'whole');
      mkdirSync(whole);
      const began = performance.now();
      nydusImage(fullArgs(whole));
      const duration = performance.now() - began;

      let killed = 0;
      for (let round = 1; round <= 12; round++) {
        const out = join(dir, `out${round}`);
        mkdirSync(out);
        const [file, ...first] = programCommand('nydus-image');
        const child = spawn(file, [...first, ...fullArgs(out)], { stdio: 'ignore' });
        const ended = new Promise<NodeJS.Signals | null>((resolve) => {
          child.on('exit', (_, signal) => resolve(signal));
        });
        const timer = setTimeout(() => child.kill('SIGKILL'), (duration * round) / 13);
        const signal = await ended;
        clearTimeout(timer);
        if (signal !== 'SIGKILL') continue; // it was faster than last time
        killed++;
        assert.deepEqual(wrongNames(out), [], `round ${round}: a blob has the name of a finished one`);
        if (existsSync(join(out, 'bootstrap'))) {
          // the bootstrap is the last file: when it is there, everything is
          assert.equal(
            fileDigest(join(out, 'bootstrap')),
            fileDigest(join(whole, 'bootstrap')),
            `round ${round}`,
          );
          assert.equal(
            finished(out).length,
            finished(whole).length,
            `round ${round}: a bootstrap without its blob`,
          );
        }
        nydusImage(fullArgs(out)); // what was left is not in the way
        assert.equal(fileDigest(join(out, 'bootstrap')), fileDigest(join(whole, 'bootstrap')));
        rmSync(out, { recursive: true });
      }
      assert.ok(killed >= 3, `only ${killed} of 12 builds were still running when they were to be killed`);
    },
  );
}

test('nydus-image create: a killed build leaves no file at the place of --blob', { skip }, async (t) => {
  const dir = tempDir(t);
  const source = join(dir, 'source');
  makeSource(source);
  const tar = join(dir, 'source.tar');
  assert.equal(spawnSync('tar', ['-cf', tar, '-C', source, '.']).status, 0);
  // the tar comes through a FIFO and never ends: the build cannot be over before it is killed
  const fifo = join(dir, 'fifo');
  assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
  const feed = spawn('sh', ['-c', 'exec 3> "$0"; head -c 20000000 "$1" >&3; exec sleep 600', fifo, tar]);
  t.after(() => feed.kill('SIGKILL'));
  const out = join(dir, 'out');
  mkdirSync(out);
  const target = ['--blob', join(out, 'blob'), '--bootstrap', join(out, 'bootstrap')];
  const [file, ...first] = programCommand('nydus-image');
  const child = spawn(file, [...first, 'create', '--type', 'tar-rafs', ...target, fifo], { stdio: 'ignore' });
  const ended = new Promise<NodeJS.Signals | null>((resolve) =>
    child.on('exit', (_, signal) => resolve(signal)),
  );
  const bytesWritten = (): number =>
    readdirSync(out).reduce(
      (sum, name) => sum + (statSync(join(out, name), { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
  while (child.exitCode === null && bytesWritten() < 1 << 20)
    await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill('SIGKILL');
  assert.equal(await ended, 'SIGKILL');
  assert.equal(existsSync(join(out, 'bootstrap')), false);
  assert.equal(existsSync(join(out, 'blob')), false);
});

test(
  'nydus-image create: a full disk is exit 1, says so, and leaves nothing',
  { skip: firstReason(requireRoot(), skip) },
  (t) => {
    const dir = tempDir(t);
    const source = join(dir, 'source');
    makeSource(source);
    const out = join(dir, 'out');
    mkdirSync(out);
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'nydus-test', out]).status, 0);
    for (const target of [
      ['--blob-dir', out],
      ['--blob', join(out, 'blob')],
      ['--blob-cache-dir', out],
    ]) {
      const args = ['create', '--type', 'dir-rafs', ...target, '--bootstrap', join(out, 'bootstrap'), source];
      const result = runProgram('nydus-image', args);
      assert.equal(result.status, 1, result.stderr);
      assert.match(result.stderr, /ENOSPC|[Nn]o space left/, target.join(' '));
      assert.deepEqual(readdirSync(out), [], `${target.join(' ')}: nothing stays behind`);
    }
  },
);

test(
  'nydus-image create: a disk too full for the bootstrap leaves no bootstrap',
  { skip: firstReason(requireRoot(), skip) },
  (t) => {
    const dir = tempDir(t);
    const source = join(dir, 'source');
    mkdirSync(source);
    for (let at = 0; at < 3000; at++) writeFileSync(join(source, `${'long-name-'.repeat(20)}${at}`), '');
    const out = join(dir, 'out');
    mkdirSync(out);
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'nydus-test', out]).status, 0);
    const bootstrap = join(out, 'bootstrap');
    const result = runProgram('nydus-image', [
      'create',
      '--type',
      'dir-rafs',
      '--blob-dir',
      dir,
      '--bootstrap',
      bootstrap,
      source,
    ]);
    assert.equal(result.status, 1, result.stderr);
    assert.match(result.stderr, /ENOSPC|[Nn]o space left/);
    assert.deepEqual(readdirSync(out), []);
  },
);

test(
  'nydus-image create: the same bytes on one core and on all',
  { skip: firstReason(requirePeer('taskset'), skip) },
  (t) => {
    const dir = tempDir(t);
    const source = join(dir, 'source');
    makeSource(source);
    const digests = [['taskset', '-c', '0'], []].map((prefix, at) => {
      const out = join(dir, `out${at}`);
      mkdirSync(out);
      const bootstrap = join(out, 'bootstrap');
      const json = join(out, 'r.json');
      const args = ['create', '--blob-dir', out, '--bootstrap', bootstrap, '--output-json', json, source];
      const [file = '', ...rest] = [...prefix, ...programCommand('nydus-image'), ...args];
      const result = spawnSync(file, rest, { encoding: 'utf8' });
      assert.equal(result.status, 0, result.stderr);
      const { blobs } = JSON.parse(readFileSync(json, 'utf8')) as { blobs: string[] };
      return [fileDigest(bootstrap), ...blobs.map((id) => fileDigest(join(out, id)))];
    });
    assert.deepEqual(digests[0], digests[1]);
  },
);
