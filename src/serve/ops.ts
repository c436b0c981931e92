// The opcode table: everything we know of one FUSE operation is its row. Transport-free: /dev/fuse and virtio-fs both feed
// the dispatcher that reads it. Source: include/uapi/linux/fuse.h (sizes), nydusd.md 6.1 (statistics), 10.3 (behaviour).
import { Fop } from './counters.ts';
import type { Handler } from './exchange.ts';
import * as handle from './handlers.ts';
import { init } from './handshake.ts';
import { MAX_OPCODE, Opcode } from './opcodes.ts';
import {
  accessIn,
  batchForgetIn,
  forgetIn,
  getattrIn,
  getxattrIn,
  interruptIn,
  openIn,
  readIn,
} from './protocol.ts';

/** One operation. */
export interface Op {
  readonly name: keyof typeof Opcode;
  readonly opcode: number;
  /** smallest body behind the header; a shorter request is EINVAL */
  readonly size: number;
  readonly handler: Handler;
  /** false: the kernel expects no reply, not even an error */
  readonly replies: boolean;
  /** the node id names an inode; otherwise it is not looked at */
  readonly node: boolean;
  /** place in `fop_hits`, -1 = not counted */
  readonly fop: number;
}

interface OpOptions {
  replies?: false;
  node?: false;
  fop?: number;
}

function op(name: keyof typeof Opcode, size: number, handler: Handler, options: OpOptions = {}): Op {
  return {
    name,
    opcode: Opcode[name],
    size,
    handler,
    replies: options.replies ?? true,
    node: options.node ?? true,
    fop: options.fop ?? -1,
  };
}

/** A name with at least one byte and its NUL. */
const NAME = 2;

/** All operations, ours and those we refuse. */
// prettier-ignore
export const OPS: readonly Op[] = [
  op('LOOKUP', NAME, handle.lookup, { fop: Fop.lookup }),
  op('FORGET', forgetIn.size, handle.forget, { replies: false, node: false }),
  op('GETATTR', getattrIn.size, handle.getattr, { fop: Fop.getattr }),
  op('SETATTR', 0, handle.readOnly, { node: false }),
  op('READLINK', 0, handle.readlink, { fop: Fop.readlink }),
  op('SYMLINK', 0, handle.readOnly, { node: false }),
  op('MKNOD', 0, handle.readOnly, { node: false }),
  op('MKDIR', 0, handle.readOnly, { node: false }),
  op('UNLINK', 0, handle.readOnly, { node: false }),
  op('RMDIR', 0, handle.readOnly, { node: false }),
  op('RENAME', 0, handle.readOnly, { node: false }),
  op('LINK', 0, handle.readOnly, { node: false }),
  op('OPEN', openIn.size, handle.open),
  op('READ', readIn.size, handle.read, { fop: Fop.read }),
  op('WRITE', 0, handle.readOnly, { node: false }),
  op('STATFS', 0, handle.statfs),
  op('RELEASE', 0, handle.done, { node: false }),
  op('FSYNC', 0, handle.unsupported, { node: false }),
  op('SETXATTR', 0, handle.readOnly, { node: false }),
  op('GETXATTR', getxattrIn.size + NAME, handle.getxattr, { fop: Fop.getxattr }),
  op('LISTXATTR', getxattrIn.size, handle.listxattr, { fop: Fop.listxattr }),
  op('REMOVEXATTR', 0, handle.readOnly, { node: false }),
  op('FLUSH', 0, handle.unsupported, { node: false }),
  op('INIT', 8, init, { node: false }),
  op('OPENDIR', openIn.size, handle.opendir),
  op('READDIR', readIn.size, handle.readdir, { fop: Fop.readdir }),
  op('RELEASEDIR', 0, handle.done, { node: false }),
  op('FSYNCDIR', 0, handle.unsupported, { node: false }),
  op('GETLK', 0, handle.unsupported, { node: false }),
  op('SETLK', 0, handle.unsupported, { node: false }),
  op('SETLKW', 0, handle.unsupported, { node: false }),
  op('ACCESS', accessIn.size, handle.access, { fop: Fop.access }),
  op('CREATE', 0, handle.readOnly, { node: false }),
  op('INTERRUPT', interruptIn.size, handle.interrupt, { replies: false, node: false }),
  op('BMAP', 0, handle.unsupported, { node: false }),
  op('DESTROY', 0, handle.done, { node: false }),
  op('IOCTL', 0, handle.noDevice, { node: false }),
  op('POLL', 0, handle.unsupported, { node: false }),
  op('NOTIFY_REPLY', 0, handle.ignored, { replies: false, node: false }),
  op('BATCH_FORGET', batchForgetIn.size, handle.batchForget, { replies: false, node: false }),
  op('FALLOCATE', 0, handle.readOnly, { node: false }),
  op('READDIRPLUS', readIn.size, handle.readdirplus, { fop: Fop.readdirplus }),
  op('RENAME2', 0, handle.readOnly, { node: false }),
  op('LSEEK', 0, handle.unsupported, { node: false }),
  op('COPY_FILE_RANGE', 0, handle.readOnly, { node: false }),
  op('SETUPMAPPING', 0, handle.unsupported, { node: false }),
  op('REMOVEMAPPING', 0, handle.unsupported, { node: false }),
  op('SYNCFS', 0, handle.unsupported, { node: false }),
  op('TMPFILE', 0, handle.readOnly, { node: false }),
  op('STATX', 0, handle.unsupported, { node: false }),
  op('COPY_FILE_RANGE_64', 0, handle.readOnly, { node: false }),
];

/** Rows by opcode, with holes; for the dispatcher. */
export const OP_BY_NUMBER: readonly (Op | undefined)[] = Array.from({ length: MAX_OPCODE }, (_, number) =>
  OPS.find(({ opcode }) => opcode === number),
);
