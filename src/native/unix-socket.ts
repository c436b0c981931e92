// Connecting to a Unix socket as a plain descriptor: node's own sockets read without looking for descriptors that come along.
// Source: socket(2), connect(2), unix(7).
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { check, libcFunction, SystemError } from './libc.ts';

const AF_UNIX = 1;
const SOCK_TYPES = { stream: 1, datagram: 2 } as const;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
/** Bytes of sun_path; one is for the NUL at the end. */
const PATH_SIZE = 108;

type Socket = (domain: number, type: number, protocol: number) => number;
type Connect = (fd: number, address: Uint8Array, size: number) => number;

/**
 * A connected socket, non-blocking, closed on exec.
 *
 * @param path an abstract name begins with `@`
 * @throws SystemError ENOENT, ECONNREFUSED: nobody listens; EAGAIN: too many wait; ENAMETOOLONG
 */
export function connectUnix(path: string, type: keyof typeof SOCK_TYPES = 'stream'): number {
  const name = Buffer.from(path);
  if (name.length >= PATH_SIZE) throw new SystemError('connect', constants.errno.ENAMETOOLONG, path);
  const address = Buffer.alloc(2 + PATH_SIZE);
  address.writeUInt16LE(AF_UNIX);
  name.copy(address, 2);
  const isAbstract = path.startsWith('@');
  if (isAbstract) address[2] = 0;
  const socket = libcFunction<Socket>('int socket(int domain, int type, int protocol)');
  const connect = libcFunction<Connect>('int connect(int fd, void *address, unsigned int size)');
  const fd = check('socket', socket(AF_UNIX, SOCK_TYPES[type] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  try {
    check('connect', connect(fd, address, 2 + name.length + (isAbstract ? 0 : 1)), path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
