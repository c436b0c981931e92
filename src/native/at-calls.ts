// System calls on directory descriptors and addresses, for a file server: names lie in the request, nothing is copied. Every
// function returns what C returns, or minus the errno; nothing throws. Source: the man pages of section 2.
import { lastErrno, libcFunction } from './libc.ts';

export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_SYMLINK_FOLLOW = 0x400;
export const AT_REMOVEDIR = 0x200;
export const O_PATH = 0x20_0000;
export const O_CLOEXEC = 0x8_0000;
/** O_TMPFILE without O_DIRECTORY, which differs between architectures. */
export const O_TMPFILE_BIT = 0x40_0000;
/** Size of the buffer `statxAt` fills. */
export const STATX_SIZE = 256;

const STATX_BASIC_STATS = 0x7ff;

type Call = (...args: (number | bigint)[]) => number | bigint;

/** A C function that is looked up at its first call. */
function lazy(prototype: string): (...args: (number | bigint)[]) => number {
  let call: Call | undefined;
  return (...args) => {
    call ??= libcFunction<Call>(prototype);
    const result = Number(call(...args));
    return result < 0 ? -lastErrno() : result;
  };
}

/** Names are addresses of NUL-terminated bytes. */
export const openAt = lazy('int openat(int dir, uintptr_t name, int flags, unsigned int mode)');
export const mkdirAt = lazy('int mkdirat(int dir, uintptr_t name, unsigned int mode)');
export const mknodAt = lazy('int mknodat(int dir, uintptr_t name, unsigned int mode, uint64_t device)');
export const symlinkAt = lazy('int symlinkat(uintptr_t target, int dir, uintptr_t name)');
export const linkAt = lazy('int linkat(int from, uintptr_t name, int to, uintptr_t newName, int flags)');
export const unlinkAt = lazy('int unlinkat(int dir, uintptr_t name, int flags)');
export const renameAt2 = lazy(
  'int renameat2(int from, uintptr_t name, int to, uintptr_t newName, unsigned int flags)',
);
export const readlinkAt = lazy('int64_t readlinkat(int dir, uintptr_t name, uintptr_t target, size_t size)');
/** Owner and group 0xffff_ffff stay as they are. */
export const chownAt = lazy(
  'int fchownat(int dir, uintptr_t name, unsigned int uid, unsigned int gid, int flags)',
);
export const chmodPath = lazy('int chmod(uintptr_t path, unsigned int mode)');
export const utimensAt = lazy('int utimensat(int dir, uintptr_t name, uintptr_t times, int flags)');
export const getxattrPath = lazy(
  'int64_t getxattr(uintptr_t path, uintptr_t name, uintptr_t value, size_t size)',
);
export const listxattrPath = lazy('int64_t listxattr(uintptr_t path, uintptr_t list, size_t size)');
export const setxattrPath = lazy(
  'int setxattr(uintptr_t path, uintptr_t name, uintptr_t value, size_t size, int flags)',
);
export const removexattrPath = lazy('int removexattr(uintptr_t path, uintptr_t name)');
export const closeFd = lazy('int close(int fd)');
export const dupFd = lazy('int dup(int fd)');
export const truncateFd = lazy('int ftruncate(int fd, int64_t size)');
export const fsyncFd = lazy('int fsync(int fd)');
export const fdatasyncFd = lazy('int fdatasync(int fd)');
export const seekFd = lazy('int64_t lseek(int fd, int64_t offset, int whence)');
export const fallocateFd = lazy('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
export const copyFileRange = lazy(
  'int64_t copy_file_range(int from, uintptr_t offsetIn, int to, uintptr_t offsetOut, size_t length, unsigned int flags)',
);

const statxCall = lazy('int statx(int dir, uintptr_t name, int flags, unsigned int mask, uintptr_t buffer)');

/** Attributes of a name below a directory, links not followed, or of the descriptor itself when the name is empty. */
export function statxAt(dir: number, name: number, buffer: number): number {
  return statxCall(dir, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, buffer);
}

const SYS_GETDENTS64 = process.arch === 'x64' ? 217 : 61;

const syscall3 = lazy('int64_t syscall(int64_t number, int64_t first, uintptr_t second, size_t third)');

/** Read entries of a directory into a buffer: bytes, 0 at its end. */
export function getdents(fd: number, buffer: number, size: number): number {
  return syscall3(SYS_GETDENTS64, fd, buffer, size);
}
