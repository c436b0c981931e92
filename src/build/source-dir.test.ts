import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { requireRoot, tempDir } from '../../test/support/golden.ts';
import { makeSocket, setTimes } from '../../test/support/file-attributes.ts';
import { UsageError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { setXattr } from '../native/xattr.ts';
import { childOf } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';
import type { BuildContext, WhiteoutSpec } from './options.ts';
import { scanDirectory, type ScanOptions } from './source-dir.ts';

const context: BuildContext = {
  logger: silentLogger,
  signal: new AbortController().signal,
  progress: () => {},
};
const plain: ScanOptions = { version: 6, whiteoutSpec: 'oci', layered: false, layer: 0 };

function scan(dir: string, options: Partial<ScanOptions> = {}): TreeNode {
  return scanDirectory(dir, { ...plain, ...options }, context).root;
}

function names(node: TreeNode | undefined): string[] {
  return (node?.children ?? []).map(({ name }) => name.toString('latin1'));
}

function child(node: TreeNode, name: string): TreeNode {
  const found = childOf(node, Buffer.from(name, 'latin1'));
  assert.ok(found !== undefined, name);
  return found;
}

test('scanDirectory: names are raw bytes, sorted, and the root has no time', (t) => {
  const dir = tempDir(t);
  for (const name of [
    Buffer.from('b'),
    Buffer.from('a b'),
    Buffer.of(0xff, 0xfe),
    Buffer.from('\n'),
    Buffer.from('é'),
  ]) {
    writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), name]), 'x');
  }
  const root = scan(dir);
  assert.deepEqual(names(root), ['\n', 'a b', 'b', 'Ã©', 'ÿþ']);
  assert.deepEqual([root.name.length, root.mtime, root.mtimeNsec, root.sourcePath], [0, 0, 0, undefined]);
  assert.deepEqual(
    child(root, 'ÿþ').sourcePath,
    Buffer.concat([Buffer.from(`${dir}/`), Buffer.of(0xff, 0xfe)]),
  );
});

test('scanDirectory: times to the nanosecond, before 1970 and after 2106', (t) => {
  const dir = tempDir(t);
  const times: [string, number, number][] = [
    ['old', -86_400, 1],
    ['new', 4_300_000_000, 999_999_999],
    ['now', 1_700_000_000, 123_456_789],
  ];
  for (const [name, seconds, nanoseconds] of times) {
    writeFileSync(join(dir, name), '');
    setTimes(Buffer.from(join(dir, name)), seconds, nanoseconds);
  }
  const root = scan(dir);
  for (const [name, seconds, nanoseconds] of times) {
    const { mtime, mtimeNsec } = child(root, name);
    assert.deepEqual([mtime, mtimeNsec], [seconds, nanoseconds], name);
  }
});

test('scanDirectory: hard links share an identity, other files do not', (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'd'));
  writeFileSync(join(dir, 'a'), 'one');
  linkSync(join(dir, 'a'), join(dir, 'd/b'));
  writeFileSync(join(dir, 'c'), 'two');
  const result = scanDirectory(dir, plain, context);
  const [a, c, d] = result.root.children as [TreeNode, TreeNode, TreeNode];
  assert.equal(a.sourceIno, child(d, 'b').sourceIno);
  assert.notEqual(a.sourceIno, c.sourceIno);
  assert.deepEqual([result.entries, result.dataBytes], [5, 6]);
});

test('scanDirectory: symlinks, sockets and sparse files', (t) => {
  const dir = tempDir(t);
  symlinkSync('../nowhere', join(dir, 'link'));
  makeSocket(Buffer.from(join(dir, 'sock')));
  writeFileSync(join(dir, 'sparse'), '');
  truncateSync(join(dir, 'sparse'), 5 * 2 ** 30);
  const root = scan(dir);
  const link = child(root, 'link');
  assert.deepEqual([link.mode & 0o170000, link.target?.toString(), link.size], [0o120000, '../nowhere', 10]);
  assert.deepEqual([child(root, 'sock').mode & 0o170000, child(root, 'sock').size], [0o140000, 0]);
  assert.equal(child(root, 'sparse').size, 5 * 2 ** 30);
});

test('scanDirectory: v5 directory sizes count the names kept', (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'wide'));
  for (let i = 0; i < 130; i++) writeFileSync(join(dir, 'wide', `${i}`.padStart(24, 'n')), '');
  const root = scan(dir, { version: 5 });
  assert.deepEqual([root.dirSize5, child(root, 'wide').dirSize5, child(root, 'wide').size], [4096, 8192, 0]);
});

