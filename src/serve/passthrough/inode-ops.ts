// Operations on names and inodes of a shared directory. Each returns bytes of the payload, or minus an errno.
import { constants as files } from 'node:fs';
import { constants } from 'node:os';
import {
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_FOLLOW,
  AT_SYMLINK_NOFOLLOW,
  chmodPath,
  chownAt,
  closeFd,
  linkAt,
  mkdirAt,
  mknodAt,
  readlinkAt,
  renameAt2,
  symlinkAt,
  truncateFd,
  unlinkAt,
  utimensAt,
} from '../../native/at-calls.ts';
import { S_IFDIR, S_IFLNK, S_IFMT } from '../../format/flags.ts';
import type { Exchange } from '../exchange.ts';
import { attr, attrOut, inHeader, offsetsOf, outHeader } from '../protocol.ts';
import { deviceOf, putValid, wide, type PassthroughContext } from './context.ts';
import {
  linkIn,
  mkdirIn,
  mknodIn,
  rename2In,
  renameIn,
  setattrIn,
  SetattrValid as Valid,
} from './messages.ts';

const { EFBIG, EINVAL, ENAMETOOLONG } = constants.errno;

const H = offsetsOf(inHeader);
const S = offsetsOf(setattrIn);
const BODY = inHeader.size;
const OUT = outHeader.size;

const PATH_MAX = 4096;
const PERMISSIONS = 0o7777;
const SET_GROUP_ID = 0o2000;
const KEEP = 0xffff_ffff;
const UTIME_NOW = 0x3fff_ffff;
const UTIME_OMIT = 0x3fff_fffe;
const TIMESPEC = 16;

/** Only root may give files away; anybody else serves as himself. */
function mayChown(): boolean {
  return process.geteuid?.() === 0;
}

export function lookup(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const end = c.nameEnd(x, BODY, false);
  if (end < 0) return end;
  // the parent of the root lies outside of what is shared
  const isUp = end === BODY + 2 && x.request.bytes[BODY] === 0x2e && x.request.bytes[BODY + 1] === 0x2e;
  const isRoot = c.slotAt(x.request.view, H.nodeid) === 0;
  return c.putEntry(x.reply.view, OUT, dir, isUp && isRoot ? c.dotName : c.requestAddress(x, BODY));
}

export function getattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  return fd < 0 ? fd : putAttributes(c, x, fd);
}

function putAttributes(c: PassthroughContext, x: Exchange, fd: number): number {
  const problem = c.stat(fd, c.emptyName);
  if (problem < 0) return problem;
  const { view } = x.reply;
  putValid(view, OUT);
  view.setUint32(OUT + 8, 0, true);
  view.setUint32(OUT + 12, 0, true);
  c.putAttr(view, OUT + attrOut.size);
  return attrOut.size + attr.size;
}

/** Owner first: it takes set-id bits away, which the mode may set again; times last, as the rest changes them. */
export function setattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const { view } = x.request;
  const valid = view.getUint32(BODY + S.valid, true);
  for (const change of [changeOwner, changeMode, changeSize, changeTimes]) {
    const problem = change(c, view, fd, valid);
    if (problem < 0) return problem;
  }
  return putAttributes(c, x, fd);
}

type Change = (c: PassthroughContext, view: DataView, fd: number, valid: number) => number;

