import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createWriteStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { tempDir } from '../../test/support/temporary.ts';
import { NydusError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { TarType } from '../format/tar/archive-header.ts';
import { sampleTar, type SampleMember } from '../format/tar/archive-samples.ts';
import { nodeAt, walkNumbering } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';
import type { ChunkSink } from './chunk-sink.ts';
import type { BuildContext } from './options.ts';
import { readTarTree } from './source-tar.ts';

const context: BuildContext = {
  logger: silentLogger,
  signal: new AbortController().signal,
  progress: () => {},
};

/** Keeps what it is given; asks to wait now and then, as a busy one does. */
class MemorySink implements ChunkSink {
  readonly files = new Map<TreeNode, Buffer>();
  #file: TreeNode | undefined;
  #calls = 0;

  beginFile(node: TreeNode): void {
    assert.equal(this.#file, undefined);
    this.#file = node;
    this.files.set(node, Buffer.alloc(0));
  }

  write(data: Uint8Array): Promise<void> | undefined {
    const file = this.#file as TreeNode;
    this.files.set(file, Buffer.concat([this.files.get(file) as Buffer, data]));
    return this.#calls++ % 2 === 0 ? new Promise((resolve) => setImmediate(resolve)) : undefined;
  }

  endFile(): Promise<void> | undefined {
    const file = this.#file as TreeNode;
    assert.equal((this.files.get(file) as Buffer).length, file.size);
    this.#file = undefined;
    return undefined;
  }

  text(node: TreeNode | undefined): string | undefined {
    return node === undefined ? undefined : this.files.get(node)?.toString();
  }
}

async function readBytes(
  t: TestContext,
  bytes: Uint8Array,
  version: 5 | 6 = 6,
): Promise<{ root: TreeNode; sink: MemorySink }> {
  const path = join(tempDir(t), 'a.tar');
  writeFileSync(path, bytes);
  const sink = new MemorySink();
  const { root } = await readTarTree(path, { version, chunkSize: 0x10000, layer: 0 }, sink, context);
  return { root, sink };
}

const read = (t: TestContext, members: SampleMember[], version: 5 | 6 = 6): ReturnType<typeof readBytes> =>
  readBytes(t, sampleTar(members), version);

function at(root: TreeNode, path: string): TreeNode {
  const node = nodeAt(root, Buffer.from(path, 'latin1'));
  assert.ok(node !== undefined, path);
  return node;
}

function paths(root: TreeNode): string[] {
  const names = new Map<TreeNode, string>();
  walkNumbering(root, (node, parent) =>
    names.set(node, node === root ? '' : `${names.get(parent)}/${node.name.toString('latin1')}`),
  );
  return [...names.values()].slice(1);
}

const directory = TarType.directory;
const hardlink = TarType.hardlink;

test('readTarTree: names become absolute, missing parents are made', async (t) => {
  const { root } = await read(t, [
    { name: 'p//q/./r/file', mode: 0o4711 },
    { name: '/abs' },
    { name: './rel' },
  ]);
  assert.deepEqual(paths(root), ['/abs', '/p', '/rel', '/p/q', '/p/q/r', '/p/q/r/file']);
  const made = at(root, '/p/q');
  assert.deepEqual([made.mode, made.uid, made.gid, made.mtime, made.rdev], [0o040755, 0, 0, 0, 0xffffffff]);
  assert.equal(at(root, '/p/q/r/file').mode, 0o104711);
});

test('readTarTree: a directory member after its children keeps them', async (t) => {
  const { root } = await read(t, [
    { name: 'd/x' },
    { name: 'd/', type: directory, mode: 0o700, uid: 5, mtime: 9 },
  ]);
  const { mode, uid, mtime, children } = at(root, '/d');
  assert.deepEqual([mode, uid, mtime, children?.length], [0o040700, 5, 9, 1]);
});

test('readTarTree: the root takes attributes, time and xattrs from its member', async (t) => {
  const { root } = await read(t, [
    { name: './', type: directory, mode: 0o711, uid: 1, mtime: 5, pax: [['SCHILY.xattr.user.r', '1']] },
  ]);
  assert.deepEqual(
    [root.mode, root.uid, root.mtime, root.xattrs?.get('user.r')?.toString()],
    [0o040711, 1, 5, '1'],
  );
});

test('readTarTree: later members replace earlier ones, their data is stored all the same', async (t) => {
  const { root, sink } = await read(t, [
    { name: 'a', data: Buffer.from('first') },
    { name: 'a', data: Buffer.from('second') },
    { name: 'd/x', data: Buffer.from('below') },
    { name: 'd', data: Buffer.from('file') },
    { name: 'f', data: Buffer.from('file') },
    { name: 'f/', type: directory },
  ]);
  assert.deepEqual([...sink.files.values()].map(String), ['first', 'second', 'below', 'file', 'file']);
  assert.equal(sink.text(at(root, '/a')), 'second');
  assert.equal(at(root, '/d').children, undefined);
  assert.deepEqual(at(root, '/f').children, []);
});

test('readTarTree: a directory that was replaced takes no more members', async (t) => {
  const file = Buffer.from('file');
  const { root } = await read(t, [
    { name: 'd/e/first', data: file },
    { name: 'd/e/second', data: file },
    { name: 'd/e/', type: directory },
    { name: 'd/e/third', data: file },
    { name: 'd/e/..fourth', data: file },
    { name: 'd', data: file },
    { name: 'd/e/lost', data: file },
    { name: 'd/e/lost too', data: file },
    { name: 'd/', type: directory },
    { name: 'd/e/kept', data: file },
    { name: 'd/ee', data: file },
    { name: 'd/e', data: file },
  ]);
  assert.deepEqual(paths(root), ['/d', '/d/e', '/d/ee']);
  const { root: other } = await read(t, [
    { name: 'd/e/first', data: file },
    { name: 'd/e/', type: directory },
    { name: 'd/e/second', data: file },
    { name: 'd/e/..third', data: file },
    { name: 'd/e/./fourth', data: file },
    { name: 'd//e/fifth', data: file },
    { name: 'd/f/', type: directory },
    { name: 'd/f/.', type: directory },
    { name: 'd/f/in-f', data: file },
    { name: 'd/in-d', data: file },
  ]);
  const below = ['..third', 'fifth', 'first', 'fourth', 'second'].map((name) => `/d/e/${name}`);
  const above = ['/d', '/d/e', '/d/f', '/d/in-d'];
  assert.deepEqual(paths(other), [...above, ...below, '/d/f/in-f']);
});

test('readTarTree: hard links share identity, data and xattrs, and keep owner, mode and time of their own', async (t) => {
  const { root, sink } = await read(t, [
    { name: 'a', data: Buffer.from('data'), pax: [['SCHILY.xattr.user.k', 'v']] },
    {
      name: 'b',
      type: hardlink,
      link: './a',
      mode: 0,
      mtime: 3,
      uid: 9,
      pax: [['SCHILY.xattr.user.own', 'x']],
    },
    { name: 'd/c', type: hardlink, link: '/b' },
    { name: 'a', data: Buffer.from('newer') },
  ]);
  const [a, b, c] = [at(root, '/a'), at(root, '/b'), at(root, '/d/c')];
  assert.deepEqual([b.mode, b.mtime, b.uid, b.size, b.hardlinkFlag], [0o100000, 3, 9, 4, true]);
  assert.deepEqual([...(c.xattrs ?? [])], [['user.k', Buffer.from('v')]]);
  assert.equal(b.chunks, c.chunks);
  assert.equal(b.sourceIno, c.sourceIno);
  assert.notEqual(a.sourceIno, b.sourceIno);
  assert.deepEqual([a.hardlinkFlag, sink.text(a)], [undefined, 'newer']);
});

test('readTarTree: devices, fifos and symlinks', async (t) => {
  const { root } = await read(t, [
    { name: 'c', type: TarType.char, devMajor: '0000001', devMinor: '0000003' },
    { name: 'p', type: TarType.fifo },
    { name: 's', type: TarType.symlink, link: 'x', pax: [['linkpath', `../${'t'.repeat(300)}`]] },
  ]);
  assert.deepEqual(
    [at(root, '/c').mode, at(root, '/c').rdev, at(root, '/p').mode, at(root, '/p').rdev],
    [0o020644, 0x103, 0o010644, 0],
  );
  assert.deepEqual([at(root, '/s').size, at(root, '/s').target?.length], [303, 303]);
});

test('readTarTree: files of eStargz at the root are left out', async (t) => {
  const { root, sink } = await read(t, [
    { name: 'stargz.index.json', data: Buffer.from('{}') },
    { name: '.no.prefetch.landmark', data: Buffer.from('x') },
    { name: 'd/stargz.index.json', data: Buffer.from('[]') },
  ]);
  assert.deepEqual(paths(root), ['/d', '/d/stargz.index.json']);
  assert.deepEqual([...sink.files.values()].map(String), ['[]']);
});

test('readTarTree: what upstream refuses and GNU tar writes is read', async (t) => {
  const dir = tempDir(t);
  execFileSync(
    'sh',
    ['-c', 'mkdir x && cd x && mkfifo p && echo hi >f && ln f g && mkdir $(printf "l%.0s" $(seq 200))'],
    { cwd: dir },
  );
  const { root, sink } = await readBytes(
    t,
    execFileSync('tar', ['--format=gnu', '-c', '.'], { cwd: join(dir, 'x') }),
  );
  assert.deepEqual(paths(root), ['/f', '/g', `/${'l'.repeat(200)}`, '/p']);
  assert.deepEqual([...sink.files.values()].map(String), ['hi\n']);
  assert.equal(at(root, '/f').sourceIno, at(root, '/g').sourceIno);
});

const refused: [string, SampleMember[], RegExp, (5 | 6)?][] = [
  ['`..` in a name', [{ name: 'a/../b' }], /holds "\.\."/],
  ['`..` in a link target', [{ name: 'a' }, { name: 'b', type: hardlink, link: '../a' }], /holds "\.\."/],
  ['a link to nothing', [{ name: 'l', type: hardlink, link: 'no' }], /unknown target \/no for hardlink \/l/],
  [
    'a link to a directory',
    [
      { name: 'd/', type: directory },
      { name: 'l', type: hardlink, link: 'd' },
    ],
    /\/d for hardlink \/l is not a regular/,
  ],
  ['a file as the root', [{ name: '.', data: Buffer.from('x') }], /root of the archive is no directory/],
  [
    'an xattr no image holds',
    [{ name: 'f', pax: [['SCHILY.xattr.system.nfs4_acl', '1']] }],
    /invalid xattr key/,
  ],
  ['a device without a number', [{ name: 'c', type: TarType.char }], /has no device number/],
  [
    'a device number beyond Linux',
    [{ name: 'c', type: TarType.char, devMajor: '0010000', devMinor: '0' }],
    /4096:0 is no Linux device/,
  ],
  ['an unknown type', [{ name: 'z', type: 0x5a }], /unsupported tar entry type "Z"/],
  ['a name of 257 bytes', [{ name: 'x', pax: [['path', 'n'.repeat(257)]] }], /name of 257 bytes, limit 256/],
  ['a NUL in a pax path', [{ name: 'x', pax: [['path', 'a\0b']] }], /holds a NUL/],
  ['a symlink to nothing', [{ name: 's', type: TarType.symlink }], /symlink target of 0 bytes/],
  ['a depth beyond the limit', [{ name: 'x', pax: [['path', 'd/'.repeat(4096)]] }], /path of 4096 names/],
  [
    'a member below a file, for v5',
    [{ name: 'f' }, { name: 'f/x' }],
    /below something that is no directory/,
    5,
  ],
];
for (const [name, members, pattern, version] of refused) {
  test(`readTarTree: refuses ${name}`, async (t) => {
    await assert.rejects(
      read(t, members, version ?? 6),
      (error) => error instanceof NydusError && pattern.test(error.message),
    );
  });
}

const tar = sampleTar([{ name: 'a', data: Buffer.alloc(3_000_000, 'abc') }, { name: 'b' }]);
const forms: [string, Uint8Array][] = [
  ['plain', tar],
  ['gzip', gzipSync(tar)],
  ['gzip of several members', Buffer.concat([gzipSync(tar.subarray(0, 1000)), gzipSync(tar.subarray(1000))])],
  ['zstd', zstdCompressSync(tar)],
];
for (const [name, bytes] of forms) {
  test(`readTarTree: ${name}, from a file and through a FIFO`, async (t) => {
    const fifo = join(tempDir(t), 'fifo');
    execFileSync('mkfifo', [fifo]);
    createWriteStream(fifo).end(bytes);
    for (const source of [fifo, undefined]) {
      const sink = new MemorySink();
      const result =
        source === undefined
          ? await readBytes(t, bytes)
          : {
              sink,
              root: (await readTarTree(source, { version: 6, chunkSize: 0x10000, layer: 0 }, sink, context))
                .root,
            };
      assert.deepEqual(paths(result.root), ['/a', '/b']);
      assert.equal(result.sink.text(at(result.root, '/a')), Buffer.alloc(3_000_000, 'abc').toString());
    }
  });
}

test('readTarTree: damaged compression and a failing sink end in an error', async (t) => {
  const gzip = gzipSync(tar);
  await assert.rejects(readBytes(t, gzip.subarray(0, gzip.length - 20)), NydusError);
  await assert.rejects(
    readBytes(t, Buffer.concat([gzip.subarray(0, 100), Buffer.alloc(5000, 0xff)])),
    NydusError,
  );
  const fifo = join(tempDir(t), 'fifo');
  execFileSync('mkfifo', [fifo]);
  // The writer stays open: the reader must not wait for bytes that never come.
  const writer = createWriteStream(fifo);
  writer.on('error', () => {});
  writer.write(gzip.subarray(0, gzip.length - 20));
  const sink = new MemorySink();
  sink.write = () => Promise.reject(new NydusError('ERR_NYDUS_BACKEND', 'ENOSPC', 'full'));
  await assert.rejects(readTarTree(fifo, { version: 6, chunkSize: 0x10000, layer: 0 }, sink, context), {
    message: 'full',
  });
  writer.destroy();
});

test('readTarTree: a directory and a missing file are refused in upstream words', async (t) => {
  const dir = tempDir(t);
  const go = (path: string): Promise<unknown> =>
    readTarTree(path, { version: 6, chunkSize: 0x10000, layer: 0 }, new MemorySink(), context);
  await assert.rejects(go(dir), {
    message: `specified path must be a regular/fifo/char_device file: "${dir}"`,
    exitCode: 1,
  });
  await assert.rejects(go(`${dir}/no`), { message: /^failed to access path ".*\/no"/, exitCode: 1 });
});

/** Small seeded generator: a failure names its seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return state / 4294967296;
  };
}

test('readTarTree: mutated archives give a tree or one of our errors', async (t) => {
  const path = join(tempDir(t), 'mutant.tar');
  const samples = [
    sampleTar([
      { name: 'd/', type: directory },
      {
        name: 'd/f',
        data: Buffer.alloc(700, 1),
        pax: [
          ['SCHILY.xattr.user.k', 'v'],
          ['path', `d/${'n'.repeat(150)}`],
        ],
      },
      { name: 'l', type: hardlink, pax: [['linkpath', `d/${'n'.repeat(150)}`]] },
      { name: 's', type: TarType.symlink, link: 'd' },
      { name: 'c', type: TarType.char, devMajor: '0000001', devMinor: '0000003' },
    ]),
    execFileSync('tar', ['--format=gnu', '-c', '-C', '/usr/include/linux/', '.'], {
      maxBuffer: 1 << 28,
    }).subarray(0, 1 << 16),
  ];
  const first = Number(process.env['NYDUS_FUZZ_SEED'] ?? 1);
  let accepted = 0;
  for (let seed = first; seed < first + 600; seed++) {
    const next = random(seed);
    const bytes = Buffer.from(samples[seed % samples.length] as Uint8Array);
    const at = (limit: number): number => Math.floor(next() * limit);
    for (let i = at(6); i >= 0; i--) {
      const block = at(bytes.length / 512) * 512;
      // Headers are short of checksums that fit: half of the mutations repair them, to get past that check.
      const place = block + [at(512), 124 + at(12), 156, 100 + at(24)][at(4)]!;
      if (place < bytes.length) bytes[place] = [at(256), 0x30 + at(10), 0x80, 0xff, 0x78, 0x4c][at(6)]!;
      if (next() < 0.7) fixChecksum(bytes, block);
    }
    const cut = next() < 0.2 ? at(bytes.length) : bytes.length;
    writeFileSync(path, bytes.subarray(0, cut));
    try {
      await readTarTree(
        path,
        { version: seed % 3 === 0 ? 5 : 6, chunkSize: 0x1000, layer: 0 },
        new MemorySink(),
        context,
      );
      accepted++;
    } catch (error) {
      assert.ok(error instanceof NydusError, `seed ${seed}: ${String(error)}`);
    }
  }
  assert.ok(accepted > 0 && accepted < 600, `${accepted} of 600 accepted`);
});

function fixChecksum(bytes: Buffer, block: number): void {
  const header = bytes.subarray(block, block + 512);
  if (header.length < 512) return;
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}
