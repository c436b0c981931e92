// Messages to the kernel that nobody asked for: forget what you cached. Endless cache times make them a duty.
// They are written on a thread of libuv: the kernel may wait, inside the write, for pages whose reads this process answers.
// Source: include/uapi/linux/fuse.h (struct fuse_notify_*), kernel fs/fuse/{dev,inode,dir}.c.
import { write } from 'node:fs';
import { constants } from 'node:os';
import { SystemError } from '../../native/libc.ts';
import { INC_EPOCH_MINOR, Notify, ROOT_NODEID } from '../opcodes.ts';
import { notifyInvalEntry, notifyInvalInode, outHeader } from '../protocol.ts';

const { ENOENT, ENOTDIR } = constants.errno;

function send(fd: number, code: number, parts: readonly Uint8Array[]): Promise<void> {
  const body = Buffer.concat(parts);
  const head = outHeader.encode({ len: outHeader.size + body.length, error: code, unique: 0n });
  return new Promise((resolve, reject) => {
    write(fd, Buffer.concat([head, body]), (error: NodeJS.ErrnoException | null) => {
      // ENOENT: the kernel had nothing cached; ENOTDIR: the parent is no directory in its eyes
      const errno = Math.abs(error?.errno ?? 0);
      if (errno === 0 || errno === ENOENT || errno === ENOTDIR) resolve();
      else reject(new SystemError('write', errno, 'FUSE notification'));
    });
  });
}

/** Drop the attributes of an inode, and its pages when `pages` is set. */
export function invalidateInode(fd: number, nodeid: bigint, pages: boolean): Promise<void> {
  const body = notifyInvalInode.encode({ ino: nodeid });
  // a negative offset means: attributes only
  if (!pages) body.writeBigInt64LE(-1n, notifyInvalInode.layout[1]?.offset ?? 0);
  return send(fd, Notify.INVAL_INODE, [body]);
}

/** Drop a name and everything below it. */
export function invalidateEntry(fd: number, parent: bigint, name: Uint8Array): Promise<void> {
  const body = notifyInvalEntry.encode({ parent, namelen: name.length });
  return send(fd, Notify.INVAL_ENTRY, [body, name, Buffer.of(0)]);
}

/** Have every cached name looked up again, absent names too (kernel 6.16). */
export function advanceEpoch(fd: number): Promise<void> {
  return send(fd, Notify.INC_EPOCH, []);
}

/** Have every request that was read and not answered handed out again (kernel 6.9). */
export function resendRequests(fd: number): Promise<void> {
  return send(fd, Notify.RESEND, []);
}

/**
 * Make the kernel forget a tree whose root is the root of the mount: names below it first, then the root itself.
 *
 * @param minor protocol minor in use
 * @param names entries of the old root directory
 */
export async function invalidateTree(fd: number, minor: number, names: readonly Uint8Array[]): Promise<void> {
  for (const name of names) await invalidateEntry(fd, BigInt(ROOT_NODEID), name);
  if (minor >= INC_EPOCH_MINOR) await advanceEpoch(fd);
  await invalidateInode(fd, BigInt(ROOT_NODEID), true);
}
