import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../base/errors.ts';
import { childOf, directorySize5, nodeAt, searchChild, walkNumbering } from './children.ts';
import type { TreeNode } from './node.ts';
import { sampleNode, sampleTree } from './tree-samples.ts';

test('searchChild: finds names by bytes, and the place of absent ones', () => {
  const { children } = sampleTree({ a: '', ab: '', b: '', é: '' });
  const places = ['a', 'ab', 'b', 'é', '', 'aa', 'c', '\u{1f600}'].map((name) =>
    searchChild(children ?? [], Buffer.from(name)),
  );
  assert.deepEqual(places, [0, 1, 2, 3, -1, -2, -4, -5]);
});

test('nodeAt: follows absolute paths, the root included', () => {
  const root = sampleTree({ a: { b: 'x' }, f: 'y' });
  assert.equal(nodeAt(root, Buffer.from('/')), root);
  assert.equal(nodeAt(root, Buffer.from('/a/b'))?.target?.toString(), 'x');
  assert.equal(nodeAt(root, Buffer.from('/a/b/c')), undefined);
  assert.equal(nodeAt(root, Buffer.from('/nothing')), undefined);
  assert.equal(childOf(root.children?.[1] as TreeNode, Buffer.from('x')), undefined);
});

test('walkNumbering: all children of a directory, then each child directory', () => {
  const seen: string[] = [];
  walkNumbering(sampleTree({ a: { x: { deep: '' }, y: '' }, b: '', c: { z: '' } }), (node, parent) => {
    seen.push(`${parent.name.toString()}/${node.name.toString()}`);
  });
  assert.deepEqual(seen, ['/', '/a', '/b', '/c', 'a/x', 'a/y', 'x/deep', 'c/z']);
});

test('walkNumbering: depth costs no stack and has a limit', () => {
  const nested = (depth: number): TreeNode => {
    let node = sampleNode('d', 0o040755, { children: [] });
    for (let i = 1; i < depth; i++) node = sampleNode('d', 0o040755, { children: [node] });
    return node;
  };
  let count = 0;
  walkNumbering(nested(4096), () => count++);
  assert.equal(count, 4096);
  assert.throws(() => walkNumbering(nested(4097), () => {}), FormatError);
});

test('directorySize5: 8 bytes and the name a child, in blocks, at least one', () => {
  const children = (count: number, length: number): TreeNode[] =>
    Array.from({ length: count }, () => sampleNode('n'.repeat(length), 0o100644));
  assert.deepEqual(
    [
      directorySize5([]),
      directorySize5(children(128, 24)),
      directorySize5(children(129, 24)),
      directorySize5(children(1000, 255)),
    ],
    [4096, 4096, 8192, 266240],
  );
});