const changeOwner: Change = (c, view, fd, valid) => {
  if ((valid & (Valid.UID | Valid.GID)) === 0) return 0;
  const uid = (valid & Valid.UID) === 0 ? KEEP : view.getUint32(BODY + S.uid, true);
  const gid = (valid & Valid.GID) === 0 ? KEEP : view.getUint32(BODY + S.gid, true);
  return chownAt(fd, c.emptyName, uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
};

const changeMode: Change = (c, view, fd, valid) =>
  (valid & Valid.MODE) === 0
    ? 0
    : chmodPath(c.procPath(fd), view.getUint32(BODY + S.mode, true) & PERMISSIONS);

const changeSize: Change = (c, view, fd, valid) => {
  if ((valid & Valid.SIZE) === 0) return 0;
  const size = wide(view, BODY + S.size);
  if (!Number.isSafeInteger(size)) return -EFBIG;
  const handle = (valid & Valid.FH) === 0 ? 0 : wide(view, BODY + S.fh);
  const file = handle > 0 ? handle : c.reopenFile(fd, files.O_WRONLY);
  if (file < 0) return file;
  const result = truncateFd(file, size);
  if (handle === 0) closeFd(file);
  return result;
};

const changeTimes: Change = (c, view, fd, valid) => {
  if ((valid & (Valid.ATIME | Valid.MTIME)) === 0) return 0;
  const put = (at: number, set: boolean, now: boolean, seconds: number, nanoseconds: number): void => {
    c.timesView.setBigInt64(at, view.getBigInt64(BODY + seconds, true), true);
    const exact = view.getUint32(BODY + nanoseconds, true);
    c.timesView.setBigInt64(at + 8, BigInt(!set ? UTIME_OMIT : now ? UTIME_NOW : exact), true);
  };
  put(0, (valid & Valid.ATIME) !== 0, (valid & Valid.ATIME_NOW) !== 0, S.atime, S.atimensec);
  put(TIMESPEC, (valid & Valid.MTIME) !== 0, (valid & Valid.MTIME_NOW) !== 0, S.mtime, S.mtimensec);
  return utimensAt(fd, c.emptyName, c.timesAddress, AT_EMPTY_PATH);
};

export function readlink(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  return fd < 0 ? fd : readlinkAt(fd, c.emptyName, c.replyAddress(x), PATH_MAX);
}

/**
 * Give what was made to the caller, with the mode asked for whatever this process's umask is, and write its entry.
 *
 * @param at where the entry goes in the reply
 */
export function finishCreated(
  c: PassthroughContext,
  x: Exchange,
  dir: number,
  name: number,
  mode: number,
  at: number,
): number {
  const problem = c.stat(dir, name);
  if (problem < 0) return problem;
  const made = c.mode;
  const uid = x.request.view.getUint32(H.uid, true);
  const gid = x.request.view.getUint32(H.gid, true);
  if (mayChown()) {
    // another group than ours was inherited from the directory: it stays
    const group = c.gid === process.getegid?.() && c.gid !== gid ? gid : KEEP;
    const owner = c.uid === uid ? KEEP : uid;
    if (owner !== KEEP || group !== KEEP) {
      const failed = chownAt(dir, name, owner, group, AT_SYMLINK_NOFOLLOW);
      if (failed < 0) return failed;
    }
  }
  const inherited = (made & S_IFMT) === S_IFDIR ? made & SET_GROUP_ID : 0;
  const wanted = (mode & PERMISSIONS) | inherited;
  const size = c.putEntry(x.reply.view, at, dir, name);
  if (size < 0 || (made & S_IFMT) === S_IFLNK || (c.mode & PERMISSIONS) === wanted) return size;
  const fd = c.table.fd(x.reply.view.getUint32(at, true) - 1);
  const failed = chmodPath(c.procPath(fd), wanted);
  if (failed < 0) return failed;
  const again = c.stat(fd, c.emptyName);
  if (again < 0) return again;
  c.putAttr(x.reply.view, at + size - attr.size);
  return size;
}

export function mknod(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const start = BODY + mknodIn.size;
  const end = c.nameEnd(x, start, true);
  if (end < 0) return end;
  const mode = mknodIn.field.mode(x.request.view, BODY);
  const device = deviceOf(mknodIn.field.rdev(x.request.view, BODY));
  const name = c.requestAddress(x, start);
  const made = mknodAt(dir, name, mode, device);
  return made < 0 ? made : finishCreated(c, x, dir, name, mode, OUT);
}

export function mkdir(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const start = BODY + mkdirIn.size;
  const end = c.nameEnd(x, start, true);
  if (end < 0) return end;
  const mode = mkdirIn.field.mode(x.request.view, BODY);
  const name = c.requestAddress(x, start);
  const made = mkdirAt(dir, name, mode & PERMISSIONS);
  return made < 0 ? made : finishCreated(c, x, dir, name, mode, OUT);
}

export function symlink(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const end = c.nameEnd(x, BODY, true);
  if (end < 0) return end;
  const target = x.request.bytes.indexOf(0, end + 1);
  if (target < 0 || target >= x.length) return -EINVAL;
  if (target - end > PATH_MAX) return -ENAMETOOLONG;
  const name = c.requestAddress(x, BODY);
  const made = symlinkAt(c.requestAddress(x, end + 1), dir, name);
  return made < 0 ? made : finishCreated(c, x, dir, name, 0o777, OUT);
}

export function link(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const from = c.fdAt(x.request.view, BODY);
  if (from < 0) return from;
  const start = BODY + linkIn.size;
  const end = c.nameEnd(x, start, true);
  if (end < 0) return end;
  const name = c.requestAddress(x, start);
  const made = linkAt(AT_FDCWD, c.procPath(from), dir, name, AT_SYMLINK_FOLLOW);
  return made < 0 ? made : c.putEntry(x.reply.view, OUT, dir, name);
}

function remove(c: PassthroughContext, x: Exchange, flags: number): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const end = c.nameEnd(x, BODY, true);
  return end < 0 ? end : unlinkAt(dir, c.requestAddress(x, BODY), flags);
}

export function unlink(c: PassthroughContext, x: Exchange): number {
  return remove(c, x, 0);
}

export function rmdir(c: PassthroughContext, x: Exchange): number {
  return remove(c, x, AT_REMOVEDIR);
}

function move(c: PassthroughContext, x: Exchange, start: number, flags: number): number {
  const from = c.fdOf(x);
  if (from < 0) return from;
  const to = c.fdAt(x.request.view, BODY);
  if (to < 0) return to;
  const end = c.nameEnd(x, start, true);
  if (end < 0) return end;
  const end2 = c.nameEnd(x, end + 1, true);
  if (end2 < 0) return end2;
  return renameAt2(from, c.requestAddress(x, start), to, c.requestAddress(x, end + 1), flags);
}

export function rename(c: PassthroughContext, x: Exchange): number {
  return move(c, x, BODY + renameIn.size, 0);
}

export function rename2(c: PassthroughContext, x: Exchange): number {
  return move(c, x, BODY + rename2In.size, rename2In.field.flags(x.request.view, BODY));
}
