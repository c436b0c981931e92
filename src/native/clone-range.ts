// Sharing the blocks of one file with another, where the filesystem can. Source: ioctl_ficlonerange(2); the number is the same
// on x86_64 and arm64.
import { lastErrno, libcFunction } from './libc.ts';

type Ioctl = (fd: number, request: number, argument: Uint8Array) => number;

/** _IOW(0x94, 13, struct file_clone_range) */
const FICLONERANGE = 0x4020_940d;

let ioctlCall: Ioctl | undefined;

/**
 * Make a range of a file share the blocks of another file. Offsets and length are multiples of the block size of the filesystem.
 *
 * @returns 0, or the errno: EOPNOTSUPP or EXDEV where that cannot be, EINVAL for offsets that do not fit
 */
export function cloneRange(
  target: number,
  targetOffset: number,
  source: number,
  sourceOffset: number,
  length: number,
): number {
  ioctlCall ??= libcFunction<Ioctl>('int ioctl(int fd, unsigned long request, void *arg)');
  // struct file_clone_range: source, its offset, length, offset in the target
  const argument = Buffer.alloc(32);
  argument.writeBigInt64LE(BigInt(source), 0);
  argument.writeBigUInt64LE(BigInt(sourceOffset), 8);
  argument.writeBigUInt64LE(BigInt(length), 16);
  argument.writeBigUInt64LE(BigInt(targetOffset), 24);
  return ioctlCall(target, FICLONERANGE, argument) === 0 ? 0 : lastErrno();
}
