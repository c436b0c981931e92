// Sorted children of a directory: order, search, insertion, walks. Source: rafs-metadata.md 2.1.
import { FormatError } from '../base/errors.ts';
import { MAX_TREE_DEPTH } from '../base/limits.ts';
import { S_IFDIR, S_IFMT } from '../format/flags.ts';
import type { TreeNode } from './node.ts';

/** Order of two nodes of one directory: unsigned bytes of their names. */
export function compareByName(a: TreeNode, b: TreeNode): number {
  return a.name.compare(b.name);
}

/** True for a directory. */
export function isDirectory(node: TreeNode): boolean {
  return (node.mode & S_IFMT) === S_IFDIR;
}

/**
 * Place of a name among sorted children.
 *
 * @returns its index, or -1 - i when it is absent and belongs at index i
 */
export function searchChild(children: readonly TreeNode[], name: Uint8Array): number {
  let low = 0;
  let high = children.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const order = (children[middle] as TreeNode).name.compare(name);
    if (order === 0) return middle;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return -1 - low;
}

/** The child of that name, or undefined. */
export function childOf(dir: TreeNode, name: Uint8Array): TreeNode | undefined {
  if (dir.children === undefined) return undefined;
  const at = searchChild(dir.children, name);
  return at < 0 ? undefined : dir.children[at];
}

/** The node at an absolute path of raw bytes, or undefined; `/` is the root itself. */
export function nodeAt(root: TreeNode, path: Buffer): TreeNode | undefined {
  let node: TreeNode | undefined = root;
  for (let at = 0; at < path.length && node !== undefined;) {
    const slash = path.indexOf(0x2f, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) node = childOf(node, path.subarray(at, end));
    at = end + 1;
  }
  return node;
}

/**
 * Visit all nodes in W-order: all children of a directory, then each child directory in turn (rafs-metadata 2.1).
 * No recursion: depth costs no stack.
 *
 * @throws FormatError the tree is nested deeper than MAX_TREE_DEPTH
 */
export function walkNumbering(root: TreeNode, visit: (node: TreeNode, parent: TreeNode) => void): void {
  visit(root, root);
  const stack: { dir: TreeNode; next: number }[] = [];
  const enter = (dir: TreeNode): void => {
    if (stack.length >= MAX_TREE_DEPTH) {
      throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
    }
    for (const child of dir.children ?? []) visit(child, dir);
    stack.push({ dir, next: 0 });
  };
  enter(root);
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const child = top.dir.children?.[top.next++];
    if (child === undefined) stack.pop();
    else if (child.children !== undefined) enter(child);
  }
}

/** v5 size of a directory: 8 bytes and the name for each child, in whole 4096-byte blocks (rafs-metadata 5.6). */
export function directorySize5(children: readonly TreeNode[]): number {
  let sum = 0;
  for (const child of children) sum += child.name.length + 8;
  return Math.max(4096, Math.ceil(sum / 4096) * 4096);
}
