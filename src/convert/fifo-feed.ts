// Gives a stream to a build that reads a path: a named pipe, written without blocking a thread of the pool, of which
// there are four and of which a reader of a pipe holds one.
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
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

/** Let a reader go that waits for a writer, or for more bytes: it sees the end. */
export function releaseReader(path: string): void {
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK));
  } catch {
    // the pipe is gone, and so is its reader
  }
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
