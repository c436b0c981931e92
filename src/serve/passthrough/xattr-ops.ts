// Extended attributes and statfs of a shared directory.
import { statfsSync } from 'node:fs';
import { constants } from 'node:os';
import { getxattrPath, listxattrPath, removexattrPath, setxattrPath } from '../../native/at-calls.ts';
import type { Exchange } from '../exchange.ts';
import { getxattrIn, getxattrOut, inHeader, kstatfs, outHeader } from '../protocol.ts';
import type { PassthroughContext } from './context.ts';
import { setxattrIn } from './messages.ts';

const { EINVAL } = constants.errno;

const BODY = inHeader.size;
const OUT = outHeader.size;
/** Kernel limit of a value, and of a list of names. */
const XATTR_MAX = 65536;
const NAME_MAX = 255;

/** Size of the answer, in the form the request wants it. */
function putResult(x: Exchange, asked: number, result: number): number {
  if (result < 0 || asked > 0) return result;
  getxattrOut.write(x.reply.view, OUT, { size: result });
  return getxattrOut.size;
}

export function getxattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const start = BODY + getxattrIn.size;
  const end = c.nameEnd(x, start, false);
  if (end < 0) return end;
  const asked = Math.min(getxattrIn.field.size(x.request.view, BODY), XATTR_MAX);
  const result = getxattrPath(c.procPath(fd), c.requestAddress(x, start), c.replyAddress(x), asked);
  return putResult(x, asked, result);
}

export function listxattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const asked = Math.min(getxattrIn.field.size(x.request.view, BODY), XATTR_MAX);
  return putResult(x, asked, listxattrPath(c.procPath(fd), c.replyAddress(x), asked));
}

export function setxattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const { size, flags } = setxattrIn.read(x.request.view, BODY);
  const start = BODY + setxattrIn.size;
  const end = x.request.bytes.indexOf(0, start);
  if (end <= start || end - start > NAME_MAX || end + 1 + size > x.length) return -EINVAL;
  const [name, value] = [c.requestAddress(x, start), c.requestAddress(x, end + 1)];
  return setxattrPath(c.procPath(fd), name, value, size, flags);
}

export function removexattr(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const end = c.nameEnd(x, BODY, false);
  return end < 0 ? end : removexattrPath(c.procPath(fd), c.requestAddress(x, BODY));
}

export function statfs(c: PassthroughContext, x: Exchange): number {
  const fd = c.fdOf(x);
  if (fd < 0) return fd;
  const s = statfsSync(`/proc/self/fd/${fd}`);
  kstatfs.write(x.reply.view, OUT, {
    blocks: s.blocks,
    bfree: s.bfree,
    bavail: s.bavail,
    files: s.files,
    ffree: s.ffree,
    bsize: s.bsize,
    namelen: NAME_MAX,
    frsize: s.bsize,
  });
  return kstatfs.size;
}
