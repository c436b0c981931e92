// Directory data of a v6 bootstrap: blocks of dirents and names, `.` and `..` sorted among the children.
// Source: rafs-metadata.md 4.11.
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../flags.ts';
import type { WriterNode } from '../writer-input.ts';
import { dirent6, FileType6 } from './layout.ts';

const DOT = Buffer.from('.');
const DOTDOT = Buffer.from('..');

/** FileType6 of a mode. */
export function fileType6(mode: number): number {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return FileType6.regular;
    case S_IFDIR:
      return FileType6.directory;
    case S_IFCHR:
      return FileType6.char;
    case S_IFBLK:
      return FileType6.block;
    case S_IFIFO:
      return FileType6.fifo;
    case S_IFSOCK:
      return FileType6.socket;
    case S_IFLNK:
      return FileType6.symlink;
    default:
      return FileType6.unknown;
  }
}

/** Bytes of dirent data of a directory with these children. */
export function direntSize(children: readonly WriterNode[], blockSize: number): number {
  let blocks = 0;
  let used = 0;
  let dots = 0;
  const add = (length: number): void => {
    const need = dirent6.size + length;
    if (used + need > blockSize) {
      blocks++;
      used = 0;
    }
    used += need;
  };
  for (const child of children) {
    if (dots === 0 && child.name.compare(DOT) > 0) dots = (add(1), 1);
    if (dots === 1 && child.name.compare(DOTDOT) > 0) dots = (add(2), 2);
    add(child.name.length);
  }
  if (dots === 0) add(1);
  if (dots < 2) add(2);
  return blocks * blockSize + used;
}

/** One entry on its way to a block. */
interface Entry {
  name: Buffer;
  nid: number;
  fileType: number;
}

/** Entries of a directory in the order they are stored. */
function entriesOf(dir: WriterNode, parent: WriterNode, nidOf: (node: WriterNode) => number): Entry[] {
  const entries: Entry[] = [];
  let dots = 0;
  const dot = (): number => entries.push({ name: DOT, nid: nidOf(dir), fileType: FileType6.directory });
  const dotdot = (): number =>
    entries.push({ name: DOTDOT, nid: nidOf(parent), fileType: FileType6.directory });
  for (const child of dir.children ?? []) {
    if (dots === 0 && child.name.compare(DOT) > 0) dots = (dot(), 1);
    if (dots === 1 && child.name.compare(DOTDOT) > 0) dots = (dotdot(), 2);
    entries.push({ name: child.name, nid: nidOf(child), fileType: fileType6(child.mode) });
  }
  if (dots === 0) dot();
  if (dots < 2) dotdot();
  return entries;
}

/**
 * Write the dirent data of a directory, block by block.
 *
 * @param offsetOf file offset of the block with that number
 */
export function writeDirents(
  out: Buffer,
  view: DataView,
  dir: WriterNode,
  parent: WriterNode,
  blockSize: number,
  nidOf: (node: WriterNode) => number,
  offsetOf: (block: number) => number,
): void {
  const entries = entriesOf(dir, parent, nidOf);
  let block = 0;
  for (let first = 0; first < entries.length; block++) {
    let end = first;
    for (let used = 0; end < entries.length; end++) {
      used += dirent6.size + (entries[end] as Entry).name.length;
      if (used > blockSize) break;
    }
    const base = offsetOf(block);
    let nameoff = dirent6.size * (end - first);
    for (let i = first; i < end; i++) {
      const entry = entries[i] as Entry;
      const at = base + dirent6.size * (i - first);
      dirent6.put.nid(view, at, entry.nid);
      dirent6.put.nameoff(view, at, nameoff);
      dirent6.put.fileType(view, at, entry.fileType);
      out.set(entry.name, base + nameoff);
      nameoff += entry.name.length;
    }
    first = end;
  }
}
