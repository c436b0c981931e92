// One layer over another: whiteouts applied, upper entries replace lower ones. Source: rafs-metadata.md 6.2.
import { FormatError } from '../base/errors.ts';
import { alignUp } from '../base/bytes.ts';
import { MAX_TREE_DEPTH } from '../base/limits.ts';
import { isDirectory } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';
import { OVERLAY_OPAQUE_XATTR, removedName, whiteoutOf, type WhiteoutConvention } from '../tree/whiteouts.ts';

/** A directory whose children are still two lists. */
interface Pending {
  dir: TreeNode;
  lower: TreeNode[];
  upper: TreeNode[];
  depth: number;
}

/** What the markers of one upper directory say about the lower one. */
interface Markers {
  ordinary: TreeNode[];
  /** names removed from the lower directory, latin1 */
  removed: Set<string>;
  hideAll: boolean;
  /** names of directories whose lower children are hidden, latin1 */
  hidden: Set<string>;
}

/** v5 size of an xattr table without its header: length word, name, NUL and value of each (rafs-metadata 3.7). */
function xattrBytes5(xattrs: ReadonlyMap<string, Buffer>): number {
  let total = 0;
  for (const [name, value] of xattrs) total += 4 + name.length + 1 + value.length;
  return total;
}

function dropOpaqueMark(node: TreeNode): void {
  if (node.dirSize5 !== undefined) {
    node.blocks5 = Math.ceil((node.dirSize5 + alignUp(xattrBytes5(node.xattrs ?? new Map()), 8)) / 512);
  }
  const xattrs = new Map(node.xattrs);
  xattrs.delete(OVERLAY_OPAQUE_XATTR);
  if (xattrs.size > 0) node.xattrs = xattrs;
  else delete node.xattrs;
}

function readMarkers(upper: readonly TreeNode[], convention: WhiteoutConvention): Markers {
  const markers: Markers = { ordinary: [], removed: new Set(), hideAll: false, hidden: new Set() };
  for (const node of upper) {
    switch (whiteoutOf(node, convention)) {
      case 'oci-removal':
        markers.removed.add(removedName(node).toString('latin1'));
        break;
      case 'oci-opaque':
        markers.hideAll = true;
        break;
      case 'overlayfs-removal':
        markers.removed.add(node.name.toString('latin1'));
        break;
      case 'overlayfs-opaque':
        markers.hidden.add(node.name.toString('latin1'));
        dropOpaqueMark(node);
        markers.ordinary.push(node);
        break;
      case 'none':
        markers.ordinary.push(node);
    }
  }
  return markers;
}

/** Merge two sorted lists into one; where both have a name the upper entry stands, with the lower children under a directory. */
function mergeChildren(task: Pending, convention: WhiteoutConvention): Pending[] {
  const markers = readMarkers(task.upper, convention);
  const lower = markers.hideAll ? [] : task.lower;
  const children: TreeNode[] = [];
  const tasks: Pending[] = [];
  let at = 0;
  const takeLower = (node: TreeNode): void => {
    if (!markers.removed.has(node.name.toString('latin1'))) children.push(node);
  };
  for (const node of markers.ordinary) {
    let order = -1;
    for (; at < lower.length; at++) {
      const candidate = lower[at] as TreeNode;
      order = candidate.name.compare(node.name);
      if (order >= 0) break;
      takeLower(candidate);
    }
    const same = order === 0 && at < lower.length ? lower[at++] : undefined;
    children.push(node);
    if (!isDirectory(node)) continue;
    const name = node.name.toString('latin1');
    const keep = same?.children !== undefined && !markers.hidden.has(name) && !markers.removed.has(name);
    tasks.push({
      dir: node,
      lower: keep ? (same.children ?? []) : [],
      upper: node.children ?? [],
      depth: task.depth + 1,
    });
  }
  for (; at < lower.length; at++) takeLower(lower[at] as TreeNode);
  task.dir.children = children;
  return tasks;
}

/**
 * Put an upper tree over a lower one. Both are consumed; the result is built from their nodes.
 * Markers of the upper tree are consumed everywhere, entries of the lower tree are never taken for markers.
 *
 * @returns the root: attributes of the upper root
 * @throws FormatError EINVAL  directories are nested deeper than MAX_TREE_DEPTH
 */
export function overlay(lower: TreeNode, upper: TreeNode, convention: WhiteoutConvention): TreeNode {
  const stack: Pending[] = [
    { dir: upper, lower: lower.children ?? [], upper: upper.children ?? [], depth: 0 },
  ];
  for (let task = stack.pop(); task !== undefined; task = stack.pop()) {
    if (task.depth > MAX_TREE_DEPTH)
      throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
    for (const next of mergeChildren(task, convention)) stack.push(next);
  }
  return upper;
}
