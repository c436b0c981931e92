// Absolute paths inside an image. Names are bytes: a path may be text or raw bytes.
import type { RafsImage } from '../format/image.ts';
import { FormatError } from '../base/errors.ts';

/**
 * Inode of an absolute path; symlinks are not followed, `.` and `..` are.
 *
 * @param path text (UTF-8) or bytes; repeated and trailing slashes are ignored
 * @returns 0 when there is no such entry, also when a file stands where a directory is needed
 */
export function resolvePath(image: RafsImage, path: string | Uint8Array): number {
  const bytes = typeof path === 'string' ? Buffer.from(path) : path;
  let ino = image.rootIno;
  let start = 0;
  while (start < bytes.length) {
    if (bytes[start] === 0x2f) {
      start++;
      continue;
    }
    const slash = bytes.indexOf(0x2f, start);
    const end = slash < 0 ? bytes.length : slash;
    const child = lookupOrNone(image, ino, bytes.subarray(start, end));
    if (child === 0) return 0;
    ino = child;
    start = end + 1;
  }
  return ino;
}

function lookupOrNone(image: RafsImage, dir: number, name: Uint8Array): number {
  try {
    return image.lookup(dir, name);
  } catch (error) {
    if (error instanceof FormatError && error.errno === 'ENOTDIR') return 0;
    throw error;
  }
}
