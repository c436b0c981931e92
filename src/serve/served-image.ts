// One image as users of a mount see it: node ids with the backend index, and the attribute rules of the daemon.
// Source: nydusd.md 9 (node ids), 10.3 (getattr).
import { S_IFDIR, S_IFMT, S_IFBLK, S_IFCHR } from '../format/flags.ts';
import { newAttr, type InodeAttr, type RafsImage } from '../format/image.ts';
import type { AccessLog } from './access-log.ts';
import { attr as attrTable, entryOut, offsetsOf } from './protocol.ts';

const A = offsetsOf(attrTable);
const E = offsetsOf(entryOut);

const WORD = 0x1_0000_0000;
const BLKSIZE = 4096;

/** Low half of a number as unsigned 32 bits; two's complement for negative numbers. */
function low(value: number): number {
  return value >>> 0;
}

/** High half of a number as 32 bits. */
function high(value: number): number {
  return Math.floor(value / WORD);
}

/** Answers reads from what is local; implemented by rafs/local-reader.ts. */
export interface LocalSource {
  readonly image: RafsImage;
  /** Bytes put into `target`, 0 at the end of the file; -1 when a chunk is missing. */
  read(ino: number, offset: number, size: number, target: Uint8Array, targetOffset: number): number;
  /** the image is served no more */
  close?(): void;
}

/** How an image is shown. */
export interface ServeOptions {
  /** answer xattr requests although the image has no xattr flag */
  enableXattr: boolean;
  /** shown as the times of inodes whose stored seconds are 0 */
  mountedAtSec: number;
  /** shown as owner unless the image names its owners */
  uid: number;
  gid: number;
}

/** A mounted image. */
export class ServedImage {
  readonly image: RafsImage;
  readonly source: LocalSource;
  readonly index: number;
  readonly hasXattrs: boolean;
  readonly generation: number;
  readonly attr = newAttr();
  /** where uses of its inodes are noted, when a statistic wants them */
  readonly accessLog: AccessLog | undefined;
  readonly #rootIno: number;
  readonly #mountedAt: number;
  readonly #explicit: boolean;
  readonly #uid: number;
  readonly #gid: number;

  /** @param index backend index, 1 to 255  @param generation distinguishes successive images at one index */
  constructor(
    source: LocalSource,
    index: number,
    generation: number,
    options: ServeOptions,
    accessLog?: AccessLog,
  ) {
    this.accessLog = accessLog;
    this.source = source;
    this.image = source.image;
    this.index = index;
    this.generation = generation;
    this.hasXattrs = options.enableXattr || source.image.super.hasXattr;
    this.#rootIno = source.image.rootIno;
    this.#mountedAt = options.mountedAtSec;
    this.#explicit = source.image.super.explicitUidGid;
    this.#uid = options.uid;
    this.#gid = options.gid;
  }

  /** Read the attributes of an inode and apply the rules: root mode, owners. Throws FormatError. */
  load(ino: number): InodeAttr {
    const attr = this.attr;
    this.image.attr(ino, attr);
    if (ino === this.#rootIno) attr.mode = (attr.mode & ~0o777) | 0o755;
    if (!this.#explicit) {
      attr.uid = this.#uid;
      attr.gid = this.#gid;
    }
    return attr;
  }

  /** True for a directory; false for other types and for what is no inode. */
  isDirectory(ino: number): boolean {
    try {
      this.image.attr(ino, this.attr);
      return (this.attr.mode & S_IFMT) === S_IFDIR;
    } catch {
      return false;
    }
  }

  /** Write a node id. */
  putNode(view: DataView, at: number, ino: number): void {
    view.setUint32(at, low(ino), true);
    view.setUint32(at + 4, (this.index << 24) | high(ino), true);
  }

  /** Write fuse_attr from the attributes loaded last. */
  putAttr(view: DataView, at: number): void {
    const attr = this.attr;
    const mounted = attr.mtime === 0;
    const mtime = mounted ? this.#mountedAt : attr.mtime;
    const type = attr.mode & S_IFMT;
    this.putNode(view, at + A.ino, attr.ino);
    view.setUint32(at + A.size, low(attr.size), true);
    view.setUint32(at + A.size + 4, high(attr.size), true);
    view.setUint32(at + A.blocks, low(attr.blocks), true);
    view.setUint32(at + A.blocks + 4, high(attr.blocks), true);
    const atimeLow = mounted ? low(mtime) : 0;
    const atimeHigh = mounted ? high(mtime) : 0;
    view.setUint32(at + A.atime, atimeLow, true);
    view.setUint32(at + A.atime + 4, atimeHigh, true);
    view.setUint32(at + A.mtime, low(mtime), true);
    view.setInt32(at + A.mtime + 4, high(mtime), true);
    view.setUint32(at + A.ctime, atimeLow, true);
    view.setUint32(at + A.ctime + 4, atimeHigh, true);
    view.setUint32(at + A.atimensec, 0, true);
    view.setUint32(at + A.mtimensec, mounted ? 0 : attr.mtimeNsec, true);
    view.setUint32(at + A.ctimensec, 0, true);
    view.setUint32(at + A.mode, attr.mode, true);
    view.setUint32(at + A.nlink, attr.nlink, true);
    view.setUint32(at + A.uid, attr.uid, true);
    view.setUint32(at + A.gid, attr.gid, true);
    view.setUint32(at + A.rdev, type === S_IFCHR || type === S_IFBLK ? attr.rdev : 0, true);
    view.setUint32(at + A.blksize, BLKSIZE, true);
    view.setUint32(at + A.flags, 0, true);
  }

  /** Write fuse_entry_out and fuse_attr for an inode. Throws FormatError. */
  putEntry(view: DataView, at: number, ino: number): void {
    this.load(ino);
    this.putNode(view, at + E.nodeid, ino);
    view.setUint32(at + E.generation, this.generation, true);
    view.setUint32(at + E.generation + 4, 0, true);
    putForever(view, at);
    this.putAttr(view, at + entryOut.size);
  }
}

/** Endless cache times of an entry: 2^32 seconds. */
export function putForever(view: DataView, at: number): void {
  view.setUint32(at + E.entryValid, 0, true);
  view.setUint32(at + E.entryValid + 4, 1, true);
  view.setUint32(at + E.attrValid, 0, true);
  view.setUint32(at + E.attrValid + 4, 1, true);
  view.setUint32(at + E.entryValidNsec, 0, true);
  view.setUint32(at + E.attrValidNsec, 0, true);
}
