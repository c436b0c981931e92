// Gives a stream to a build that reads a path: a named pipe, written without blocking a thread of the pool, of which
// there are four and of which a reader of a pipe holds one.
import { once } from 'node:events';
import { closeSync, constants, openSync, renameSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Between two looks whether the reader has opened the pipe. */
const POLL_MS = 2;

/** Open for writing once there is a reader. */
async function openWriter(path: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await sleep(POLL_MS);
  }
}

/** Waits between the wake-ups of `retireFifo`: a reader may be on its way from the path to the pipe. */
const WAKE_MS = [0, 5, 20, 50];

/**
 * Take a pipe away from a reader whose work was given up: one that waits in open(2) or read(2) sees the end, one that
 * comes later finds no file. A thread left waiting would keep the process from ending.
 */
export async function retireFifo(path: string): Promise<void> {
  const retired = `${path}.retired`;
  renameSync(path, retired);
  for (const ms of WAKE_MS) {
    await sleep(ms);
    closeSync(openSync(retired, constants.O_RDWR | constants.O_NONBLOCK));
  }
  rmSync(retired);
}

/**
 * Write all chunks into a named pipe, then close it.
 *
 * @throws what the chunks throw, EPIPE when the reader goes away, or the reason of the signal
 */
export async function feedFifo(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const socket = new Socket({ fd: await openWriter(path, signal), readable: false, writable: true });
  const closed = once(socket, 'close').catch(() => {});
  let failure: Error | undefined;
  socket.on('error', (error) => (failure ??= error));
  const stop = (): void => void socket.destroy();
  signal.addEventListener('abort', stop);
  try {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      if (failure !== undefined) throw failure;
      // the next read may reuse nothing of this one: streams hand out buffers of their own
      if (!socket.write(chunk)) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
    }
    signal.throwIfAborted();
    if (failure !== undefined) throw failure;
    socket.end();
    await closed;
    signal.throwIfAborted();
    if (failure !== undefined) throw failure;
  } finally {
    signal.removeEventListener('abort', stop);
    socket.destroy();
  }
}
