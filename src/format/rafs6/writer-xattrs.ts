// The xattr area of a v6 inode. Source: rafs-metadata.md 4.10.
import { alignUp } from '../../base/bytes.ts';
import { UsageError } from '../../base/errors.ts';
import { MAX_XATTR_NAME, MAX_XATTR_VALUE_V6 } from '../../base/limits.ts';
import { XATTR_PREFIXES6, xattrEntry6, xattrHeader6 } from './layout.ts';

const MAX_ICOUNT = 0xffff;

/** Prefix index and suffix of a full name. */
function splitName(name: string): { index: number; suffix: string } {
  for (let index = 1; index < XATTR_PREFIXES6.length; index++) {
    const prefix = XATTR_PREFIXES6[index];
    if (prefix !== undefined && name.startsWith(prefix)) return { index, suffix: name.slice(prefix.length) };
  }
  throw new UsageError(`xattr "${name}" has a prefix that a RAFS v6 image cannot hold`, { exitCode: 1 });
}

/** Bytes of the area; 0 without xattrs. UsageError when a name, a value or the sum is too large. */
export function xattrAreaSize(xattrs: Map<string, Buffer> | undefined): number {
  if (xattrs === undefined || xattrs.size === 0) return 0;
  let size = xattrHeader6.size;
  for (const [name, value] of xattrs) {
    const { suffix } = splitName(name);
    if (suffix.length > MAX_XATTR_NAME)
      throw new UsageError(`xattr name of ${name.length} bytes, limit ${MAX_XATTR_NAME}`, { exitCode: 1 });
    if (value.length > MAX_XATTR_VALUE_V6) {
      throw new UsageError(
        `xattr "${name}" has a value of ${value.length} bytes, limit ${MAX_XATTR_VALUE_V6}`,
        { exitCode: 1 },
      );
    }
    size += alignUp(xattrEntry6.size + suffix.length + value.length, 4);
  }
  if (xattrIcount(size) > MAX_ICOUNT)
    throw new UsageError(`xattrs of one inode take ${size} bytes, limit ${12 + 4 * (MAX_ICOUNT - 1)}`, {
      exitCode: 1,
    });
  return size;
}

/** Value of i_xattr_icount for an area of that many bytes. */
export function xattrIcount(areaSize: number): number {
  return areaSize === 0 ? 0 : (areaSize - xattrHeader6.size) / 4 + 1;
}

/** Write the area, sorted by full name. The bytes of `out` there must be zero. */
export function writeXattrs(out: Buffer, view: DataView, offset: number, xattrs: Map<string, Buffer>): void {
  let at = offset + xattrHeader6.size;
  // latin1 text sorts like the bytes it stands for
  for (const name of [...xattrs.keys()].toSorted()) {
    const value = xattrs.get(name) as Buffer;
    const { index, suffix } = splitName(name);
    xattrEntry6.write(view, at, { nameLen: suffix.length, nameIndex: index, valueSize: value.length });
    out.write(suffix, at + xattrEntry6.size, 'latin1');
    out.set(value, at + xattrEntry6.size + suffix.length);
    at += alignUp(xattrEntry6.size + suffix.length + value.length, 4);
  }
}
