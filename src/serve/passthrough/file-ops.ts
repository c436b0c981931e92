// Operations on open files of a shared directory. A handle is a descriptor of this process; 0 = the kernel does not open files
// (a connection on which OPEN was once answered ENOSYS), so they are opened for each operation.
import { constants as files } from 'node:fs';
import { constants } from 'node:os';
import {
  closeFd,
  copyFileRange,
  dupFd,
  fallocateFd,
  fdatasyncFd,
  fsyncFd,
  O_CLOEXEC,
  O_PATH,
  O_TMPFILE_BIT,
  openAt,
  seekFd,
} from '../../native/at-calls.ts';
import { preadInto, pwriteFrom } from '../../native/file-io.ts';
import type { Exchange } from '../exchange.ts';
import { MAX_IO } from '../opcodes.ts';
import { attr, entryOut, inHeader, offsetsOf, openIn, openOut, outHeader, readIn } from '../protocol.ts';
import { wide, type PassthroughContext } from './context.ts';
import { finishCreated } from './inode-ops.ts';
import {
  copyFileRangeIn,
  createIn,
  fallocateIn,
  flushIn,
  fsyncIn,
  lseekIn,
  lseekOut,
  releaseIn,
  writeIn,
  writeOut,
} from './messages.ts';

const { EEXIST, EFBIG, EINVAL } = constants.errno;
const { O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = files;

const BODY = inHeader.size;
const OUT = outHeader.size;
const R = offsetsOf(readIn);
const W = offsetsOf(writeIn);
const F = offsetsOf(fallocateIn);
const L = offsetsOf(lseekIn);
const C = offsetsOf(copyFileRangeIn);
const FSYNC_DATA_ONLY = 1;
/** Buffers of a reader are not aligned as O_DIRECT wants them. */
const DROPPED = O_CREAT | O_EXCL | O_NOCTTY | O_DIRECT;

/** Run with the handle of a request, or with a descriptor opened for it. */
function withFile(
  c: PassthroughContext,
  x: Exchange,
  handle: number,
  flags: number,
  run: (fd: number) => number,
): number {
  if (handle > 0) return run(handle);
  const inode = c.fdOf(x);
  if (inode < 0) return inode;
  const fd = c.reopenFile(inode, flags);
  if (fd < 0) return fd;
  const result = run(fd);
  closeFd(fd);
  return result;
}

function putOpen(x: Exchange, at: number, fd: number): number {
  openOut.write(x.reply.view, at, { fh: BigInt(fd) });
  return openOut.size;
}

export function open(c: PassthroughContext, x: Exchange): number {
  const inode = c.fdOf(x);
  if (inode < 0) return inode;
  const fd = c.reopenFile(inode, openIn.field.flags(x.request.view, BODY) & ~DROPPED);
  return fd < 0 ? fd : putOpen(x, OUT, fd);
}

/** Open what has this name, whatever it is: by way of its inode, as opening a FIFO would wait. */
function openExisting(c: PassthroughContext, dir: number, name: number, flags: number): number {
  const inode = openAt(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
  if (inode < 0) return inode;
  const fd = c.reopenFile(inode, flags);
  closeFd(inode);
  return fd;
}

export function create(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const start = BODY + createIn.size;
  const end = c.nameEnd(x, start, true);
  if (end < 0) return end;
  const asked = createIn.field.flags(x.request.view, BODY);
  const mode = createIn.field.mode(x.request.view, BODY);
  const name = c.requestAddress(x, start);
  const flags = (asked & ~DROPPED) | O_NOFOLLOW | O_CLOEXEC;
  let fd = openAt(dir, name, flags | O_CREAT | O_EXCL, mode);
  const exists = fd === -EEXIST && (asked & O_EXCL) === 0;
  if (exists) fd = openExisting(c, dir, name, asked & ~DROPPED);
  if (fd < 0) return fd;
  // a file that was there keeps its owner and mode
  const size = exists ? c.putEntry(x.reply.view, OUT, dir, name) : finishCreated(c, x, dir, name, mode, OUT);
  if (size < 0) {
    closeFd(fd);
    return size;
  }
  return size + putOpen(x, OUT + size, fd);
}

/** A file without a name: entry and handle, as CREATE. */
export function tmpfile(c: PassthroughContext, x: Exchange): number {
  const dir = c.fdOf(x);
  if (dir < 0) return dir;
  const { view } = x.request;
  const flags = (createIn.field.flags(view, BODY) & ~DROPPED) | O_TMPFILE_BIT | O_DIRECTORY | O_CLOEXEC;
  const fd = openAt(dir, c.dotName, flags, createIn.field.mode(view, BODY));
  if (fd < 0) return fd;
  const inode = c.reopen(fd, O_PATH);
  const size = inode < 0 ? inode : c.putEntryOf(x.reply.view, OUT, inode);
  if (size < 0) {
    closeFd(fd);
    return size;
  }
  return entryOut.size + attr.size + putOpen(x, OUT + size, fd);
}

export function read(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const offset = wide(view, BODY + R.offset);
  const size = Math.min(view.getUint32(BODY + R.size, true), MAX_IO);
  if (!Number.isSafeInteger(offset)) return -EINVAL;
  const handle = wide(view, BODY + R.fh);
  return withFile(c, x, handle, O_RDONLY, (fd) => preadInto(fd, c.replyAddress(x), size, offset));
}

export function write(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const offset = wide(view, BODY + W.offset);
  const size = view.getUint32(BODY + W.size, true);
  const start = BODY + writeIn.size;
  if (size > x.length - start) return -EINVAL;
  if (!Number.isSafeInteger(offset)) return -EFBIG;
  const handle = wide(view, BODY + W.fh);
  const from = c.requestAddress(x, start);
  const put = withFile(c, x, handle, O_WRONLY, (fd) => pwriteFrom(fd, from, size, offset));
  if (put < 0) return put;
  writeOut.write(x.reply.view, OUT, { size: put });
  return writeOut.size;
}

export function release(_c: PassthroughContext, x: Exchange): number {
  const handle = releaseIn.field.fh(x.request.view, BODY);
  if (handle > 0) closeFd(handle);
  return 0;
}

/** Errors of writing show at close(2), on network file systems for instance. */
export function flush(_c: PassthroughContext, x: Exchange): number {
  const handle = flushIn.field.fh(x.request.view, BODY);
  if (handle === 0) return 0;
  const fd = dupFd(handle);
  return fd < 0 ? fd : closeFd(fd);
}

export function fsync(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const sync = (fsyncIn.field.fsyncFlags(view, BODY) & FSYNC_DATA_ONLY) !== 0 ? fdatasyncFd : fsyncFd;
  return withFile(c, x, fsyncIn.field.fh(view, BODY), O_RDONLY, (fd) => sync(fd));
}

export function fallocate(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const [offset, length] = [wide(view, BODY + F.offset), wide(view, BODY + F.length)];
  if (!Number.isSafeInteger(offset + length)) return -EFBIG;
  const mode = view.getUint32(BODY + F.mode, true);
  const fh = wide(view, BODY + F.fh);
  return withFile(c, x, fh, O_RDWR, (fd) => fallocateFd(fd, mode, offset, length));
}

export function lseek(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const fh = wide(view, BODY + L.fh);
  const offset = view.getBigInt64(BODY + L.offset, true);
  const whence = view.getUint32(BODY + L.whence, true);
  const found = withFile(c, x, fh, O_RDONLY, (fd) => seekFd(fd, offset, whence));
  if (found < 0) return found;
  lseekOut.write(x.reply.view, OUT, { offset: found });
  return lseekOut.size;
}

const OUT_OFFSET = 8;
/** Longest piece copied at once: WRITE's reply counts in 32 bits, and other requests wait for us. */
const MAX_COPY = 1 << 30;

export function copyRange(c: PassthroughContext, x: Exchange): number {
  const { view } = x.request;
  const target = c.fdAt(view, BODY + C.nodeidOut);
  if (target < 0) return target;
  const [handleIn, handleOut] = [wide(view, BODY + C.fhIn), wide(view, BODY + C.fhOut)];
  const to = handleOut > 0 ? handleOut : c.reopenFile(target, O_WRONLY);
  if (to < 0) return to;
  c.timesView.setBigInt64(0, view.getBigInt64(BODY + C.offsetIn, true), true);
  c.timesView.setBigInt64(OUT_OFFSET, view.getBigInt64(BODY + C.offsetOut, true), true);
  const [offsetIn, offsetOut] = [c.timesAddress, c.timesAddress + OUT_OFFSET];
  const length = Math.min(wide(view, BODY + C.length), MAX_COPY);
  const copied = withFile(c, x, handleIn, O_RDONLY, (fd) =>
    copyFileRange(fd, offsetIn, to, offsetOut, length, 0),
  );
  if (handleOut === 0) closeFd(to);
  if (copied < 0) return copied;
  writeOut.write(x.reply.view, OUT, { size: copied });
  return writeOut.size;
}
