// What each operation does. A handler reads its arguments from byte 40 of the request and writes its payload at
// byte 16 of the reply. Source: nydusd.md 10.3; include/uapi/linux/fuse.h. Nothing here allocates for common requests.
import { constants } from 'node:os';
import { ENTERED } from './access-log.ts';
import { DEFERRED, NO_REPLY, type Exchange } from './exchange.ts';
import { FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, INC_EPOCH_MINOR, MAX_IO } from './opcodes.ts';
import {
  accessIn,
  attr as attrTable,
  attrOut,
  batchForgetIn,
  entryOut,
  forgetIn,
  forgetOne,
  getxattrIn,
  getxattrOut,
  inHeader,
  interruptIn,
  kstatfs,
  offsetsOf,
  openIn,
  openOut,
  outHeader,
  readIn,
} from './protocol.ts';
import { getattrPseudo, lookupPseudo, readdirPseudo } from './pseudo/pseudo-ops.ts';
import { putForever } from './served-image.ts';

const { ENOENT, EINVAL, ENAMETOOLONG, ENOSYS, EROFS, ENODATA, ERANGE, EACCES, ENOTDIR, ENOTTY, EISDIR } =
  constants.errno;

const WORD = 0x1_0000_0000;
const BODY = inHeader.size;
const OUT = outHeader.size;
const H = offsetsOf(inHeader);
const READ = offsetsOf(readIn);
const AO = offsetsOf(attrOut);
const FORGET = offsetsOf(forgetIn);
const FORGET_ONE = offsetsOf(forgetOne);
const INTERRUPT = offsetsOf(interruptIn);
const MAX_NAME = 255;
const SLASH = 0x2f;
const O_ACCMODE = 3;
const STATFS_BSIZE = 512;

/** Length of the NUL-terminated name from `start` to the end of the request, or minus an errno. */
function nameLength(x: Exchange, start: number): number {
  const end = x.length - 1;
  const bytes = x.request.bytes;
  if (end <= start || bytes[end] !== 0) return -EINVAL;
  if (end - start > MAX_NAME) return -ENAMETOOLONG;
  for (let at = start; at < end; at++) {
    const byte = bytes[at];
    if (byte === 0 || byte === SLASH) return -EINVAL;
  }
  return end - start;
}

/** LOOKUP: an entry; a name that is absent is an entry with node id 0, which the kernel remembers too. */
export function lookup(x: Exchange): number {
  const length = nameLength(x, BODY);
  if (length < 0) return length;
  const image = x.image;
  if (image === undefined) return lookupPseudo(x, x.request.names.at(length));
  const child = image.image.lookup(x.ino, x.request.names.at(length));
  const view = x.reply.view;
  if (child === 0) {
    // a name that a later image may have must not be remembered where the kernel cannot be told to forget it
    if (x.serveOpen && x.state.minor < INC_EPOCH_MINOR && x.ino === image.image.rootIno) return -ENOENT;
    x.reply.bytes.fill(0, OUT, OUT + entryOut.size + attrTable.size);
    putForever(view, OUT);
  } else {
    image.putEntry(view, OUT, child);
    x.lookups[image.index] = (x.lookups[image.index] ?? 0) + 1;
    image.accessLog?.add(image.index, ENTERED, child, 0, false);
  }
  return entryOut.size + attrTable.size;
}

/** GETATTR: attributes never change. */
export function getattr(x: Exchange): number {
  if (x.image === undefined) return getattrPseudo(x);
  const view = x.reply.view;
  view.setUint32(OUT + AO.attrValid, 0, true);
  view.setUint32(OUT + AO.attrValid + 4, 1, true);
  view.setUint32(OUT + AO.attrValidNsec, 0, true);
  view.setUint32(OUT + AO.dummy, 0, true);
  x.image.load(x.ino);
  x.image.putAttr(view, OUT + attrOut.size);
  return attrOut.size + attrTable.size;
}

