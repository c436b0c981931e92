// Listings of a shared directory: getdents64(2) into our memory, from there into the reply. A cookie is the kernel's own d_off,
// which may use all 63 bits: it is never a number here.
import { constants as files } from 'node:fs';
import { allocateMemory, type Memory } from '../../native/memory.ts';
import { closeFd, getdents, seekFd } from '../../native/at-calls.ts';
import type { Exchange } from '../exchange.ts';
import { MAX_IO } from '../opcodes.ts';
import { attr, dirent, entryOut, inHeader, offsetsOf, openOut, outHeader, readIn } from '../protocol.ts';
import { wide, type PassthroughContext } from './context.ts';

const BODY = inHeader.size;
const OUT = outHeader.size;
const R = offsetsOf(readIn);
const D = offsetsOf(dirent);
const PLUS_HEAD = entryOut.size + attr.size;
const DOT = 0x2e;
const SEEK_SET = 0;
const { O_DIRECTORY, O_RDONLY } = files;

/** struct linux_dirent64: u64 inode, i64 offset, u16 record length, u8 type, name. */
const RECORD = { ino: 0, off: 8, length: 16, type: 18, name: 19 } as const;
const BUFFER_BYTES = 64 * 1024;

let buffer: Memory | undefined;

export function opendir(c: PassthroughContext, x: Exchange): number {
  const inode = c.fdOf(x);
  if (inode < 0) return inode;
  const fd = c.reopen(inode, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  openOut.write(x.reply.view, OUT, { fh: BigInt(fd) });
  return openOut.size;
}

export function readdir(c: PassthroughContext, x: Exchange): number {
  return list(c, x, false);
}

export function readdirplus(c: PassthroughContext, x: Exchange): number {
  return list(c, x, true);
}

function list(c: PassthroughContext, x: Exchange, plus: boolean): number {
  const { view } = x.request;
  const handle = wide(view, BODY + R.fh);
  const inode = c.fdOf(x);
  if (inode < 0) return inode;
  const fd = handle > 0 ? handle : c.reopen(inode, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return fd;
  const result = listFrom(c, x, fd, plus);
  if (handle === 0) closeFd(fd);
  return result;
}

function listFrom(c: PassthroughContext, x: Exchange, fd: number, plus: boolean): number {
  const { view } = x.request;
  const room = Math.min(view.getUint32(BODY + R.size, true), MAX_IO);
  const moved = seekFd(fd, view.getBigInt64(BODY + R.offset, true), SEEK_SET);
  if (moved < 0) return moved;
  buffer ??= allocateMemory(BUFFER_BYTES);
  let filled = 0;
  for (;;) {
    const got = getdents(fd, buffer.address, BUFFER_BYTES);
    if (got <= 0) return got < 0 && filled === 0 ? got : filled;
    for (let at = 0; at < got; at += buffer.view.getUint16(at + RECORD.length, true)) {
      const size = addEntry(c, x, fd, { from: buffer, at, to: OUT + filled, room: room - filled, plus });
      if (size === 0) return filled;
      filled += size;
    }
  }
}

interface Place {
  from: Memory;
  at: number;
  to: number;
  room: number;
  plus: boolean;
}

/** Bytes written, 0 when there is no room. */
function addEntry(c: PassthroughContext, x: Exchange, fd: number, place: Place): number {
  const { from, at, to, room, plus } = place;
  const nameAt = at + RECORD.name;
  const length = from.bytes.indexOf(0, nameAt) - nameAt;
  const head = plus ? PLUS_HEAD : 0;
  const size = (head + dirent.size + length + 7) & ~7;
  if (size > room) return 0;
  const { view, bytes } = x.reply;
  if (plus) addAttributes(c, x, fd, place, length);
  const entry = to + head;
  view.setUint32(entry + D.ino, from.view.getUint32(at + RECORD.ino, true), true);
  const high = from.view.getUint32(at + RECORD.ino + 4, true);
  view.setUint32(entry + D.ino + 4, (c.index << 24) | (high & 0xff_ffff), true);
  view.setUint32(entry + D.off, from.view.getUint32(at + RECORD.off, true), true);
  view.setUint32(entry + D.off + 4, from.view.getUint32(at + RECORD.off + 4, true), true);
  view.setUint32(entry + D.namelen, length, true);
  view.setUint32(entry + D.type, from.bytes[at + RECORD.type] ?? 0, true);
  const name = entry + dirent.size;
  bytes.set(from.bytes.subarray(nameAt, nameAt + length), name);
  bytes.fill(0, name + length, to + size);
  return size;
}

/** `.` and `..`, and what vanished meanwhile, come without attributes: the kernel asks when it wants them. */
function addAttributes(c: PassthroughContext, x: Exchange, fd: number, place: Place, length: number): void {
  const { from, at, to } = place;
  const name = at + RECORD.name;
  const dots = from.bytes[name] === DOT && (length === 1 || (length === 2 && from.bytes[name + 1] === DOT));
  const size = dots ? 0 : c.putEntry(x.reply.view, to, fd, from.address + name);
  if (size <= 0) x.reply.bytes.fill(0, to, to + PLUS_HEAD);
}
