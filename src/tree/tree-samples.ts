// Small trees for tests, written as nested objects. Not used by the programs.
import { S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG } from '../format/flags.ts';
import { compareByName } from './children.ts';
import { newNode, type TreeNode } from './node.ts';

/** A directory as an object, a file as its text, anything else as a node. */
export type Sample = string | { [name: string]: Sample } | TreeNode;

function isNode(sample: object): sample is TreeNode {
  return 'chunks' in sample;
}

/** A node with everything but name and mode at its default. */
export function sampleNode(name: string, mode: number, more: Partial<TreeNode> = {}): TreeNode {
  return { ...newNode(Buffer.from(name), mode, 0), ...more };
}

/** A char device 0:0: what overlayfs writes for a removed name. */
export function sampleRemoval(name: string): TreeNode {
  return sampleNode(name, S_IFCHR | 0o600);
}

export function sampleSymlink(name: string, target: string): TreeNode {
  return sampleNode(name, S_IFLNK | 0o777, { target: Buffer.from(target), size: target.length });
}

/** The tree of a sample. Files keep their text as `target`, for comparison. */
export function sampleTree(sample: Sample, name = ''): TreeNode {
  if (typeof sample === 'string')
    return sampleNode(name, S_IFREG | 0o644, { size: sample.length, target: Buffer.from(sample) });
  if (isNode(sample)) return { ...sample, name: Buffer.from(name) };
  const children = Object.entries(sample).map(([key, child]) => sampleTree(child, key));
  return sampleNode(name, S_IFDIR | 0o755, { children: children.toSorted(compareByName) });
}

/** The sample of a tree: the inverse, with other nodes as their octal mode. */
export function sampleOf(node: TreeNode): unknown {
  if (node.children !== undefined)
    return Object.fromEntries(node.children.map((child) => [child.name.toString(), sampleOf(child)]));
  return node.target?.toString() ?? node.mode.toString(8);
}