/** READLINK: the target without a NUL. */
export function readlink(x: Exchange): number {
  if (x.image === undefined) return -EINVAL;
  const target = x.image.image.readlink(x.ino);
  if (OUT + target.length > x.reply.bytes.length) return -ENAMETOOLONG;
  x.reply.bytes.set(target, OUT);
  return target.length;
}

/** READ: bytes, fewer at the end of the file. Missing chunks defer the answer. */
export function read(x: Exchange): number {
  const image = x.image;
  if (image === undefined) return -EISDIR;
  const view = x.request.view;
  const offset =
    view.getUint32(BODY + READ.offset + 4, true) * WORD + view.getUint32(BODY + READ.offset, true);
  const wanted = view.getUint32(BODY + READ.size, true);
  if (wanted === 0 || offset > Number.MAX_SAFE_INTEGER) return 0;
  const size = Math.min(wanted, MAX_IO, x.reply.bytes.length - OUT);
  const count = image.source.read(x.ino, offset, size, x.reply.bytes, OUT);
  if (count >= 0) return count;
  x.deferred.index = image.index;
  x.deferred.ino = x.ino;
  x.deferred.offset = offset;
  x.deferred.size = size;
  return DEFERRED;
}

function fillDirectory(x: Exchange, plus: boolean): number {
  const image = x.image;
  const view = x.request.view;
  const cookie =
    view.getUint32(BODY + READ.offset + 4, true) * WORD + view.getUint32(BODY + READ.offset, true);
  const size = Math.min(view.getUint32(BODY + READ.size, true), MAX_IO, x.reply.bytes.length - OUT);
  if (size === 0 || cookie > Number.MAX_SAFE_INTEGER) return 0;
  if (image === undefined) return readdirPseudo(x, cookie, OUT + size, plus);
  x.filler.start(image, x.reply, OUT, OUT + size, plus);
  image.image.readdir(x.ino, cookie, x.filler.visit);
  return x.filler.filled;
}

/** READDIR: entries with their true type. */
export function readdir(x: Exchange): number {
  return fillDirectory(x, false);
}

/** READDIRPLUS: entries with their attributes, which the kernel keeps. */
export function readdirplus(x: Exchange): number {
  return fillDirectory(x, true);
}

function putOpen(x: Exchange, flags: number): number {
  x.reply.bytes.fill(0, OUT, OUT + openOut.size);
  openOut.put.openFlags(x.reply.view, OUT, flags);
  return openOut.size;
}

/** OPEN: ENOSYS makes the kernel open files by itself from then on. There are no handles. */
export function open(x: Exchange): number {
  if (!x.serveOpen) return -ENOSYS;
  const flags = openIn.field.flags(x.request.view, BODY);
  return (flags & O_ACCMODE) === 0 ? putOpen(x, FOPEN_KEEP_CACHE) : -EROFS;
}

/** OPENDIR, as OPEN. A pseudo directory's listing is not cached. */
export function opendir(x: Exchange): number {
  if (!x.serveOpen) return -ENOSYS;
  if (x.image === undefined) return putOpen(x, 0);
  return x.image.isDirectory(x.ino) ? putOpen(x, FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE) : -ENOTDIR;
}

/** RELEASE, RELEASEDIR, DESTROY: nothing is held. */
export function done(): number {
  return 0;
}

/** STATFS: the number of inodes is all there is to say. */
export function statfs(x: Exchange): number {
  kstatfs.write(x.reply.view, OUT, {
    files: x.image?.image.super.inodesCount ?? 0,
    bsize: STATFS_BSIZE,
    namelen: MAX_NAME,
  });
  return kstatfs.size;
}

function putSize(x: Exchange, size: number): number {
  getxattrOut.write(x.reply.view, OUT, { size });
  return getxattrOut.size;
}

