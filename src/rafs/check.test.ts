import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openImage } from '../format/detect.ts';
import { encodeBootstrap6 } from '../format/rafs6/writer.ts';
import { plainNode, type WriterNode } from '../format/writer-input.ts';
import { specVector5, specVector6 } from '../format/testing/spec-vectors.ts';
import { checkImage, requireValid } from './check.ts';
import { dumpBootstrap } from './dump.ts';

function patched(bytes: Buffer, patches: [number, string][]): Buffer {
  for (const [offset, hex] of patches) Buffer.from(hex, 'hex').copy(bytes, offset);
  return bytes;
}

test('checkImage: the vectors are clean', () => {
  const clean = { problems: [], truncated: false, entries: 5, inodes: 4, chunks: 1, xattrs: 1 };
  assert.deepEqual(checkImage(openImage(specVector5())), clean);
  assert.deepEqual(checkImage(openImage(specVector6())), clean);
});

test('checkImage: v5 problems, each with its place', () => {
  const rows: [[number, string][], string, RegExp][] = [
    [[[0x21b0, '00']], '/d/f', /^digest is 00/],
    [[[0x2250, '00']], '/d/f', /^digest is/],
    [[[0x21b0 + 0x58, '03']], '/d/f', /^nlink is 3, it has 2 links$/],
    [[[0x2128 + 0x58, '07']], '/d', /^nlink is 7, it has 2 links$/],
    [[[0x2270, '02']], '/d/f chunk 0', /^its blob is 2, the blob table has 1 rows$/],
    [[[0x2280, 'ff']], '/d/f chunk 0', /^its stored bytes end at 261/],
    [[[0x227c, '07']], '/d/f chunk 0', /^it is not compressed/],
    [[[0x2390 + 0x40, '04']], '/s', /^size is 4, the target has 3 bytes$/],
    [[[0x18, '02']], 'superblock', /^inodesCount is 2, the tree has 4 inodes$/],
    [[[0x2128 + 0x60, '01']], 'entry 5', /^is in no directory$/],
    [[[0x2230, '78']], '/d', /is not above the one before/],
  ];
  for (const [patches, place, problem] of rows) {
    const { problems } = checkImage(openImage(patched(specVector5(), patches)));
    assert.ok(
      problems.some((p) => p.place === place && problem.test(p.problem)),
      `${place}: ${JSON.stringify(problems)}`,
    );
  }
});

test('checkImage: v6 problems, each with its place', () => {
  const rows: [[number, string][], string, RegExp][] = [
    [[[0x318c, '03']], '/d/f', /^nlink is 3, it has 2 links$/],
    [[[0x310c, '03']], '/d', /^nlink is 3, it has 2 links$/],
    [[[0x312c, '87']], '/d', /^\.\. points to 135, its parent is 128$/],
    [[[0x3142, '07']], '/d/f', /^the entry has file type 7, the inode 1$/],
    [[[0x4048, '01']], 'chunk table row 0', /^it is chunk 1 of blob 0/],
    [[[0x4038, '00100000']], '/d/f chunk 0', /^is at 0 of blob 0, its record says 4096$/],
    [[[0x410, '06']], 'superblock', /^inos is 6, the tree has 5 entries$/],
    [[[0x4a0, '00']], '/d/f chunk 0', /the image has no chunk table$/],
    [[[0x480, '19']], '/d/f', /^has xattrs, the superblock says there are none$/],
    [[[0x30c1, '00']], '/s', /^its target holds a NUL$/],
  ];
  for (const [patches, place, problem] of rows) {
    const { problems } = checkImage(openImage(patched(specVector6(), patches)));
    assert.ok(
      problems.some((p) => p.place === place && problem.test(p.problem)),
      `${place}: ${JSON.stringify(problems)}`,
    );
  }
});

test('checkImage: gives up at the limit and says so', () => {
  const bytes = patched(specVector5(), [
    [0x21b0, '00'],
    [0x22a0, '00'],
    [0x2390, '00'],
  ]);
  const report = checkImage(openImage(bytes), { limit: 2 });
  assert.equal(report.problems.length, 2);
  assert.equal(report.truncated, true);
});

test('requireValid: throws the first problem and counts the rest', () => {
  assert.equal(requireValid(openImage(specVector6())).entries, 5);
  const bytes = patched(specVector5(), [
    [0x21b0, '00'],
    [0x2390, '00'],
  ]);
  assert.throws(() => requireValid(openImage(bytes)), {
    code: 'ERR_NYDUS_FORMAT',
    message: /: digest is .* \(and \d+ other problems\)$/,
  });
});

test('dumpBootstrap: every byte once, fields by name', () => {
  const lines = [...dumpBootstrap(openImage(specVector5()))];
  assert.ok(lines.includes('00000000-00002000 superblock'));
  assert.ok(lines.includes('00002014-00002018 padding, 4 zero bytes'));
  assert.ok(lines.includes('000021b0-000022a0 inode record 4 "f"'));
  assert.ok(lines.some((line) => /^ {2}000021d8 ino +u64 +4$/.test(line)));
  for (const bytes of [specVector5(), specVector6()]) {
    let position = 0;
    for (const line of dumpBootstrap(openImage(bytes))) {
      const range = /^([0-9a-f]{8})-([0-9a-f]{8}) /.exec(line);
      if (range === null) continue;
      assert.equal(parseInt(range[1] ?? '', 16), position);
      position = parseInt(range[2] ?? '', 16);
    }
    assert.equal(position, bytes.length);
  }
});

test('dumpBootstrap: bytes that nothing points to are shown', () => {
  const bytes = patched(specVector6(), [[0x2100, 'abcd']]);
  const lines = [...dumpBootstrap(openImage(bytes))];
  assert.ok(lines.some((line) => line.includes('bytes that nothing points to')));
});

test('checkImage: an image that is nearly all directory entries is no overlap', () => {
  const node = (index: number, name: string, mode: number, nlink: number): WriterNode => ({
    ...plainNode(name, mode, index),
    mtime: 1,
    nlink,
  });
  // every directory has 14 long names of one file: 3.6 KiB of entries beside 64 bytes of inode
  const dirs = 60;
  const names = 14;
  const root = node(1, '/', 0o040755, 2 + dirs);
  root.children = Array.from({ length: dirs }, (_, d) => node(2 + d, `dir${100 + d}`, 0o040755, 2));
  const nodes = [root, ...root.children];
  const parents = [0, 0, ...root.children.map(() => 1)];
  for (const dir of root.children) {
    dir.children = Array.from({ length: names }, (_, i) => {
      const link = node(nodes.length + 1 + i, `${'n'.repeat(240)}${100 + i}`, 0o100644, dirs * names);
      link.ino = dirs + 2;
      return link;
    });
    for (const child of dir.children) {
      nodes.push(child);
      parents.push(dir.index);
    }
  }
  const childIndexes = Uint32Array.from([0, ...nodes.map((n) => n.children?.[0]?.index ?? 0)]);
  const tree = { nodes, parents: Uint32Array.from(parents), childIndexes, inodes: dirs + 2 };
  const options = {
    chunkSize: 0x10_0000,
    compressor: 'none',
    digester: 'sha256',
    explicitUidGid: true,
  } as const;
  const report = checkImage(openImage(encodeBootstrap6(tree, [], options, [])));
  assert.deepEqual(report.problems, []);
  assert.equal(report.entries, 1 + dirs + dirs * names);
  assert.equal(report.inodes, dirs + 2);
});
