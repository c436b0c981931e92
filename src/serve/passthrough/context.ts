// What the operations of a shared directory have in common: which inode a node id means, names in a request, attributes on their
// way to the reply. One object per thread and directory. Source: nydusd.md 9 (node ids), statx(2).
import { constants } from 'node:os';
import { allocateMemory } from '../../native/memory.ts';
import { O_CLOEXEC, O_PATH, openAt, closeFd, statxAt, STATX_SIZE } from '../../native/at-calls.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../../format/flags.ts';
import type { Exchange } from '../exchange.ts';
import { ROOT_NODEID } from '../opcodes.ts';
import { attr, entryOut, inHeader, offsetsOf, outHeader } from '../protocol.ts';
import { InodeTable, ROOT_SLOT } from './inode-table.ts';

const { EINVAL, ENAMETOOLONG, ENFILE, ENOENT, EXDEV } = constants.errno;

const A = offsetsOf(attr);
const E = offsetsOf(entryOut);
const H = offsetsOf(inHeader);

/** Seconds the kernel may keep names and attributes: the directory changes under us. Upstream's is 5. */
const VALID_SECONDS = 1;
const O_NOFOLLOW = 0x2_0000;
const NAME_MAX = 255;
const SLASH = 0x2f;
const DOT = 0x2e;
const PATH_BYTES = 64;
/** Room for results of system calls behind the path: a statx buffer, two timespecs, two offsets. */
const SCRATCH_BYTES = 4096;
const STATX_AT = PATH_BYTES;
const TIMES_AT = STATX_AT + STATX_SIZE;
const EMPTY_AT = TIMES_AT + 64;
const DOT_AT = EMPTY_AT + 8;
const PROC = Buffer.from('/proc/self/fd/', 'latin1');
const MAJOR_SHIFT = 20;
const WORD = 0x1_0000_0000;

/** What all threads are told of a shared directory. */
export interface PassthroughShare {
  kind: 'passthrough';
  table: SharedArrayBuffer;
}

/** A shared directory as one thread serves it. */
export class PassthroughContext {
  readonly table: InodeTable;
  readonly index: number;
  /** addresses of an empty name and of `.` */
  readonly emptyName: number;
  readonly dotName: number;
  /** where two timespecs, or two offsets, may be put */
  readonly timesAddress: number;
  readonly timesView: DataView;
  readonly #scratch = allocateMemory(SCRATCH_BYTES);
  readonly #stat: DataView;

  constructor(share: PassthroughShare, index: number) {
    this.table = new InodeTable(share.table);
    this.index = index;
    const { address, bytes } = this.#scratch;
    bytes.set(PROC, 0);
    bytes[DOT_AT] = DOT;
    this.emptyName = address + EMPTY_AT;
    this.dotName = address + DOT_AT;
    this.timesAddress = address + TIMES_AT;
    this.timesView = new DataView(bytes.buffer, bytes.byteOffset + TIMES_AT, EMPTY_AT - TIMES_AT);
    this.#stat = new DataView(bytes.buffer, bytes.byteOffset + STATX_AT, STATX_SIZE);
  }

  /** Slot of a node id in a message; minus an errno. */
  slotAt(view: DataView, at: number): number {
    const low = view.getUint32(at, true);
    const high = view.getUint32(at + 4, true);
    // the root of the whole mount may be ours
    if (high === 0 && low === ROOT_NODEID) return ROOT_SLOT;
    if (high >>> 24 !== this.index) return -EXDEV;
    return (high & 0xff_ffff) === 0 && low >= 1 ? low - 1 : -ENOENT;
  }

  /** Descriptor of the inode a request is about; minus an errno. */
  fdOf(x: Exchange): number {
    return this.fdAt(x.request.view, H.nodeid);
  }

  /** Descriptor of the node id at a place of a message; minus an errno. */
  fdAt(view: DataView, at: number): number {
    const slot = this.slotAt(view, at);
    if (slot < 0) return slot;
    const fd = this.table.fd(slot);
    return fd < 0 ? -ENOENT : fd;
  }

  /** Write a node id of ours. */
  putNode(view: DataView, at: number, slot: number): void {
    view.setUint32(at, slot + 1, true);
    view.setUint32(at + 4, this.index << 24, true);
  }

  /** Address of the path `/proc/self/fd/<fd>`, good until the next call. */
  procPath(fd: number): number {
    const { bytes, address } = this.#scratch;
    const digits = String(fd);
    for (let i = 0; i < digits.length; i++) bytes[PROC.length + i] = digits.charCodeAt(i);
    bytes[PROC.length + digits.length] = 0;
    return address;
  }

  /** Open a file or directory again, with other flags. What else there is the kernel opens itself, and opening a FIFO would wait. */
  reopenFile(fd: number, flags: number): number {
    const problem = this.stat(fd, this.emptyName);
    if (problem < 0) return problem;
    const type = this.mode & S_IFMT;
    return type === S_IFREG || type === S_IFDIR ? this.reopen(fd, flags) : -EINVAL;
  }

  /** Open the inode behind a descriptor again, with other flags: the new descriptor, or minus an errno. */
  reopen(fd: number, flags: number): number {
    return openAt(-1, this.procPath(fd), (flags & ~O_NOFOLLOW) | O_CLOEXEC, 0);
  }

