// Operations on pseudo directories. Source: nydusd.md 9; golden fuse/v6-pseudo.
import { constants } from 'node:os';
import { S_IFDIR } from '../../format/flags.ts';
import type { Exchange } from '../exchange.ts';
import { attr as attrTable, attrOut, dirent, entryOut, offsetsOf, outHeader } from '../protocol.ts';
import { putForever } from '../served-image.ts';

const { ENOENT } = constants.errno;

const OUT = outHeader.size;
const A = offsetsOf(attrTable);
const AO = offsetsOf(attrOut);
const D = offsetsOf(dirent);
const E = offsetsOf(entryOut);
const BLKSIZE = 4096;
const DT_DIR = 4;
const PLUS_HEAD = entryOut.size + attrTable.size;
const DOT = 0x2e;

function putAttr(x: Exchange, at: number, ino: number): void {
  const { view, bytes } = x.reply;
  bytes.fill(0, at, at + attrTable.size);
  view.setUint32(at + A.ino, ino, true);
  for (const field of [A.atime, A.mtime, A.ctime]) view.setUint32(at + field, x.startedAtSec, true);
  view.setUint32(at + A.mode, S_IFDIR | 0o777, true);
  view.setUint32(at + A.nlink, 2, true);
  view.setUint32(at + A.blksize, BLKSIZE, true);
}

/** GETATTR: attributes never change; a mount that covers the directory says so to the kernel. */
export function getattrPseudo(x: Exchange): number {
  const { view } = x.reply;
  view.setUint32(OUT + AO.attrValid, 0, true);
  view.setUint32(OUT + AO.attrValid + 4, 1, true);
  view.setUint32(OUT + AO.attrValidNsec, 0, true);
  view.setUint32(OUT + AO.dummy, 0, true);
  putAttr(x, OUT + attrOut.size, x.ino);
  return attrOut.size + attrTable.size;
}

function putPseudoEntry(x: Exchange, ino: number): void {
  const { view, bytes } = x.reply;
  bytes.fill(0, OUT, OUT + entryOut.size);
  view.setUint32(OUT + E.nodeid, ino, true);
  putForever(view, OUT);
  putAttr(x, OUT + entryOut.size, ino);
}

/** LOOKUP: another pseudo directory, or the root of what covers it. Absent names may appear at any time: not remembered. */
export function lookupPseudo(x: Exchange, name: Uint8Array): number {
  if (name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT))) {
    putPseudoEntry(x, name.length === 1 ? x.ino : x.pseudo.parent(x.ino));
    return PLUS_HEAD;
  }
  const entry = x.pseudo.child(x.ino, name);
  if (entry === undefined) return -ENOENT;
  if (entry.index === 0) {
    putPseudoEntry(x, entry.ino);
    return PLUS_HEAD;
  }
  const image = x.imageAt(entry.index);
  if (image === undefined) return x.directoryAt(entry.index)?.putRootEntry(x.reply.view, OUT) ?? -ENOENT;
  image.putEntry(x.reply.view, OUT, image.image.rootIno);
  x.lookups[entry.index] = (x.lookups[entry.index] ?? 0) + 1;
  return PLUS_HEAD;
}

/**
 * READDIR and READDIRPLUS: no `.` and `..`. The kernel asks for attributes when it wants them.
 *
 * @param cookie number of entries that were given before
 * @param end    end of the room in the reply
 */
export function readdirPseudo(x: Exchange, cookie: number, end: number, plus: boolean): number {
  const { view, bytes } = x.reply;
  const head = plus ? PLUS_HEAD : 0;
  const entries = x.pseudo.entries(x.ino);
  let at = OUT;
  for (let position = cookie; position < entries.length; position++) {
    const entry = entries[position];
    if (entry === undefined) break;
    const size = (head + dirent.size + entry.name.length + 7) & ~7;
    if (at + size > end) break;
    bytes.fill(0, at, at + size);
    const root = entry.index === 0 ? undefined : x.imageAt(entry.index);
    if (root === undefined) view.setUint32(at + head + D.ino, entry.ino, true);
    else root.putNode(view, at + head + D.ino, root.image.rootIno);
    view.setUint32(at + head + D.off, position + 1, true);
    view.setUint32(at + head + D.namelen, entry.name.length, true);
    view.setUint32(at + head + D.type, DT_DIR, true);
    bytes.set(entry.name, at + head + dirent.size);
    at += size;
  }
  return at - OUT;
}
