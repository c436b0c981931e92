// Which entries the prefetch table names, and which files go to the front of the blob.
// Source: rafs-metadata.md 3.4 and 4.7, blob-and-cache.md 3.3.
import { S_IFMT, S_IFREG } from '../format/flags.ts';
import { nodeAt } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';

/** Nodes that patterns name exactly, in pattern order; an empty regular file is never listed. */
export function prefetchTable(root: TreeNode, patterns: readonly string[]): TreeNode[] {
  const nodes: TreeNode[] = [];
  for (const pattern of patterns) {
    const node = nodeAt(root, Buffer.from(pattern));
    if (node === undefined) continue;
    if ((node.mode & S_IFMT) === S_IFREG && node.size === 0) continue;
    nodes.push(node);
  }
  return nodes;
}

/**
 * Regular files with data, those below a pattern first: by pattern, then by index (blob-and-cache 3.3).
 *
 * @param nodes entries in W-order
 * @param parents index of the parent by index
 * @returns the files and how many of them the patterns moved to the front
 */
export function storageOrder(
  root: TreeNode,
  nodes: readonly TreeNode[],
  parents: Uint32Array,
  patterns: readonly string[],
): { files: TreeNode[]; prefetched: number } {
  const files = nodes.filter(
    (node) => (node.mode & S_IFMT) === S_IFREG && node.size > 0 && node.inherited !== true,
  );
  if (patterns.length === 0) return { files: withoutLinks(files), prefetched: 0 };
  // pattern number of an entry: its own, or that of the nearest listed ancestor; parents have smaller indexes
  const patternOf = new Int32Array(nodes.length + 1).fill(-1);
  patterns.forEach((pattern, number) => {
    const node = nodeAt(root, Buffer.from(pattern));
    if (node !== undefined && patternOf[node.index] === -1) patternOf[node.index] = number;
  });
  for (const node of nodes) {
    if (patternOf[node.index] === -1 && node.index > 1) {
      patternOf[node.index] = patternOf[parents[node.index] as number] as number;
    }
  }
  const front = files.filter((node) => patternOf[node.index] !== -1);
  const rest = files.filter((node) => patternOf[node.index] === -1);
  front.sort((a, b) => (patternOf[a.index] as number) - (patternOf[b.index] as number));
  // any link of a file may be the one that a pattern names
  const first = withoutLinks(front);
  return { files: withoutLinks([...first, ...rest]), prefetched: first.length };
}

/** The first of all links of each file. */
function withoutLinks(files: readonly TreeNode[]): TreeNode[] {
  const seen = new Set<number>();
  return files.filter((node) => {
    if (node.nlink === 1) return true;
    if (seen.has(node.ino)) return false;
    seen.add(node.ino);
    return true;
  });
}
