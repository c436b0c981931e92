// What users install: the release tarball on a machine without Node, `make install`, and the launchers wherever they are
// called from. Everything is made in a temporary directory.
import assert from 'node:assert/strict';
import { spawn, spawnSync, type SpawnSyncOptions } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, describe, it, type TestContext } from 'node:test';
import { repoRoot, requireFuse, requireRoot, requireSudo, tempDir } from '../support/golden.ts';
import { findProgram } from '../support/prerequisites.ts';

const work = tempDir();
const bin = join(work, 'checkout/bin');
/** A PATH with what launchers need of a minimal system, and no Node. */
const bare = join(work, 'bare');
/** The unpacked tarball. */
let unpacked = '';

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

function run(file: string, args: string[], options: SpawnSyncOptions = {}): Ran {
  const { status, stdout, stderr, error } = spawnSync(file, args, {
    env: { PATH: bare },
    cwd: '/',
    ...options,
  });
  if (error !== undefined) throw error;
  return { status, stdout: String(stdout), stderr: String(stderr) };
}

function tool(name: string, args: string[]): void {
  const { status, stderr } = run(process.execPath, [join(repoRoot, 'tools', name), ...args], {
    env: process.env,
  });
  assert.equal(status, 0, stderr);
}

function assertRuns(file: string, options: SpawnSyncOptions = {}): void {
  for (const [args, first] of [
    [['--version'], /^nydus-image \rVersion: \tv\d+\.\d+\.\d+/],
    [['create', '-h'], /--blob-dir/],
  ] as const) {
    const { status, stdout, stderr } = run(file, [...args], options);
    assert.equal(status, 0, stderr);
    assert.match(stdout, first);
    assert.equal(stderr, '');
  }
}

/** A file that is executed as `node`. */
function fakeNode(dir: string, script: string): void {
  mkdirSync(dir, { recursive: true });
  for (const name of readdirSync(bare)) symlinkSync(join(bare, name), join(dir, name));
  writeFileSync(join(dir, 'node'), `#!/bin/sh\n${script}\n`);
  chmodSync(join(dir, 'node'), 0o755);
}

/** The launchers and the bundle alone, without the packages beside them. */
function withoutPackages(t: TestContext): string {
  const dir = tempDir(t);
  cpSync(bin, join(dir, 'bin'), { recursive: true });
  return join(dir, 'bin');
}

