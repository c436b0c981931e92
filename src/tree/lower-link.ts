// Hard links of a layer to files of a layer below. A layer is built without the others, so its bootstrap has a symlink with
// a mark in place of such a link, and the merge puts the file there. Who does not know the mark sees a symlink to the file.
// Upstream refuses such layers; container runtimes apply them. Source: OCI image-spec 1.1, layer.md; golden input layer5.
import { S_IFLNK, S_IFMT } from '../format/flags.ts';
import type { TreeNode } from './node.ts';

/** Mark of the symlink; its value is `y`. */
export const LOWER_LINK_XATTR = 'trusted.nydus.lower_link';

/** What a hard link to `/target` of a lower layer is until the merge. */
export function lowerLinkFields(target: Buffer): Pick<TreeNode, 'mode' | 'target' | 'size' | 'xattrs'> {
  return {
    mode: S_IFLNK | 0o777,
    target,
    size: target.length,
    xattrs: new Map([[LOWER_LINK_XATTR, Buffer.from('y')]]),
  };
}

/** Path that a lower link points to, from the root; undefined: the node is something else. */
export function lowerLinkTarget(node: Pick<TreeNode, 'mode' | 'target' | 'xattrs'>): Buffer | undefined {
  if ((node.mode & S_IFMT) !== S_IFLNK || node.xattrs?.has(LOWER_LINK_XATTR) !== true) return undefined;
  return node.target;
}
