import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleNode, sampleTree } from '../tree/tree-samples.ts';
import type { TreeChunk } from '../tree/node.ts';
import { S_IFREG } from '../format/flags.ts';
import { numberTree } from './numbering.ts';

const CHUNK: TreeChunk = {
  digest: Buffer.alloc(32, 1),
  blobIndex: 0,
  flags: 0,
  compressedSize: 1,
  uncompressedSize: 1,
  compressedOffset: 0,
  uncompressedOffset: 0,
  fileOffset: 0,
  index: 0,
  crc32: 1,
};

/** A tree whose files all are files of their own. */
function distinct(tree: ReturnType<typeof sampleTree>): typeof tree {
  let next = 1;
  const visit = (node: typeof tree): void => {
    node.sourceIno = next++;
    for (const child of node.children ?? []) visit(child);
  };
  visit(tree);
  return tree;
}

test('numberTree: children first, then each child directory (rafs-metadata 2.1)', () => {
  const tree = distinct(sampleTree({ a: { x: '1', y: { z: '2' } }, b: '3', c: { w: '4' } }));
  const { nodes, parents, childIndexes, inodes } = numberTree(tree);
  assert.deepEqual(
    nodes.map((node) => node.name.toString()),
    ['', 'a', 'b', 'c', 'x', 'y', 'z', 'w'],
  );
  assert.deepEqual(
    nodes.map((node) => node.index),
    [1, 2, 3, 4, 5, 6, 7, 8],
  );
  assert.deepEqual([...parents], [0, 0, 1, 1, 1, 2, 2, 6, 4]);
  assert.deepEqual(
    nodes.filter((node) => node.children !== undefined).map((node) => childIndexes[node.index]),
    [2, 5, 8, 7],
  );
  assert.equal(inodes, 8);
});

test('numberTree: an empty directory gets the index that would have come next', () => {
  const { nodes, childIndexes } = numberTree(distinct(sampleTree({ a: {}, b: { f: '1' }, c: {} })));
  assert.deepEqual(
    nodes.map((node) => [node.name.toString(), childIndexes[node.index]]),
    [
      ['', 2],
      ['a', 5],
      ['b', 5],
      ['c', 6],
      ['f', 0],
    ],
  );
});

test('numberTree: link counts are those of the tree, not of the host', () => {
  const tree = distinct(sampleTree({ a: { b: {}, c: {}, f: '1' }, g: '2' }));
  for (const child of tree.children ?? []) child.nlink = 77;
  const { nodes } = numberTree(tree);
  assert.deepEqual(
    nodes.map((node) => [node.name.toString(), node.nlink]),
    [
      ['', 3],
      ['a', 4],
      ['g', 1],
      ['b', 2],
      ['c', 2],
      ['f', 1],
    ],
  );
});

test('numberTree: links of one file share number, count and chunks, whichever of them was given the data', () => {
  const link = (name: string, layer: number): ReturnType<typeof sampleNode> =>
    sampleNode(name, S_IFREG | 0o644, { sourceIno: 9, layer, size: 1 });
  const [first, second, other] = [link('a', 1), link('b', 1), link('c', 0)];
  second.chunks = [CHUNK];
  const tree = sampleTree({});
  tree.children = [first, second, other];
  const { inodes } = numberTree(tree);
  assert.deepEqual(
    [first, second, other].map((node) => [node.index, node.ino, node.nlink]),
    [
      [2, 2, 2],
      [3, 2, 2],
      [4, 4, 1],
    ],
  );
  assert.equal(first.chunks, second.chunks);
  assert.deepEqual(first.chunks, [CHUNK]);
  assert.deepEqual(other.chunks, []);
  assert.equal(inodes, 3);
});
