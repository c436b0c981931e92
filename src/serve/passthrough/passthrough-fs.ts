// A plain directory served read-write: one class behind the dispatcher, its operations by opcode.
// Source: nydusd.md 1.5 (--shared-dir), 5.6, 10.3.
import { closeSync, constants as files, openSync } from 'node:fs';
import { constants } from 'node:os';
import { messageOf, UsageError } from '../../base/errors.ts';
import { O_CLOEXEC, O_PATH } from '../../native/at-calls.ts';
import { lstatx, newStatx } from '../../native/statx.ts';
import type { Exchange } from '../exchange.ts';
import { MAX_OPCODE, Opcode } from '../opcodes.ts';
import { inHeader } from '../protocol.ts';
import { PassthroughContext, type PassthroughShare } from './context.ts';
import * as directory from './directory-ops.ts';
import * as file from './file-ops.ts';
import { InodeTable, ROOT_SLOT } from './inode-table.ts';
import * as inode from './inode-ops.ts';
import {
  copyFileRangeIn,
  createIn,
  fallocateIn,
  flushIn,
  fsyncIn,
  linkIn,
  lseekIn,
  mkdirIn,
  mknodIn,
  releaseIn,
  rename2In,
  renameIn,
  setattrIn,
  setxattrIn,
  writeIn,
} from './messages.ts';
import * as xattr from './xattr-ops.ts';

export type { PassthroughShare } from './context.ts';

const { EINVAL, ENOSYS, ENOTTY } = constants.errno;
const MAJOR_SHIFT = 20;

interface Row {
  /** smallest body */
  size: number;
  run: (c: PassthroughContext, x: Exchange) => number;
}

const done = (): number => 0;

// prettier-ignore
const ROWS: Partial<Record<keyof typeof Opcode, Row>> = {
  LOOKUP: { size: 2, run: inode.lookup },
  GETATTR: { size: 0, run: inode.getattr },
  SETATTR: { size: setattrIn.size, run: inode.setattr },
  READLINK: { size: 0, run: inode.readlink },
  SYMLINK: { size: 4, run: inode.symlink },
  MKNOD: { size: mknodIn.size, run: inode.mknod },
  MKDIR: { size: mkdirIn.size, run: inode.mkdir },
  UNLINK: { size: 2, run: inode.unlink },
  RMDIR: { size: 2, run: inode.rmdir },
  RENAME: { size: renameIn.size, run: inode.rename },
  RENAME2: { size: rename2In.size, run: inode.rename2 },
  LINK: { size: linkIn.size, run: inode.link },
  OPEN: { size: 8, run: file.open },
  CREATE: { size: createIn.size, run: file.create },
  TMPFILE: { size: createIn.size, run: file.tmpfile },
  READ: { size: 40, run: file.read },
  WRITE: { size: writeIn.size, run: file.write },
  RELEASE: { size: releaseIn.size, run: file.release },
  FLUSH: { size: flushIn.size, run: file.flush },
  FSYNC: { size: fsyncIn.size, run: file.fsync },
  FALLOCATE: { size: fallocateIn.size, run: file.fallocate },
  LSEEK: { size: lseekIn.size, run: file.lseek },
  COPY_FILE_RANGE: { size: copyFileRangeIn.size, run: file.copyRange },
  OPENDIR: { size: 8, run: directory.opendir },
  READDIR: { size: 40, run: directory.readdir },
  READDIRPLUS: { size: 40, run: directory.readdirplus },
  RELEASEDIR: { size: releaseIn.size, run: file.release },
  FSYNCDIR: { size: fsyncIn.size, run: file.fsync },
  STATFS: { size: 0, run: xattr.statfs },
  GETXATTR: { size: 8, run: xattr.getxattr },
  LISTXATTR: { size: 8, run: xattr.listxattr },
  SETXATTR: { size: setxattrIn.size, run: xattr.setxattr },
  REMOVEXATTR: { size: 2, run: xattr.removexattr },
  // the kernel checks permissions itself (default_permissions)
  ACCESS: { size: 8, run: done },
  IOCTL: { size: 0, run: () => -ENOTTY },
};

const ROW_BY_OPCODE: readonly (Row | undefined)[] = Array.from({ length: MAX_OPCODE }, (_, opcode) => {
  const name = (Object.keys(ROWS) as (keyof typeof Opcode)[]).find((key) => Opcode[key] === opcode);
  return name === undefined ? undefined : ROWS[name];
});

/** A shared directory, as one thread serves it. */
export class PassthroughFs {
  readonly #context: PassthroughContext;

  /** @param index backend index: top byte of its node ids */
  constructor(share: PassthroughShare, index: number) {
    this.#context = new PassthroughContext(share, index);
  }

  /** Serve a request about a node of this backend: bytes of the payload, or minus an errno. */
  handle(opcode: number, x: Exchange): number {
    const row = ROW_BY_OPCODE[opcode];
    if (row === undefined) return -ENOSYS;
    if (x.length < inHeader.size + row.size) return -EINVAL;
    return row.run(this.#context, x);
  }

  /** Write fuse_entry_out and fuse_attr of the root: bytes written, or minus an errno. */
  putRootEntry(view: DataView, at: number): number {
    const c = this.#context;
    return c.putEntry(view, at, c.table.fd(ROOT_SLOT), c.dotName);
  }

  /** The kernel takes lookups back of a node id anywhere in a request. */
  forgetAt(view: DataView, at: number, lookups: number): void {
    const slot = this.#context.slotAt(view, at);
    if (slot >= 0) this.#context.table.forget(slot, lookups);
  }
}

/** The main thread's end: the directory stays open for as long as it is shared. */
export class SharedDirectory {
  readonly share: PassthroughShare;
  readonly source: string;

  private constructor(source: string, share: PassthroughShare) {
    this.source = source;
    this.share = share;
  }

  /** @throws UsageError ENOENT, ENOTDIR …: there is no such directory, or it may not be opened */
  static open(source: string): SharedDirectory {
    let fd: number;
    try {
      fd = openSync(source, O_PATH | O_CLOEXEC | files.O_DIRECTORY);
    } catch (error) {
      throw new UsageError(`cannot share ${source}: ${messageOf(error)}`, {
        cause: error,
        hint: 'name a directory that exists',
      });
    }
    try {
      const stat = newStatx();
      lstatx(Buffer.from(`/proc/self/fd/${fd}/.\0`), stat);
      const device = (stat.devMajor << MAJOR_SHIFT) | stat.devMinor;
      const table = InodeTable.create(fd, device, stat.inoLow, stat.inoHigh);
      return new SharedDirectory(source, { kind: 'passthrough', table });
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Inodes the kernel knows of it. */
  get inodes(): number {
    return new InodeTable(this.share.table).size;
  }

  /** Close what is open of it. Only when no thread serves it any more. */
  close(): void {
    new InodeTable(this.share.table).close();
  }
}