/** GETXATTR. The size told for an absent buffer is one more than the value has, as upstream does. */
export function getxattr(x: Exchange): number {
  const image = x.image;
  if (image === undefined || !image.hasXattrs) return -ENOSYS;
  const room = getxattrIn.field.size(x.request.view, BODY);
  const length = nameLength(x, BODY + getxattrIn.size);
  if (length < 0) return length;
  const value = image.image.xattr(x.ino, x.request.xattrNames.at(length));
  if (value === undefined) return -ENODATA;
  if (room === 0) return putSize(x, value.length + 1);
  if (value.length > room) return -ERANGE;
  x.reply.bytes.set(value, OUT);
  return value.length;
}

/** LISTXATTR: names, each with its NUL. */
export function listxattr(x: Exchange): number {
  const image = x.image;
  if (image === undefined || !image.hasXattrs) return -ENOSYS;
  const room = getxattrIn.field.size(x.request.view, BODY);
  const bytes = x.reply.bytes;
  let total = 0;
  for (const { name } of image.image.xattrs(x.ino)) {
    if (room !== 0) {
      if (total + name.length + 1 > Math.min(room, bytes.length - OUT)) return -ERANGE;
      bytes.set(name, OUT + total);
      bytes[OUT + total + name.length] = 0;
    }
    total += name.length + 1;
  }
  return room === 0 ? putSize(x, total) : total;
}

/** ACCESS: permission bits against the caller; root may do anything but execute what nobody may. */
export function access(x: Exchange): number {
  const mask = accessIn.field.mask(x.request.view, BODY) & 7;
  if (x.image === undefined) return 0;
  const attr = x.image.load(x.ino);
  const uid = x.request.view.getUint32(H.uid, true);
  const gid = x.request.view.getUint32(H.gid, true);
  if (uid === 0) return (mask & 1) !== 0 && (attr.mode & 0o111) === 0 ? -EACCES : 0;
  const shift = uid === attr.uid ? 6 : gid === attr.gid ? 3 : 0;
  return ((attr.mode >> shift) & mask) === mask ? 0 : -EACCES;
}

function forgetNode(x: Exchange, nodeAt: number, countAt: number): void {
  const view = x.request.view;
  const index = view.getUint32(nodeAt + 4, true) >>> 24;
  const count = view.getUint32(countAt + 4, true) * WORD + view.getUint32(countAt, true);
  x.lookups[index] = (x.lookups[index] ?? 0) - count;
  x.directoryAt(index)?.forgetAt(view, nodeAt, count);
}

/** FORGET: the kernel has dropped an inode. Nothing is kept per inode; the sum tells when an image is unused. */
export function forget(x: Exchange): number {
  forgetNode(x, H.nodeid, BODY + FORGET.nlookup);
  return NO_REPLY;
}

/** BATCH_FORGET: a count larger than the message is cut, it cannot be replied to. */
export function batchForget(x: Exchange): number {
  const first = BODY + batchForgetIn.size;
  const room = Math.floor((x.length - first) / forgetOne.size);
  const count = Math.min(batchForgetIn.field.count(x.request.view, BODY), room);
  for (let i = 0; i < count; i++) {
    const at = first + i * forgetOne.size;
    forgetNode(x, at + FORGET_ONE.nodeid, at + FORGET_ONE.nlookup);
  }
  return NO_REPLY;
}

/** INTERRUPT: a deferred read is given up; anything else is answered already. */
export function interrupt(x: Exchange): number {
  const at = BODY + INTERRUPT.unique;
  x.interrupt?.(x.request.view.getUint32(at, true), x.request.view.getUint32(at + 4, true));
  return NO_REPLY;
}

/** Operations that would change something. */
export function readOnly(): number {
  return -EROFS;
}

/** Operations we leave to the kernel: it has its own way and does not ask again. */
export function unsupported(): number {
  return -ENOSYS;
}

/** IOCTL: there are no devices here. */
export function noDevice(): number {
  return -ENOTTY;
}

/** NOTIFY_REPLY: nothing is asked of the kernel that it would answer. */
export function ignored(): number {
  return NO_REPLY;
}
