import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { specVector5 } from '../testing/spec-vectors.ts';
import { EXAMPLE_OPTIONS, exampleBlob, exampleTree } from '../testing/worked-example.ts';
import { encodeBootstrap5 } from './writer.ts';

test('encodeBootstrap5: the worked example, every byte (rafs-metadata 8.3)', () => {
  const bytes = encodeBootstrap5(exampleTree(), [exampleBlob(5)], EXAMPLE_OPTIONS, []);
  assert.equal(bytes.length, 9248);
  assert.deepEqual(bytes, specVector5());
  assert.equal(
    createHash('sha256').update(bytes).digest('hex'),
    '80ada33b7111682a0de1c1710edf34c5522ab4c23aaead73dc0c1d1c898a1a37',
  );
});

test('encodeBootstrap5: a repeatable image has no ids and no flag for them', () => {
  const options = { ...EXAMPLE_OPTIONS, explicitUidGid: false };
  const bytes = encodeBootstrap5(exampleTree(), [exampleBlob(5)], options, []);
  assert.equal(bytes.readUInt32LE(0x10), 0x29);
  // uid and gid of /d/f
  assert.equal(bytes.readBigUInt64LE(0x21b0 + 0x30), 0n);
});

test('encodeBootstrap5: prefetch entries are inode numbers, the table is padded to 8 bytes', () => {
  const tree = exampleTree();
  const [, d, , , h] = tree.nodes;
  assert.ok(d !== undefined && h !== undefined);
  const bytes = encodeBootstrap5(tree, [exampleBlob(5)], EXAMPLE_OPTIONS, [d, h, d]);
  assert.equal(bytes.length, 9248 + 16);
  assert.deepEqual(
    [0, 4, 8, 12].map((at) => bytes.readUInt32LE(0x2018 + at)),
    [2, 4, 2, 0],
  );
});

test('encodeBootstrap5: a symlink target longer than the format holds is refused before anything is written', () => {
  const tree = exampleTree();
  const link = tree.nodes[2];
  assert.ok(link !== undefined);
  link.target = Buffer.alloc(70_000, 0x61);
  assert.throws(() => encodeBootstrap5(tree, [exampleBlob(5)], EXAMPLE_OPTIONS, []), /target of 70000 bytes/);
});