describe('release', () => {
  before(() => {
    mkdirSync(bare);
    for (const name of ['readlink', 'uname'])
      symlinkSync(findProgram(name) ?? `/usr/bin/${name}`, join(bare, name));
    tool('bundle.ts', ['--out', bin]);
    symlinkSync(join(repoRoot, 'node_modules'), join(work, 'checkout/node_modules'));
    tool('release.ts', ['--bin', bin, '--out', join(work, 'dist'), '--quick']);
    const [tarball = ''] = readdirSync(join(work, 'dist')).filter((name) => name.endsWith('.tar.gz'));
    assert.match(tarball, /^nydus-ts-\d+\.\d+\.\d+-linux-(x64|arm64)\.tar\.gz$/);
    assert.equal(
      run('tar', ['-C', work, '-xzf', join(work, 'dist', tarball)], { env: process.env }).status,
      0,
    );
    unpacked = join(work, tarball.slice(0, -'.tar.gz'.length));
  });

  it('release: checksums of the tarball and of every file in it hold', () => {
    const options = { env: process.env, cwd: join(work, 'dist') };
    const outer = readdirSync(join(work, 'dist')).filter((name) => name.endsWith('.sha256'));
    assert.equal(run('sha256sum', ['--check', '--strict', ...outer], options).status, 0);
    const inner = run('sha256sum', ['--check', '--strict', '--quiet', 'SHA256SUMS'], {
      ...options,
      cwd: unpacked,
    });
    assert.deepEqual(inner, { status: 0, stdout: '', stderr: '' });
    const listed = readFileSync(join(unpacked, 'SHA256SUMS'), 'utf8').split('\n').length - 1;
    const files = readdirSync(unpacked, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
    assert.equal(files.filter(({ name }) => name !== 'SHA256SUMS').length >= listed, true);
    for (const name of ['LICENSE', 'README.md', 'bin/nydusd', 'bin/nydus-image'])
      assert.ok(existsSync(join(unpacked, name)), name);
  });

  it('release: the programs of the tarball run where no Node is', () => {
    assertRuns(join(unpacked, 'bin/nydus-image'));
  });

  it(
    'release: builds an image and serves it where no Node is',
    { skip: requireFuse() || requireRoot() },
    async (t) => {
      const dir = tempDir(t);
      for (const name of ['tree', 'blobs', 'cache', 'mnt']) mkdirSync(join(dir, name));
      const content = Buffer.from('from a release\n'.repeat(20_000));
      writeFileSync(join(dir, 'tree/file'), content);
      for (const compressor of ['zstd', 'lz4_block']) {
        const args = ['create', '--compressor', compressor, '-D', 'blobs', '-B', 'boot', 'tree'];
        const built = run(join(unpacked, 'bin/nydus-image'), args, { cwd: dir });
        assert.equal(built.status, 0, built.stderr);
        const daemon = spawn(
          join(unpacked, 'bin/nydusd'),
          ['-B', 'boot', '-D', 'blobs', '-M', 'mnt', '--rlimit-nofile', '0'],
          { cwd: dir, env: { PATH: bare }, stdio: ['ignore', 'ignore', 'pipe'] },
        );
        let log = '';
        const serving = new Promise<void>((done, fail) => {
          daemon.stderr.on('data', (piece: Buffer) => {
            log += piece.toString();
            if (log.includes('INFO serving ')) done();
          });
          daemon.once('exit', (code) => fail(new Error(`nydusd ended with ${code}\n${log}`)));
        });
        const ended = once(daemon, 'exit');
        await serving;
        assert.ok(readFileSync(join(dir, 'mnt/file')).equals(content));
        daemon.kill('SIGTERM');
        assert.deepEqual(await ended, [0, null], log);
        assert.deepEqual(readdirSync(join(dir, 'mnt')), []);
      }
    },
  );

  it('install: programs in PREFIX/bin run, and are replaced by a second installation', (t) => {
    const prefix = join(tempDir(t), 'a prefix');
    for (let times = 0; times < 2; times++) tool('release.ts', ['--bin', bin, '--install', prefix]);
    assert.deepEqual(
      readdirSync(join(prefix, 'bin')).sort(),
      readdirSync(bin)
        .filter((name) => name !== 'lib')
        .sort(),
    );
    assert.deepEqual(readdirSync(join(prefix, 'lib')), ['nydus-ts']);
    assertRuns(join(prefix, 'bin/nydus-image'));
  });
});

describe('launcher', () => {
  it('launcher: runs through links to links, relative ones, and from PATH', (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'one two'));
    symlinkSync(join(bin, 'nydus-image'), join(dir, 'one two/first'));
    symlinkSync('one two/first', join(dir, 'second'));
    assertRuns(join(dir, 'second'));
    assertRuns('./second', { cwd: dir });
    assertRuns('../second', { cwd: join(dir, 'one two') });
    assertRuns('./nydus-image', { cwd: bin });
    assertRuns('nydus-image', { cwd: '/', env: { PATH: `${bin}:${bare}` } });
  });

  it('launcher: runs under sudo', { skip: requireSudo() }, () => {
    const { status, stdout, stderr } = run('sudo', ['-n', join(bin, 'nydusd'), '--version'], {
      env: process.env,
    });
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^nydusd \rVersion: /);
  });

  it('launcher: an old Node in PATH is refused with the next step', (t) => {
    const programs = withoutPackages(t);
    const path = join(programs, '../old');
    fakeNode(path, 'if [ "$1" = --version ]; then echo v18.20.4; else echo started; fi');
    const { status, stdout, stderr } = run(join(programs, 'nydusd'), ['--version'], { env: { PATH: path } });
    assert.deepEqual({ status, stdout }, { status: 1, stdout: '' });
    assert.match(
      stderr,
      /^nydusd: \S+\/old\/node is Node\.js v18\.20\.4, 24 or later is needed: install it, or run 'make' in /,
    );
  });

  it('launcher: no Node at all is told with the next step', (t) => {
    const programs = withoutPackages(t);
    const { status, stderr } = run(join(programs, 'nydus-image'), ['--version']);
    assert.equal(status, 1);
    assert.match(stderr, /^nydus-image: no Node\.js found: install Node\.js 24 or later, or run 'make' in /);
  });

  it('launcher: takes a Node in PATH that is new enough, with the arguments as they are', (t) => {
    const programs = withoutPackages(t);
    const path = join(programs, '../new');
    fakeNode(path, 'if [ "$1" = --version ]; then echo v24.0.0; else shift 2; printf "<%s>" "$@"; fi');
    const { status, stdout, stderr } = run(join(programs, 'nydusd'), ['a b', '', '*'], {
      env: { PATH: path },
    });
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '<a b><><*>', stderr: '' });
  });
});
