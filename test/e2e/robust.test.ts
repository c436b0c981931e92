// What is left after the worst: kill -9 of builder and daemon, signals in the middle of a build, full disks, FIFOs.
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage, programCommand, runProgram } from '../support/programs.ts';
import { noise, text } from '../support/sample-tree.ts';

const FILES = { big: noise('robust', 5_000_001), middle: text('robust', 900_000), small: noise('s', 5000) };

function makeTree(dir: string): void {
  mkdirSync(join(dir, 'tree/sub'), { recursive: true });
  writeFileSync(join(dir, 'tree/big'), FILES.big);
  writeFileSync(join(dir, 'tree/sub/middle'), FILES.middle);
  writeFileSync(join(dir, 'tree/sub/small'), FILES.small);
}

function makeTar(dir: string): void {
  const made = spawnSync('tar', ['--sort=name', '-C', join(dir, 'tree'), '-cf', join(dir, 'layer.tar'), '.']);
  assert.equal(made.status, 0, String(made.stderr));
}

/** A directory with the tree, its tar and an empty place for outputs. */
function workshop(t: TestContext): string {
  const dir = tempDir(t);
  makeTree(dir);
  makeTar(dir);
  mkdirSync(join(dir, 'out/blobs'), { recursive: true });
  return dir;
}

/** Everything below `dir` that a caller could take for a result: not the dot files of a build that goes on. */
function results(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.'))
    .map((entry) => entry.name);
}

function everything(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => entry.name);
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(5);
}

interface Running {
  child: ChildProcess;
  stderr: () => string;
  ended: Promise<unknown[]>;
}

