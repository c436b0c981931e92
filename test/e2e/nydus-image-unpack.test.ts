// `nydus-image unpack` as users run it: what GNU tar makes of it, pipes, backends, damage, mistakes.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { BlobServer } from '../support/blob-server.ts';
import {
  firstReason,
  goldenPath,
  prepareDirInput,
  readManifest,
  requirePeer,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { nydusImage, programCommand, runProgram, runProgramLive } from '../support/programs.ts';
import { noise, text } from '../support/sample-tree.ts';
import { compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';

const skip = requirePeer('tar');

interface Built {
  dir: string;
  tree: string;
  boot: string;
  blobs: string;
  /** path of the blob */
  blob: string;
}

/** A tree with small files, duplicates, a big file, a hole and a hard link. */
function build(t: TestContext, ...more: string[]): Built {
  const dir = tempDir(t);
  const tree = join(dir, 'tree');
  mkdirSync(join(tree, 'many'), { recursive: true });
  for (let i = 0; i < 300; i++) writeFileSync(join(tree, `many/${i}`), text(`${i % 100}`, i * 40));
  writeFileSync(join(tree, 'big'), noise('big', 9_000_001));
  writeFileSync(join(tree, 'zeros'), Buffer.alloc(5_000_000));
  const [boot, blobs] = [join(dir, 'boot'), join(dir, 'blobs')];
  mkdirSync(blobs);
  nydusImage(['create', '--log-level', 'warn', ...more, '-B', boot, '-D', blobs, tree]);
  return { dir, tree, boot, blobs, blob: join(blobs, readdirSync(blobs)[0] as string) };
}

function extract(tar: string | Buffer, into: string): void {
  mkdirSync(into);
  const from = typeof tar === 'string' ? tar : '-';
  const flags = ['-x', '-p', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-C', into, '-f', from];
  const done = spawnSync('tar', flags, typeof tar === 'string' ? {} : { input: tar });
  assert.equal(done.status, 0, String(done.stderr));
}

function assertSame(tree: string, found: string): void {
  const ignore = ['ino', 'blocks', 'blksize', 'mtime_nsec', 'mtime:/', ...directorySizes(walkTree(tree))];
  assert.deepEqual(compareTrees(tree, found, { ignore }), []);
}

for (const options of [
  ['-v', '5', '--compressor', 'lz4_block'],
  ['-v', '6', '--batch-size', '0x100000'],
  ['-v', '6', '--compressor', 'none', '--chunk-size', '0x1000'],
]) {
  test(`nydus-image unpack: GNU tar finds the tree again (${options.join(' ')})`, { skip }, (t) => {
    const { dir, tree, boot, blobs } = build(t, ...options);
    const out = join(dir, 'out.tar');
    nydusImage(['unpack', boot, '-D', blobs, '--output', out]);
    extract(out, join(dir, 'found'));
    assertSame(tree, join(dir, 'found'));
  });
}

for (const version of ['5', '6']) {
  const reason = firstReason(skip, requireRoot(), skipUnlessGolden('input', 'odd.tar.gz'));
  for (const input of ['odd', 'xattr']) {
    test(
      `nydus-image unpack: golden input ${input} survives but for its sockets (v${version})`,
      { skip: firstReason(reason, skipUnlessGolden('input', `${input}.tar.gz`)) },
      (t) => {
        const dir = tempDir(t);
        const tree = join(dir, 'tree');
        prepareDirInput(input, tree);
        mkdirSync(join(dir, 'blobs'));
        const [boot, blobs, out] = [join(dir, 'boot'), join(dir, 'blobs'), join(dir, 'out.tar')];
        const create = ['create', '-v', version, '--chunk-size', '0x10000', '-B', boot, '-D', blobs, tree];
        nydusImage(create);
        nydusImage(['unpack', '-B', boot, '-D', blobs, '--output', out]);
        // the same tree again, through our own reader of tars: no attribute is lost that an image holds
        const again = join(dir, 'again');
        nydusImage(['create', '-t', 'tar-rafs', '-v', version, '-B', again, '-D', blobs, out]);
        const second = join(dir, 'second.tar');
        nydusImage(['unpack', again, '-D', blobs, '--output', second]);
        assert.ok(readFileSync(second).equals(readFileSync(out)));
        const listed = spawnSync('tar', ['-tf', out, '--quoting-style=literal'], { encoding: 'latin1' });
        assert.equal(listed.status, 0, listed.stderr);
        const manifest = readManifest(goldenPath('input', `${input}.manifest.jsonl`) as string);
        const names = manifest.filter(({ type, path }) => type !== 'socket' && path.length > 1);
        assert.deepEqual(
          listed.stdout
            .split('\n')
            .slice(0, -1)
            .map((name) => name.replace(/\/$/, '')).length,
          names.flatMap(({ path }) => path.toString('latin1').split('\n')).length,
        );
      },
    );
  }
}

test('nydus-image unpack: to a pipe, from one blob file', { skip }, async (t) => {
  const { dir, tree, boot, blob } = build(t);
  const [file, ...first] = programCommand('nydus-image');
  const args = [...first, 'unpack', boot, '--blob', blob, '--output', '/dev/stdout'];
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const pieces: Buffer[] = [];
  for await (const piece of child.stdout) pieces.push(piece as Buffer);
  extract(Buffer.concat(pieces), join(dir, 'found'));
  assertSame(tree, join(dir, 'found'));
  assert.equal(spawnSync('mkfifo', [join(dir, 'fifo')]).status, 0);
  const reader = spawn('cat', [join(dir, 'fifo')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const unpacked = runProgramLive('nydus-image', ['unpack', boot, '-b', blob, '--output', join(dir, 'fifo')]);
  const again: Buffer[] = [];
  for await (const piece of reader.stdout) again.push(piece as Buffer);
  assert.equal((await unpacked).status, 0);
  assert.ok(Buffer.concat(again).equals(Buffer.concat(pieces)));
});

test(
  'nydus-image unpack: the blob comes through a Unix socket, small files with each other',
  { skip },
  async (t) => {
    const { dir, tree, boot, blob } = build(t);
    const socketPath = join(dir, 'sock');
    const bytes = readFileSync(blob);
    // a socket serves one blob; there its path is none
    const server = await BlobServer.start(t, {
      socketPath,
      find: ({ url }) => (url === '/' ? bytes : undefined),
    });
    const out = join(dir, 'out.tar');
    const config = ['--backend-type', 'http-proxy', '--backend-config', JSON.stringify({ addr: socketPath })];
    const result = await runProgramLive('nydus-image', ['unpack', boot, ...config, '--output', out]);
    assert.equal(result.status, 0, result.stderr);
    extract(out, join(dir, 'found'));
    assertSame(tree, join(dir, 'found'));
    assert.ok(server.requests.length < 60, `${server.requests.length} requests for 300 small files`);
  },
);

test('nydus-image unpack: damaged data leaves the file of that name as it was', (t) => {
  const { dir, boot, blobs, blob } = build(t, '-v', '6');
  const bytes = readFileSync(blob);
  bytes[1000] = (bytes[1000] ?? 0) ^ 1;
  writeFileSync(blob, bytes);
  const out = join(dir, 'out.tar');
  writeFileSync(out, 'before');
  const result = runProgram('nydus-image', ['unpack', boot, '-D', blobs, '--output', out]);
  assert.equal(result.status, 1);
  assert.match(result.stderr, /Error: fail to unpack\n\nCaused by:\n +blob [0-9a-f]{64}: chunk 0: /);
  assert.equal(readFileSync(out, 'utf8'), 'before');
  assert.deepEqual(
    readdirSync(dir).filter((name) => name.endsWith('.tmp')),
    [],
  );
});

test('nydus-image unpack: mistakes that upstream answers with exit 1', (t) => {
  const { dir, boot, blobs } = build(t);
  const out = join(dir, 'o');
  const fails = (args: string[], want: RegExp): void => {
    const { status, stderr } = runProgram('nydus-image', ['unpack', '--log-level', 'warn', ...args]);
    assert.equal(status, 1, stderr);
    assert.match(stderr, want);
    assert.equal(existsSync(out), false);
  };
  fails(
    [boot, '--output', out],
    /^Error: invalid backend configuration, --blob, --blob-dir or --backend-type must be specified\n/,
  );
  fails([boot, '--blob-dir', blobs, '--output', ''], /^Error: invalid empty --output option\n/);
  fails(
    [boot, '--backend-type', 'localfs', '--backend-config', '{}', '--output', out],
    /^Error: Use --blob-dir to specify localfs backend, --blob, --blob-dir or --backend-type must be specified\n/,
  );
  fails(
    [boot, '--backend-type', 'registry', '--output', out],
    /^Error: --backend-config or --backend-config-file must be specified, --blob, --blob-dir or --backend-type must be specified\n/,
  );
  fails(
    [boot, '--backend-type', 'nosuch', '--backend-config', '{}', '--output', out],
    /unsupported backend type 'nosuch', --blob, --blob-dir or --backend-type must be specified\n/,
  );
  writeFileSync(join(dir, 'junk'), 'junk');
  fails(
    [join(dir, 'junk'), '--blob-dir', blobs, '--output', out],
    /^Error: fail to unpack\n\nCaused by:\n {4}invalid RAFS superblock/,
  );
});
