// Names inside a bootstrap: compared and checked in place, without copying them out of the mapped bytes.
import { FileType6 } from './rafs6/layout.ts';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from './flags.ts';

/** Longest name a reader takes; upstream's tar builder writes 256 bytes (rafs-metadata 5.8). */
export const MAX_STORED_NAME = 256;

/**
 * Order of `name` and the bytes [start, end) of `bytes`, as unsigned bytes; a proper prefix sorts first.
 *
 * @returns below 0 when `name` comes first, 0 when both are equal
 */
export function compareName(name: Uint8Array, bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  const shared = name.length < length ? name.length : length;
  for (let i = 0; i < shared; i++) {
    const difference = (name[i] as number) - (bytes[start + i] as number);
    if (difference !== 0) return difference;
  }
  return name.length - length;
}

/** Order of two ranges of the same bytes, as compareName. */
export function compareRanges(
  bytes: Uint8Array,
  leftStart: number,
  leftEnd: number,
  rightStart: number,
  rightEnd: number,
): number {
  const left = leftEnd - leftStart;
  const right = rightEnd - rightStart;
  const shared = left < right ? left : right;
  for (let i = 0; i < shared; i++) {
    const difference = (bytes[leftStart + i] as number) - (bytes[rightStart + i] as number);
    if (difference !== 0) return difference;
  }
  return left - right;
}

/** True when the bytes [start, end) hold a `/` or a NUL: no name of a directory entry may. */
export function hasForbiddenByte(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    const byte = bytes[i];
    if (byte === 0x2f || byte === 0) return true;
  }
  return false;
}

/** True for the name `.` */
export function isDot(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start === 1 && bytes[start] === 0x2e;
}

/** True for the name `..` */
export function isDotDot(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start === 2 && bytes[start] === 0x2e && bytes[start + 1] === 0x2e;
}

/** FileType6 of a mode; FileType6.unknown when the type bits are none of the seven. */
export function fileTypeOf(mode: number): number {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return FileType6.regular;
    case S_IFDIR:
      return FileType6.directory;
    case S_IFLNK:
      return FileType6.symlink;
    case S_IFCHR:
      return FileType6.char;
    case S_IFBLK:
      return FileType6.block;
    case S_IFIFO:
      return FileType6.fifo;
    case S_IFSOCK:
      return FileType6.socket;
    default:
      return FileType6.unknown;
  }
}

/** True when a blob id can be a file name: not empty, no `/`, not `.` or `..`. */
export function isPlainBlobId(id: string): boolean {
  return id !== '' && id !== '.' && id !== '..' && !id.includes('/') && !id.includes('\0');
}