function start(cwd: string, args: string[]): Running {
  const [file, ...first] = programCommand('nydus-image');
  const child = spawn(file, [...first, ...args], { cwd, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr?.on('data', (piece: Buffer) => (stderr += piece.toString()));
  return { child, stderr: () => stderr, ended: once(child, 'close') };
}

const OUTPUTS: Record<string, string[]> = {
  '--blob-dir': ['--blob-dir', 'out/blobs', '--bootstrap', 'out/boot'],
  '--blob': ['--blob', 'out/blob', '--bootstrap', 'out/boot'],
  '--blob-inline-meta': ['--blob', 'out/blob', '--blob-inline-meta'],
};

/** A build whose tar stops in the middle: it waits for the rest, with a part of its blob written. */
async function stalledBuild(t: TestContext, dir: string, output: string[]): Promise<Running> {
  assert.equal(spawnSync('mkfifo', [join(dir, 'pipe')]).status, 0);
  const running = start(dir, ['create', '--type', 'tar-rafs', ...output, 'pipe']);
  const fd = openSync(join(dir, 'pipe'), 'r+');
  t.after(() => closeSync(fd));
  const tar = readFileSync(join(dir, 'layer.tar')).subarray(0, 4_000_000);
  const feeder = spawn('sh', ['-c', 'cat >&3'], { stdio: ['pipe', 'ignore', 'ignore', fd] });
  t.after(() => feeder.kill('SIGKILL'));
  feeder.stdin?.on('error', () => {});
  feeder.stdin?.end(tar);
  await Promise.race([
    until(() => everything(join(dir, 'out')).length > 0),
    running.ended.then(() => assert.fail(`ended early: ${running.stderr()}`)),
  ]);
  return running;
}

describe('nydus-image create: a build that does not end well', () => {
  for (const [name, output] of Object.entries(OUTPUTS)) {
    it(`create ${name}: kill -9 in the middle of a tar leaves nothing that looks finished`, async (t) => {
      const dir = workshop(t);
      const { child, ended } = await stalledBuild(t, dir, output);
      child.kill('SIGKILL');
      assert.deepEqual(await ended, [null, 'SIGKILL']);
      assert.deepEqual(results(join(dir, 'out')), []);
      // the next build is not disturbed by what is left, and clears it away
      nydusImage(['create', '--type', 'tar-rafs', ...output, 'layer.tar'], { cwd: dir });
      assert.deepEqual(
        everything(join(dir, 'out')).filter((file) => file.startsWith('.')),
        [],
      );
    });

    for (const [signal, status] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      it(`create ${name}: ${signal} in the middle of a tar ends it and leaves nothing`, async (t) => {
        const dir = workshop(t);
        const { child, ended, stderr } = await stalledBuild(t, dir, output);
        child.kill(signal);
        assert.deepEqual(await ended, [status, null], stderr());
        assert.match(stderr(), new RegExp(`stopped by ${signal}\n$`));
        assert.deepEqual(everything(join(dir, 'out')), []);
      });
    }
  }

  it('create: kill -9 at any moment of a build from a directory leaves a whole result or none', async (t) => {
    const dir = workshop(t);
    nydusImage(['create', '--blob-dir', 'out/blobs', '--bootstrap', 'out/boot', 'tree'], { cwd: dir });
    const [blob = ''] = readdirSync(join(dir, 'out/blobs'));
    const whole: Record<string, Buffer> = {
      [blob]: readFileSync(join(dir, 'out/blobs', blob)),
      boot: readFileSync(join(dir, 'out/boot')),
    };
    for (const delay of [0, 5, 20, 60, 150]) {
      const out = `out-${delay}`;
      mkdirSync(join(dir, out, 'blobs'), { recursive: true });
      const args = ['create', '--blob-dir', `${out}/blobs`, '--bootstrap', `${out}/boot`, 'tree'];
      const { child, ended } = start(dir, args);
      await Promise.race([until(() => everything(join(dir, out)).length > 0), ended]);
      await sleep(delay);
      child.kill('SIGKILL');
      await ended;
      for (const file of results(join(dir, out))) {
        const path = file === 'boot' ? join(dir, out, file) : join(dir, out, 'blobs', file);
        assert.deepEqual(readFileSync(path), whole[file], `${file} after ${delay} ms`);
      }
    }
  });

  it('create: a full disk is told, and nothing is left on it', { skip: requireRoot() }, (t) => {
    const dir = workshop(t);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', join(dir, 'out')]);
    assert.equal(mounted.status, 0, String(mounted.stderr));
    mkdirSync(join(dir, 'out/blobs'));
    mkdirSync(join(dir, 'elsewhere'));
    const outputs = { ...OUTPUTS, '--blob-cache-dir': ['--blob-cache-dir', 'out/blobs', '-B', 'out/boot'] };
    for (const [name, output] of Object.entries(outputs)) {
      for (const source of [['tree'], ['--type', 'tar-rafs', 'layer.tar']]) {
        const { status, stderr } = runProgram('nydus-image', ['create', ...output, ...source], { cwd: dir });
        assert.equal(status, 1, stderr);
        assert.match(stderr, /^Error: build failed\n[\s\S]*No space left on device \(os error 28\)/, name);
        assert.deepEqual(everything(join(dir, 'out')), [], `${name} ${source.join(' ')}`);
      }
    }
  });
});

describe('nydus-image create: FIFOs', () => {
  it('create: tar from a FIFO, blob into a FIFO: the bytes of a build with files', async (t) => {
    const dir = workshop(t);
    nydusImage(['create', '--type', 'tar-rafs', '--blob', 'out/blob', '-B', 'out/boot', 'layer.tar'], {
      cwd: dir,
    });
    assert.equal(spawnSync('mkfifo', [join(dir, 'in.fifo'), join(dir, 'out.fifo')]).status, 0);
    const args = ['create', '--type', 'tar-rafs', '--blob', 'out.fifo', '-B', 'out/boot2', 'in.fifo'];
    const { ended, stderr } = start(dir, args);
    const feeder = spawn('sh', ['-c', 'cat layer.tar > in.fifo'], { cwd: dir, stdio: 'ignore' });
    t.after(() => feeder.kill('SIGKILL'));
    const hash = createHash('sha256');
    let size = 0;
    for await (const piece of createReadStream(join(dir, 'out.fifo')) as AsyncIterable<Buffer>) {
      hash.update(piece);
      size += piece.length;
    }
    assert.deepEqual(await ended, [0, null], stderr());
    const blob = readFileSync(join(dir, 'out/blob'));
    assert.equal(size, blob.length);
    assert.equal(hash.digest('hex'), createHash('sha256').update(blob).digest('hex'));
    assert.deepEqual(readFileSync(join(dir, 'out/boot2')), readFileSync(join(dir, 'out/boot')));
  });

  it('create: a reader of the FIFO that goes away is an error, not a hang', async (t) => {
    const dir = workshop(t);
    assert.equal(spawnSync('mkfifo', [join(dir, 'out.fifo')]).status, 0);
    const { ended, stderr } = start(dir, ['create', '--blob', 'out.fifo', '-B', 'out/boot', 'tree']);
    const reader = spawn('sh', ['-c', 'head -c 1000 out.fifo'], { cwd: dir, stdio: 'ignore' });
    t.after(() => reader.kill('SIGKILL'));
    assert.deepEqual(await ended, [1, null]);
    assert.match(stderr(), /^Error: build failed\n[\s\S]*Broken pipe \(os error 32\)/m);
    assert.deepEqual(everything(join(dir, 'out')), []);
  });
});

interface Image {
  dir: string;
  bootstrap: string;
  config: object;
}

function makeImage(t: TestContext, version: '5' | '6'): Image {
  const dir = workshop(t);
  const args = [
    'create',
    '-v',
    version,
    '--blob-dir',
    'out/blobs',
    '-B',
    'out/boot',
    '--chunk-size',
    '0x10000',
  ];
  nydusImage([...args, 'tree'], { cwd: dir });
  const config = localConfig(join(dir, 'out/blobs'), join(dir, 'cache'), { digest_validate: true });
  return { dir, bootstrap: join(dir, 'out/boot'), config };
}

function assertTree(mountpoint: string): void {
  assert.ok(readFileSync(join(mountpoint, 'big')).equals(FILES.big), 'big');
  assert.ok(readFileSync(join(mountpoint, 'sub/middle')).equals(FILES.middle), 'sub/middle');
  assert.ok(readFileSync(join(mountpoint, 'sub/small')).equals(FILES.small), 'sub/small');
}

describe('nydusd: after the worst', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  for (const version of ['5', '6'] as const) {
    it(`nydusd: kill -9 under readers, then the same mountpoint and cache again (v${version})`, async (t) => {
      const { dir, bootstrap, config } = makeImage(t, version);
      const options = { workDir: dir, bootstrap, config };
      for (const delay of [0, 30]) {
        const daemon = await startDaemon(options);
        const read = `while cat ${daemon.mountpoint}/big ${daemon.mountpoint}/sub/* >/dev/null; do :; done`;
        const readers = [1, 2].map(() => spawn('sh', ['-c', read], { stdio: 'ignore' }));
        const gone = Promise.all(readers.map((reader) => once(reader, 'close')));
        await sleep(delay);
        assert.equal(await daemon.stop('SIGKILL'), 'SIGKILL');
        await gone; // readers end with an error: none hangs
        assert.throws(() => readdirSync(daemon.mountpoint), { code: 'ENOTCONN' });
      }
      await using daemon = await startDaemon(options);
      assertTree(daemon.mountpoint);
      assert.equal(await daemon.stop(), 0, daemon.log);
      assert.deepEqual(readdirSync(daemon.mountpoint), [], 'no dead mount is left below');
    });
  }

  it('nydusd: a cache on a full disk: every read is still right', async (t) => {
    const { dir, bootstrap, config } = makeImage(t, '6');
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', join(dir, 'cache')]);
    assert.equal(mounted.status, 0, String(mounted.stderr));
    await using daemon = await startDaemon({ workDir: dir, bootstrap, config });
    assertTree(daemon.mountpoint);
    spawnSync('sh', ['-c', 'echo 3 > /proc/sys/vm/drop_caches']);
    assertTree(daemon.mountpoint);
    assert.equal(await daemon.stop(), 0, daemon.log);
  });

  it('nydusd: a cache disk that is full before the start: reads are still right', async (t) => {
    const { dir, bootstrap, config } = makeImage(t, '6');
    const cache = join(dir, 'cache');
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', cache]).status, 0);
    const fd = openSync(join(cache, 'filler'), 'w');
    assert.throws(() => {
      for (;;) writeSync(fd, Buffer.alloc(4096));
    }, /ENOSPC/);
    closeSync(fd);
    await using daemon = await startDaemon({ workDir: dir, bootstrap, config });
    assertTree(daemon.mountpoint);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.ok(existsSync(join(cache, 'filler')));
  });
});
