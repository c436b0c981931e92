// A listening Unix socket as a plain descriptor, for tests that pass open files. Source: bind(2), listen(2), accept4(2).
import { check, libcFunction } from '../../src/native/libc.ts';

const NON_BLOCKING = 0o2000000 | 0o4000;

/** Bind and listen. */
export function listenUnix(path: string): number {
  const fd = bindUnix(path, 1);
  const listen = libcFunction<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)');
  check('listen', listen(fd, 8));
  return fd;
}

/** A socket that datagrams come to. */
export function bindDatagram(path: string): number {
  return bindUnix(path, 2);
}

function bindUnix(path: string, type: number): number {
  const name = Buffer.from(path);
  const address = Buffer.alloc(110);
  address.writeUInt16LE(1);
  name.copy(address, 2, 0, 107);
  const socket = libcFunction<(a: number, b: number, c: number) => number>(
    'int socket(int domain, int type, int protocol)',
  );
  const bind = libcFunction<(fd: number, address: Uint8Array, size: number) => number>(
    'int bind(int fd, void *address, unsigned int size)',
  );
  const fd = check('socket', socket(1, type | NON_BLOCKING, 0));
  check('bind', bind(fd, address, 3 + name.length), path);
  return fd;
}

/** The next connection. SystemError EAGAIN: there is none. */
export function acceptUnix(listener: number): number {
  const accept = libcFunction<(fd: number, a: number, b: number, flags: number) => number>(
    'int accept4(int fd, uintptr_t address, uintptr_t size, int flags)',
  );
  return check('accept4', accept(listener, 0, 0, NON_BLOCKING));
}
