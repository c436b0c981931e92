// Whiteouts: entries of a layer that remove or hide entries of lower layers. Source: rafs-metadata.md 6.1.
import { S_IFCHR, S_IFMT } from '../format/flags.ts';
import { isDirectory } from './children.ts';
import type { TreeNode } from './node.ts';

export type WhiteoutConvention = 'oci' | 'overlayfs' | 'none';
export type WhiteoutKind = 'none' | 'oci-removal' | 'oci-opaque' | 'overlayfs-removal' | 'overlayfs-opaque';

const OCI_PREFIX = Buffer.from('.wh.');
const OCI_OPAQUE = Buffer.from('.wh..wh..opq');
/** Opaque mark of overlayfs on a directory; its value is `y`. */
export const OVERLAY_OPAQUE_XATTR = 'trusted.overlay.opaque';

/** What an entry means under a convention. */
export function whiteoutOf(node: TreeNode, convention: WhiteoutConvention): WhiteoutKind {
  switch (convention) {
    case 'oci':
      if (!node.name.subarray(0, OCI_PREFIX.length).equals(OCI_PREFIX)) return 'none';
      return node.name.equals(OCI_OPAQUE) ? 'oci-opaque' : 'oci-removal';
    case 'overlayfs':
      if ((node.mode & S_IFMT) === S_IFCHR && node.rdev === 0) return 'overlayfs-removal';
      if (isDirectory(node) && node.xattrs?.get(OVERLAY_OPAQUE_XATTR)?.toString('latin1') === 'y')
        return 'overlayfs-opaque';
      return 'none';
    case 'none':
      return 'none';
  }
}

/** Name that an OCI removal `.wh.X` removes. */
export function removedName(node: TreeNode): Buffer {
  return node.name.subarray(OCI_PREFIX.length);
}
