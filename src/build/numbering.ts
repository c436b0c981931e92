// Numbers of a tree: index in W-order, inode number, link count, hard links by identity. Source: rafs-metadata.md 2.1, 5.1, 5.2.
import { UsageError } from '../base/errors.ts';
import { S_IFMT, S_IFREG } from '../format/flags.ts';
import type { WriterTree } from '../format/writer-input.ts';
import { walkNumbering } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';

/** Highest inode number the v6 writer hands out (rafs-metadata 5.1). */
export const MAX_INODES = 0x7fff_ffff;

export interface NumberedTree extends WriterTree {
  nodes: readonly TreeNode[];
}

/** Identity of the file behind an entry: the same for all hard links of a layer. */
function identityOf(node: TreeNode): string {
  return `${node.sourceIno}:${node.layer}:${node.sourceDev}`;
}

/**
 * Give every node its index, inode number and link count, and let all links of a file share one chunk list.
 *
 * @throws FormatError the tree is nested too deep
 * @throws UsageError  too many entries
 */
export function numberTree(root: TreeNode): NumberedTree {
  const nodes: TreeNode[] = [];
  const parentOf: number[] = [0];
  const firstLinks = new Map<string, TreeNode>();
  let shared = 0;
  walkNumbering(root, (node, parent) => {
    nodes.push(node);
    const index = nodes.length;
    node.index = index;
    node.ino = index;
    node.nlink = 1;
    parentOf.push(node === root ? 0 : parent.index);
    if ((node.mode & S_IFMT) === S_IFREG) {
      const key = identityOf(node);
      const first = firstLinks.get(key);
      if (first === undefined) {
        firstLinks.set(key, node);
        return;
      }
      node.ino = first.ino;
      first.nlink++;
      shared++;
      // whichever link was given the data has it for all
      if (first.chunks.length === 0 && node.chunks.length > 0) first.chunks = node.chunks;
    } else if (node.children !== undefined) {
      node.nlink = 2;
      if (node !== root) parent.nlink++;
    }
  });
  if (nodes.length > MAX_INODES)
    throw new UsageError(`tree has ${nodes.length} entries, limit ${MAX_INODES}`, { exitCode: 1 });
  for (const node of nodes) {
    const first = nodes[node.ino - 1] as TreeNode;
    node.nlink = first.nlink;
    node.chunks = first.chunks;
  }
  return {
    nodes,
    parents: Uint32Array.from(parentOf),
    childIndexes: childIndexesOf(nodes),
    inodes: nodes.length - shared,
  };
}

/** First child of each directory; an empty one has the index that the next entry was about to get. */
function childIndexesOf(nodes: readonly TreeNode[]): Uint32Array {
  const childIndexes = new Uint32Array(nodes.length + 1);
  const root = nodes[0];
  if (root === undefined) return childIndexes;
  // the walk numbers all children when it enters a directory: the running count tells the place of an empty one
  let next = 2;
  const stack: { dir: TreeNode; next: number }[] = [];
  const enter = (dir: TreeNode): void => {
    childIndexes[dir.index] = next;
    next += dir.children?.length ?? 0;
    stack.push({ dir, next: 0 });
  };
  enter(root);
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const child = top.dir.children?.[top.next++];
    if (child === undefined) stack.pop();
    else if (child.children !== undefined) enter(child);
  }
  return childIndexes;
}
