// Lower links of a layer become the files they stand for. Source: tree/lower-link.ts.
import { UsageError } from '../base/errors.ts';
import { S_IFMT, S_IFREG } from '../format/flags.ts';
import { walkNumbering } from '../tree/children.ts';
import { lowerLinkTarget } from '../tree/lower-link.ts';
import type { TreeNode } from '../tree/node.ts';

const SLASH = 0x2f;

/** The entry of a path from the root, without following symlinks. */
function entryOf(root: TreeNode, path: Buffer): TreeNode | undefined {
  let node: TreeNode | undefined = root;
  for (let at = 0; at < path.length && node !== undefined;) {
    const slash = path.indexOf(SLASH, at);
    const name = path.subarray(at, slash < 0 ? path.length : slash);
    at += name.length + 1;
    if (name.length > 0) node = node.children?.find((child) => child.name.equals(name));
  }
  return node;
}

/**
 * Put the files of the lower tree in place of the upper tree's lower links: each becomes one more name of the file.
 *
 * @param lower undefined: there is nothing below
 * @throws UsageError exit 1, in upstream's words  the file is not there, or no regular file
 */
export function resolveLowerLinks(upper: TreeNode, lower: TreeNode | undefined): void {
  walkNumbering(upper, (node) => {
    const path = lowerLinkTarget(node);
    if (path === undefined) return;
    const target = lower === undefined ? undefined : entryOf(lower, path);
    const what = `${path.toString()} for hardlink ${node.name.toString()}`;
    if (target === undefined)
      throw new UsageError(`tarball: unknown target ${what}`, {
        exitCode: 1,
        hint: 'neither the layer of the link nor the layers below have that file',
      });
    if ((target.mode & S_IFMT) !== S_IFREG)
      throw new UsageError(`tarball: target ${what} is not a regular file`, { exitCode: 1 });
    const { name } = node;
    delete node.target;
    delete node.xattrs;
    // records of chunks are numbered anew for each node that has them: none is shared
    const chunks = target.chunks.map((chunk) => ({ ...chunk }));
    target.hardlinkFlag = true;
    Object.assign(node, target, { name, chunks });
  });
}
