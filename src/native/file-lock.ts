// Locks that belong to an open file description: the kernel drops them when its last descriptor is closed, so also after
// kill -9, and turning a shared one into an exclusive one that is refused leaves the shared one. Source: fcntl(2), F_OFD_SETLK.
// And leases, which tell whether anybody else has a file open. Source: fcntl(2), F_SETLEASE.
import { lastErrno, libcFunction } from './libc.ts';

type Fcntl = (fd: number, command: number, lock: Uint8Array) => number;

const F_OFD_SETLK = 37;
/** struct flock of 64-bit Linux: type, whence, 4 bytes of padding, start, length, pid */
const FLOCK_SIZE = 32;
const TYPES = { shared: 0, exclusive: 1, none: 2 } as const;

let fcntl: Fcntl | undefined;

/**
 * Lock a whole file, change the lock or give it back; never waits.
 *
 * @param kind `exclusive` needs a descriptor that is open for writing
 * @returns 0, or the errno: EAGAIN when others hold it, EINVAL or ENOLCK where the filesystem has no locks
 */
export function lockFile(fd: number, kind: keyof typeof TYPES): number {
  fcntl ??= libcFunction<Fcntl>('int fcntl(int fd, int command, void *lock)');
  const lock = Buffer.alloc(FLOCK_SIZE);
  lock.writeInt16LE(TYPES[kind], 0);
  return fcntl(fd, F_OFD_SETLK, lock) === 0 ? 0 : lastErrno();
}

type FcntlWord = (fd: number, command: number, word: number) => number;

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_WRLCK = 1;
/** Sent to whoever holds a lease that another process wants broken; ignored by default, the usual SIGIO would end the process. */
const SIGURG = 23;

let fcntlWord: FcntlWord | undefined;

/**
 * Take a write lease on a file: it is granted only where nobody else has the file open or mapped, whoever that is and whether or
 * not he takes locks, and until the descriptor is closed an `open` of it waits. Do not keep it for longer than a moment.
 *
 * @param fd open for writing, the only descriptor of this process for that file
 * @returns 0, or the errno: EAGAIN when others have it open, EINVAL or ENOLCK where the filesystem has no leases
 */
export function leaseFile(fd: number): number {
  fcntlWord ??= libcFunction<FcntlWord>('int fcntl(int fd, int command, int word)');
  if (fcntlWord(fd, F_SETSIG, SIGURG) !== 0) return lastErrno();
  return fcntlWord(fd, F_SETLEASE, F_WRLCK) === 0 ? 0 : lastErrno();
}