const markers: [WhiteoutSpec, boolean, string[]][] = [
  ['oci', false, ['d']],
  ['none', false, ['.wh.gone', 'd']],
  ['oci', true, ['.wh.gone', 'd']],
  ['overlayfs', false, ['.wh.gone', 'd']],
];
for (const [whiteoutSpec, layered, expected] of markers) {
  test(`scanDirectory: markers with ${whiteoutSpec}, ${layered ? 'over a parent' : 'alone'}`, (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'd'));
    writeFileSync(join(dir, '.wh.gone'), '');
    writeFileSync(join(dir, 'd/.wh..wh..opq'), '');
    const root = scan(dir, { whiteoutSpec, layered });
    assert.deepEqual(names(root), expected);
    assert.equal(names(child(root, 'd')).length, expected.length - 1);
  });
}

test(
  'scanDirectory: overlayfs removals are dropped, opaque directories stay with their mark',
  { skip: requireRoot() },
  (t) => {
    const dir = tempDir(t);
    mkdirSync(join(dir, 'd'));
    setXattr(Buffer.from(join(dir, 'd')), Buffer.from('trusted.overlay.opaque'), Buffer.from('y'));
    execFileSync('mknod', [join(dir, 'gone'), 'c', '0', '0']);
    execFileSync('mknod', [join(dir, 'null'), 'c', '1', '3']);
    execFileSync('mknod', [join(dir, 'disk'), 'b', '259', '70000']);
    const root = scan(dir, { whiteoutSpec: 'overlayfs' });
    assert.deepEqual(names(root), ['d', 'disk', 'null']);
    assert.equal(child(root, 'd').xattrs?.get('trusted.overlay.opaque')?.toString(), 'y');
    // 70000 = 0x11170: minor bits 8 to 19 go above the major number
    assert.deepEqual([child(root, 'disk').rdev, child(root, 'null').rdev], [0x11110370, 0x103]);
  },
);

test('scanDirectory: owners up to 2^32 - 1, set-id bits and capabilities', { skip: requireRoot() }, (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'f'), '');
  execFileSync('chown', ['4294967294:4294967294', join(dir, 'f')]);
  execFileSync('chmod', ['7711', join(dir, 'f')]);
  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
  setXattr(Buffer.from(join(dir, 'f')), Buffer.from('security.capability'), capability);
  const file = child(scan(dir), 'f');
  assert.deepEqual([file.uid, file.gid, file.mode], [4294967294, 4294967294, 0o107711]);
  assert.deepEqual(file.xattrs?.get('security.capability'), capability);
});

test('scanDirectory: xattrs come sorted', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'f'), '');
  for (const name of ['user.z', 'user.a', 'user.m'])
    setXattr(Buffer.from(join(dir, 'f')), Buffer.from(name), Buffer.from(name));
  assert.deepEqual([...(child(scan(dir), 'f').xattrs?.keys() ?? [])], ['user.a', 'user.m', 'user.z']);
});

test('scanDirectory: deep trees need no stack', (t) => {
  const dir = tempDir(t);
  const depth = Math.floor((4000 - dir.length) / 2);
  execFileSync('sh', [
    '-c',
    `cd "$1" && i=0; while [ $i -lt ${depth} ]; do mkdir d && cd d; i=$((i+1)); done`,
    'sh',
    dir,
  ]);
  assert.equal(scanDirectory(dir, plain, context).entries, depth + 1);
  execFileSync('sh', [
    '-c',
    `cd "$1"; while [ -d d ]; do mv d/d e 2>/dev/null; rmdir d; [ -d e ] && mv e d; done; true`,
    'sh',
    dir,
  ]);
});

test('scanDirectory: a symlink to a directory is followed, anything else refused', (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'd'));
  writeFileSync(join(dir, 'd/f'), '');
  symlinkSync('d', join(dir, 'link'));
  assert.deepEqual(names(scan(join(dir, 'link'))), ['f']);
  const refused = {
    name: 'UsageError',
    message: `specified path must be a directory: "${join(dir, 'd/f')}"`,
  };
  assert.throws(() => scan(join(dir, 'd/f')), refused);
});

test('scanDirectory: an abort ends the scan', (t) => {
  const dir = tempDir(t);
  const controller = new AbortController();
  controller.abort(new UsageError('enough'));
  assert.throws(() => scanDirectory(dir, plain, { ...context, signal: controller.signal }), {
    message: 'enough',
  });
});
