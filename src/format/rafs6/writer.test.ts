import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { specVector6 } from '../testing/spec-vectors.ts';
import { EXAMPLE_OPTIONS, exampleBlob, exampleTree } from '../testing/worked-example.ts';
import { encodeBootstrap6 } from './writer.ts';

test('encodeBootstrap6: the worked example, every byte (rafs-metadata 8.4)', () => {
  const bytes = encodeBootstrap6(exampleTree(), [exampleBlob(6)], EXAMPLE_OPTIONS, []);
  assert.equal(bytes.length, 20480);
  assert.deepEqual(bytes, specVector6());
  assert.equal(
    createHash('sha256').update(bytes).digest('hex'),
    '1c5a6efde89fad2df2023cbabd07a3a0c6bf4f50c18d44ffe60375b9b8d2e48c',
  );
});

test('encodeBootstrap6: prefetch entries are nids behind the blob table', () => {
  const tree = exampleTree();
  const [, d, , , h] = tree.nodes;
  assert.ok(d !== undefined && h !== undefined);
  const bytes = encodeBootstrap6(tree, [exampleBlob(6)], EXAMPLE_OPTIONS, [h, d]);
  assert.deepEqual([bytes.readUInt32LE(0x1100), bytes.readUInt32LE(0x1104)], [139, 135]);
});

test('encodeBootstrap6: an image without blobs has its metadata area at 0 and no prefetch table', () => {
  const tree = exampleTree();
  for (const node of tree.nodes) {
    node.chunks = [];
    if (node.children === undefined && node.target === undefined) node.size = 0;
  }
  const bytes = encodeBootstrap6(tree, [], EXAMPLE_OPTIONS, [...tree.nodes]);
  // meta_blkaddr of the EROFS superblock: root at nid 128 is at byte 4096
  assert.equal(bytes.readUInt32LE(0x400 + 40), 0);
  assert.equal(bytes.readUInt16LE(4096 + 4), 0o40755);
  assert.equal(bytes.length, 8192);
});

test('encodeBootstrap6: more blobs than devices is refused', () => {
  const blobs = Array.from({ length: 255 }, () => exampleBlob(6));
  assert.throws(
    () => encodeBootstrap6(exampleTree(), blobs, EXAMPLE_OPTIONS, []),
    /255 blobs, a v6 image holds 254/,
  );
});
