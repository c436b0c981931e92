// A supervisor as the snapshotter has one: it listens once per exchange, keeps state and first descriptor, understands neither.
// Source: nydus-image-and-nydusify.md 12.3, nydusd.md 12.1.
import { closeSync, rmSync } from 'node:fs';
import { listenUnix, acceptUnix } from './unix-listener.ts';
import { receiveWithFds, sendWithFds } from '../../src/native/fd-passing.ts';
import { tryWrite } from '../../src/native/descriptor.ts';
import { lastErrno, SystemError } from '../../src/native/libc.ts';
import { constants } from 'node:os';

const { EAGAIN } = constants.errno;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function patiently<T>(attempt: () => T): Promise<T> {
  for (const deadline = performance.now() + 10_000; ;) {
    try {
      return attempt();
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== EAGAIN || performance.now() > deadline)
        throw error;
    }
    await sleep(1);
  }
}

/** Keeps what a daemon sent until another one asks. */
export class Supervisor {
  readonly path: string;
  state: Buffer | undefined;
  fd = -1;

  constructor(path: string) {
    this.path = path;
  }

  async #once<T>(exchange: (socket: number) => Promise<T>): Promise<T> {
    rmSync(this.path, { force: true });
    const listener = listenUnix(this.path);
    try {
      const socket = await patiently(() => acceptUnix(listener));
      try {
        return await exchange(socket);
      } finally {
        closeSync(socket);
      }
    } finally {
      closeSync(listener);
      rmSync(this.path, { force: true });
    }
  }

  /** Listen at once; resolves when a daemon has sent its state. */
  receive(): Promise<void> {
    return this.#once(async (socket) => {
      const pieces: Buffer[] = [];
      const fds: number[] = [];
      for (;;) {
        const message = await patiently(() => receiveWithFds(socket));
        fds.push(...message.fds);
        if (message.bytes.length === 0) break;
        pieces.push(message.bytes);
      }
      const [fd, ...more] = fds;
      for (const extra of more) closeSync(extra);
      if (fd === undefined) throw new Error('no descriptor came');
      this.close();
      this.fd = fd;
      this.state = Buffer.concat(pieces);
    });
  }

  /** Listen at once; resolves when a daemon has fetched the state. */
  send(): Promise<void> {
    if (this.state === undefined) throw new Error('there is no state to send');
    return this.sendBytes(this.state, [this.fd]);
  }

  /** Send anything. */
  sendBytes(bytes: Buffer, fds: readonly number[]): Promise<void> {
    return this.#once(async (socket) => {
      let at = await patiently(() => sendWithFds(socket, bytes.subarray(0, 32_768), fds));
      while (at < bytes.length) {
        at += await patiently(() => {
          const count = tryWrite(socket, bytes.subarray(at));
          if (count < 0) throw new SystemError('write', lastErrno());
          return count;
        });
      }
    });
  }

  /** Let go of the descriptor. */
  close(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }
}
