// The two exchanges with a supervisor, which keeps a state and a descriptor between two daemons. The daemon always connects;
// there is no framing: the end of the stream is the end of the state. Source: nydusd.md 12.1-12.3.
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { messageOf } from '../../base/errors.ts';
import { tryWrite } from '../../native/descriptor.ts';
import { receiveWithFds, sendWithFds } from '../../native/fd-passing.ts';
import { lastErrno, SystemError } from '../../native/libc.ts';
import { connectUnix } from '../../native/unix-socket.ts';
import { MAX_STATE_SIZE } from './envelope.ts';

const { EAGAIN, EINTR, EPIPE } = constants.errno;

/** How long a supervisor may take; clients of the API give up after 30 s. */
export const EXCHANGE_TIMEOUT_MS = 10_000;
/** Bytes that go with the descriptor, and of each message received. */
const MESSAGE_SIZE = 32_768;
const PAUSE_MS = 1;

/** A saved state with the descriptor that belongs to it. */
export interface Received {
  bytes: Buffer;
  fd: number;
  /** descriptors that came and were closed */
  extra: number;
}

/** Try something on a non-blocking socket until it is done. */
async function patiently<T>(attempt: () => T, deadline: number): Promise<T> {
  for (;;) {
    try {
      return attempt();
    } catch (error) {
      const waits = error instanceof SystemError && (error.errno === EAGAIN || error.errno === EINTR);
      if (!waits) throw error;
      if (performance.now() > deadline)
        throw new Error(`the supervisor does not answer within ${EXCHANGE_TIMEOUT_MS} ms`, { cause: error });
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Nobody listens where the supervisor should be; `cause` says why. */
export class SupervisorUnreachable extends Error {
  constructor(path: string, cause: unknown) {
    super(`cannot reach the supervisor at ${path}: ${messageOf(cause)}`, { cause });
    this.name = 'SupervisorUnreachable';
  }
}

async function connected<T>(
  path: string,
  exchange: (socket: number, deadline: number) => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + EXCHANGE_TIMEOUT_MS;
  let socket: number;
  try {
    socket = await patiently(() => connectUnix(path), deadline);
  } catch (error) {
    throw new SupervisorUnreachable(path, error);
  }
  try {
    return await exchange(socket, deadline);
  } finally {
    closeSync(socket);
  }
}

/** Give a state and one descriptor to the supervisor. Returns when the bytes are written: there is no answer. */
export function sendState(path: string, bytes: Buffer, fd: number): Promise<void> {
  return connected(path, async (socket, deadline) => {
    const head = bytes.subarray(0, MESSAGE_SIZE);
    let at = await patiently(() => sendWithFds(socket, head, [fd]), deadline);
    while (at < bytes.length) {
      const rest = bytes.subarray(at);
      at += await patiently(() => {
        const count = tryWrite(socket, rest);
        if (count < 0) throw new SystemError('write', lastErrno() || EPIPE, path);
        return count;
      }, deadline);
    }
  });
}

/**
 * Get a state and its descriptor from the supervisor.
 *
 * @throws Error  nobody listens, no descriptor came, or too many bytes
 */
export function receiveState(path: string): Promise<Received> {
  return connected(path, async (socket, deadline) => {
    const pieces: Buffer[] = [];
    const fds: number[] = [];
    let size = 0;
    try {
      for (;;) {
        const message = await patiently(() => receiveWithFds(socket, MESSAGE_SIZE), deadline);
        fds.push(...message.fds);
        if (message.bytes.length === 0) break;
        size += message.bytes.length;
        if (size > MAX_STATE_SIZE) throw new Error(`the state has more than ${MAX_STATE_SIZE} bytes`);
        pieces.push(message.bytes);
      }
      const fd = fds.shift();
      if (fd === undefined) throw new Error('the supervisor sent no descriptor');
      for (const extra of fds) closeSync(extra);
      return { bytes: Buffer.concat(pieces), fd, extra: fds.length };
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  });
}
