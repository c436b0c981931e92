// System calls on file descriptors that node:fs lacks or that must not throw: read and write by address, poll, eventfd.
// Source: read(2), write(2), poll(2), eventfd(2), fcntl(2).
import { check, libcFunction } from './libc.ts';
import { allocateMemory, type Memory } from './memory.ts';

export const EFD_CLOEXEC = 0o2000000;
export const EFD_NONBLOCK = 0o4000;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;

/** Events of poll(2). */
export const POLLIN = 0x1;
export const POLLERR = 0x8;
export const POLLHUP = 0x10;
export const POLLNVAL = 0x20;

/** Bytes moved, or -1 and errno. `address` points into memory from `allocateMemory`. */
export type ReadByAddress = (fd: number, address: number, size: number) => number;

/** read(2) without an allocation; for hot loops. Get it once and keep it. */
export function readByAddress(): ReadByAddress {
  return libcFunction<ReadByAddress>('int64_t read(int fd, uintptr_t buf, size_t count)');
}

/** write(2) without an allocation; for hot loops. Get it once and keep it. */
export function writeByAddress(): ReadByAddress {
  return libcFunction<ReadByAddress>('int64_t write(int fd, uintptr_t buf, size_t count)');
}

type Eventfd = (initial: number, flags: number) => number;
type Fcntl = (fd: number, command: number, argument: number) => number;
type Poll = (fds: number, count: number, timeoutMs: number) => number;
type Write = (fd: number, bytes: Uint8Array, count: number) => number;

let eventfdCall: Eventfd | undefined;
let fcntlCall: Fcntl | undefined;
let writeCall: Write | undefined;

/** write(2) of bytes; the number written, or -1 and errno. Does not throw: some failures are answers. */
export function tryWrite(fd: number, bytes: Uint8Array): number {
  writeCall ??= libcFunction<Write>('int64_t write(int fd, void *buf, size_t count)');
  return writeCall(fd, bytes, bytes.byteLength);
}

/** A new eventfd, closed on exec, non-blocking. */
export function createEventfd(): number {
  eventfdCall ??= libcFunction<Eventfd>('int eventfd(unsigned int initval, int flags)');
  return check('eventfd', eventfdCall(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

const one = Buffer.of(1, 0, 0, 0, 0, 0, 0, 0);

/** Add 1 to an eventfd: whoever polls it wakes up. */
export function signalEventfd(fd: number): void {
  check('write', tryWrite(fd, one), 'eventfd');
}

/** Set or clear O_NONBLOCK on an open file description. */
export function setNonBlocking(fd: number, on: boolean): void {
  // F_SETFL's argument is variadic in C; both ABIs we run on pass an int there like a named one
  fcntlCall ??= libcFunction<Fcntl>('int fcntl(int fd, int cmd, int arg)');
  const flags = check('fcntl', fcntlCall(fd, F_GETFL, 0));
  check('fcntl', fcntlCall(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

/** poll(2) over a fixed set of descriptors, made once: a call allocates nothing. */
export class Poller {
  readonly #fds: readonly number[];
  readonly #memory: Memory;
  readonly #poll: Poll;

  /** Wait for input on each of these. */
  constructor(fds: readonly number[]) {
    this.#fds = fds;
    this.#memory = allocateMemory(Math.max(1, fds.length) * 8);
    this.#poll = libcFunction<Poll>('int poll(uintptr_t fds, unsigned long nfds, int timeout)');
    fds.forEach((fd, index) => {
      this.#memory.view.setInt32(index * 8, fd, true);
      this.#memory.view.setInt16(index * 8 + 4, POLLIN, true);
    });
  }

  /** Descriptors that are ready; 0 after `timeoutMs` (-1 = no limit); -1 and errno, EINTR included. */
  wait(timeoutMs: number): number {
    return this.#poll(this.#memory.address, this.#fds.length, timeoutMs);
  }

  /** Events of the descriptor at a place of the constructor's list, after `wait`. */
  events(index: number): number {
    return this.#memory.view.getInt16(index * 8 + 6, true);
  }
}

const F_SETLK = 6;
const F_DUPFD_CLOEXEC = 1030;
const O_CLOEXEC = 0o2000000;

type Dup3 = (from: number, to: number, flags: number) => number;
type FcntlLock = (fd: number, command: number, lock: Uint8Array) => number;

/** Another number for the same open file, closed on exec. */
export function duplicateDescriptor(fd: number): number {
  fcntlCall ??= libcFunction<Fcntl>('int fcntl(int fd, int cmd, int arg)');
  return check('fcntl', fcntlCall(fd, F_DUPFD_CLOEXEC, 0), 'F_DUPFD_CLOEXEC');
}

/** Make a number mean the same open file as another one, closed on exec. What it meant before is closed. */
export function duplicateTo(fd: number, number: number): void {
  check('dup3', libcFunction<Dup3>('int dup3(int from, int to, int flags)')(fd, number, O_CLOEXEC));
}

/**
 * Lock a whole file for this process, which keeps the lock until it ends (or closes any descriptor of that file).
 *
 * @returns false when another process has it. Source: fcntl(2), "Advisory record locking"
 */
export function lockForProcess(fd: number): boolean {
  const lock = Buffer.alloc(32); // struct flock: F_WRLCK, SEEK_SET, the whole file
  lock.writeInt16LE(1, 0);
  return libcFunction<FcntlLock>('int fcntl(int fd, int cmd, void *lock)')(fd, F_SETLK, lock) === 0;
}
