// Open files sent between processes over a Unix socket. Source: unix(7) SCM_RIGHTS, recvmsg(2), cmsg(3).
// Layouts are those of 64-bit Linux, the same on x86_64 and arm64.
import { check, libcFunction, SystemError } from './libc.ts';
import { allocateMemory, type Memory } from './memory.ts';
import { constants } from 'node:os';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const SO_PEEK_OFF = 42;

/** Most descriptors accepted in one message. */
export const MAX_RECEIVED_FDS = 16;

// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags; the iovec and the control area follow it
const MSGHDR = { iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48, size: 56 };
const IOVEC_AT = 64;
const CONTROL_AT = 128;
const CONTROL_SIZE = 16 + MAX_RECEIVED_FDS * 4;
const DATA_AT = 512;

type SocketPair = (domain: number, type: number, protocol: number, pair: Uint8Array) => number;
type Message = (fd: number, message: number, flags: number) => number;
type SetOption = (fd: number, level: number, option: number, value: Uint8Array, size: number) => number;

let socketPairCall: SocketPair | undefined;
let receiveCall: Message | undefined;
let sendCall: Message | undefined;
let memory: Memory | undefined;

/** A pair of connected stream sockets, closed on exec. */
export function socketPair(): [number, number] {
  socketPairCall ??= libcFunction<SocketPair>('int socketpair(int domain, int type, int protocol, void *sv)');
  const pair = Buffer.alloc(8);
  check('socketpair', socketPairCall(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

function prepare(dataSize: number, controlSize: number): Memory {
  memory ??= allocateMemory(65536);
  const { view, bytes, address } = memory;
  bytes.fill(0, 0, DATA_AT);
  const pointer = (at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);
  pointer(MSGHDR.iov, address + IOVEC_AT);
  pointer(MSGHDR.iovlen, 1);
  pointer(MSGHDR.control, address + CONTROL_AT);
  pointer(MSGHDR.controllen, controlSize);
  pointer(IOVEC_AT, address + DATA_AT);
  pointer(IOVEC_AT + 8, dataSize);
  return memory;
}

/**
 * Receive one message: its bytes (at most 32 KiB) and the descriptors that came with it, closed on exec.
 * Blocks on a blocking socket. No bytes and no descriptors = the peer has closed.
 */
export function receiveWithFds(socket: number, maxBytes = 32768): { bytes: Buffer; fds: number[] } {
  return receive(socket, maxBytes, 0);
}

/** Have `peekWithFds` begin with the first message in the queue. */
export function peekFromStart(socket: number): void {
  const set = libcFunction<SetOption>(
    'int setsockopt(int fd, int level, int option, void *value, unsigned int size)',
  );
  check('setsockopt', set(socket, SOL_SOCKET, SO_PEEK_OFF, Buffer.alloc(4), 4), 'SO_PEEK_OFF');
}

/** The next message as `receiveWithFds` gives it, which stays in the queue. SystemError EAGAIN: there is none yet. */
export function peekWithFds(socket: number): { bytes: Buffer; fds: number[] } {
  return receive(socket, 32768, MSG_PEEK | MSG_DONTWAIT);
}

function receive(socket: number, maxBytes: number, flags: number): { bytes: Buffer; fds: number[] } {
  receiveCall ??= libcFunction<Message>('int64_t recvmsg(int sockfd, uintptr_t msg, int flags)');
  const { view, bytes, address } = prepare(Math.min(maxBytes, 32768), CONTROL_SIZE);
  const count = check('recvmsg', receiveCall(socket, address, MSG_CMSG_CLOEXEC | flags));
  const fds: number[] = [];
  const controlEnd = CONTROL_AT + Number(view.getBigUint64(MSGHDR.controllen, true));
  for (let at = CONTROL_AT; at + 16 <= controlEnd;) {
    const length = Number(view.getBigUint64(at, true));
    if (length < 16) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let fd = at + 16; fd + 4 <= Math.min(at + length, controlEnd); fd += 4)
        fds.push(view.getInt32(fd, true));
    }
    at += Math.ceil(length / 8) * 8;
  }
  return { bytes: Buffer.from(bytes.subarray(DATA_AT, DATA_AT + count)), fds };
}

/** Send bytes (1 to 32 KiB) and descriptors in one message. Returns the number of bytes that were taken. */
export function sendWithFds(socket: number, data: Uint8Array, fds: readonly number[]): number {
  if (data.length === 0 || data.length > 32768 || fds.length > MAX_RECEIVED_FDS) {
    throw new SystemError(
      'sendmsg',
      constants.errno.EINVAL,
      `${data.length} bytes, ${fds.length} descriptors`,
    );
  }
  sendCall ??= libcFunction<Message>('int64_t sendmsg(int sockfd, uintptr_t msg, int flags)');
  const length = 16 + fds.length * 4;
  const { view, bytes, address } = prepare(data.length, fds.length === 0 ? 0 : Math.ceil(length / 8) * 8);
  view.setBigUint64(CONTROL_AT, BigInt(length), true);
  view.setInt32(CONTROL_AT + 8, SOL_SOCKET, true);
  view.setInt32(CONTROL_AT + 12, SCM_RIGHTS, true);
  fds.forEach((fd, index) => view.setInt32(CONTROL_AT + 16 + index * 4, fd, true));
  bytes.set(data, DATA_AT);
  return check('sendmsg', sendCall(socket, address, 0));
}