  /**
   * End of the NUL-terminated name that starts at a place of the request; minus an errno.
   *
   * @param create the name is going to be made: `.` and `..` are none
   */
  nameEnd(x: Exchange, start: number, create: boolean): number {
    const { bytes } = x.request;
    const end = bytes.indexOf(0, start);
    if (end < 0 || end >= x.length || end === start) return -EINVAL;
    if (end - start > NAME_MAX) return -ENAMETOOLONG;
    if (
      create &&
      bytes[start] === DOT &&
      (end === start + 1 || (end === start + 2 && bytes[start + 1] === DOT))
    )
      return -EINVAL;
    for (let at = start; at < end; at++) if (bytes[at] === SLASH) return -EINVAL;
    return end;
  }

  /** Fill the attributes: 0, or minus an errno. @param name address of a name below `fd`, or of an empty one */
  stat(fd: number, name: number): number {
    return statxAt(fd, name, this.#scratch.address + STATX_AT);
  }

  get mode(): number {
    return this.#stat.getUint16(28, true);
  }

  get uid(): number {
    return this.#stat.getUint32(20, true);
  }

  get gid(): number {
    return this.#stat.getUint32(24, true);
  }

  /** Write fuse_attr from the attributes filled last. Offsets are those of struct statx. */
  putAttr(view: DataView, at: number): void {
    const stat = this.#stat;
    const copy = (to: number, from: number): void =>
      view.setUint32(at + to, stat.getUint32(from, true), true);
    copy(A.ino, 32);
    view.setUint32(at + A.ino + 4, (this.index << 24) | (stat.getUint32(36, true) & 0xff_ffff), true);
    copy(A.size, 40);
    copy(A.size + 4, 44);
    copy(A.blocks, 48);
    copy(A.blocks + 4, 52);
    copy(A.atime, 64);
    copy(A.atime + 4, 68);
    copy(A.mtime, 112);
    copy(A.mtime + 4, 116);
    copy(A.ctime, 96);
    copy(A.ctime + 4, 100);
    copy(A.atimensec, 72);
    copy(A.mtimensec, 120);
    copy(A.ctimensec, 104);
    view.setUint32(at + A.mode, this.mode, true);
    copy(A.nlink, 16);
    copy(A.uid, 20);
    copy(A.gid, 24);
    view.setUint32(at + A.rdev, encodeDevice(stat.getUint32(128, true), stat.getUint32(132, true)), true);
    copy(A.blksize, 4);
    view.setUint32(at + A.flags, 0, true);
  }

  /**
   * Look a name up, count the lookup, and write fuse_entry_out with fuse_attr.
   *
   * @param name address of the name
   * @returns bytes written, or minus an errno
   */
  putEntry(view: DataView, at: number, dir: number, name: number): number {
    const fd = openAt(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    return fd < 0 ? fd : this.putEntryOf(view, at, fd);
  }

  /** The same for an O_PATH descriptor that is given away. */
  putEntryOf(view: DataView, at: number, fd: number): number {
    const problem = this.stat(fd, this.emptyName);
    if (problem < 0) {
      closeFd(fd);
      return problem;
    }
    const stat = this.#stat;
    const device = (stat.getUint32(136, true) << MAJOR_SHIFT) | stat.getUint32(140, true);
    const slot = this.table.lookup(fd, device, stat.getUint32(32, true), stat.getUint32(36, true));
    if (slot < 0) return -ENFILE;
    this.putNode(view, at + E.nodeid, slot);
    view.setUint32(at + E.generation, this.table.generation(slot), true);
    view.setUint32(at + E.generation + 4, 0, true);
    putValid(view, at + E.entryValid);
    putValid(view, at + E.attrValid);
    view.setUint32(at + E.entryValidNsec, 0, true);
    view.setUint32(at + E.attrValidNsec, 0, true);
    this.putAttr(view, at + entryOut.size);
    return entryOut.size + attr.size;
  }

  /** Address of a place in the request. */
  requestAddress(x: Exchange, at: number): number {
    return x.request.address + at;
  }

  /** Address of the payload of the reply. */
  replyAddress(x: Exchange, at = 0): number {
    return x.reply.address + outHeader.size + at;
  }
}

/** Write how long the kernel may keep what it got. */
export function putValid(view: DataView, at: number): void {
  view.setUint32(at, VALID_SECONDS, true);
  view.setUint32(at + 4, 0, true);
}

/** Device number as the FUSE protocol has it: new_encode_dev of the kernel. */
function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** Device number for mknod(2) from that of the FUSE protocol: the C library's dev_t. */
export function deviceOf(rdev: number): bigint {
  const major = BigInt((rdev >>> 8) & 0xfff);
  const minor = BigInt((rdev & 0xff) | ((rdev >>> 12) & 0xf_ff00));
  return (
    ((major & 0xfff_f000n) << 32n) |
    ((major & 0xfffn) << 8n) |
    ((minor & 0xffff_ff00n) << 12n) |
    (minor & 0xffn)
  );
}

/** A 64-bit number of a message; past 2^53 it is not exact: no file is that large, EFBIG. */
export function wide(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * WORD + view.getUint32(at, true);
}
