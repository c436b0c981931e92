// Another builder in place of ours: `nydus-image` programs as upstream's libraries call them, one process for each layer
// and each merge. Source: nydus-image-and-nydusify.md 6.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, openSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { UsageError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { decodedTar } from '../build/source-tar.ts';
import { makeFifo } from '../native/fifo.ts';
import type { BlobOptions } from './layer.ts';

/** Between two looks whether the builder has opened its input. */
const POLL_MS = 2;
/** Of what a builder says, so much is kept to explain a failure. */
const MAX_TAIL = 4096;

interface Ended {
  status: number | null;
  signal: NodeJS.Signals | null;
  tail: string;
}

/** A builder that runs as a process. */
export class ExternalBuilder {
  readonly program: string;
  readonly #logger: Logger;

  constructor(program: string, logger: Logger) {
    this.program = program;
    this.#logger = logger;
  }

  /** @throws UsageError it cannot be run */
  async probe(signal: AbortSignal): Promise<void> {
    const { status } = await this.#run(['create', '-h'], '', signal);
    if (status !== 0)
      throw new UsageError(`${this.program} create -h ended with status ${status}`, {
        exitCode: 1,
        hint: 'name a nydus-image program with --nydus-image, or leave it out to build in process',
      });
  }

  #start(args: string[], stdin: string, signal: AbortSignal): { ended: Promise<Ended> } {
    this.#logger.debug(`${this.program} ${args.join(' ')}`);
    const child = spawn(this.program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const stop = (): void => void child.kill('SIGTERM');
    signal.addEventListener('abort', stop);
    let tail = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (piece: Buffer) => {
        tail = (tail + piece.toString()).slice(-MAX_TAIL);
        for (const line of piece.toString().trimEnd().split('\n')) this.#logger.debug(`builder: ${line}`);
      });
    child.stdin.on('error', () => {}); // it ended without reading
    child.stdin.end(stdin);
    const ended = new Promise<Ended>((resolve, reject) => {
      child.on('error', (error) =>
        reject(
          new UsageError(`cannot run ${this.program}: ${messageOf(error)}`, { exitCode: 1, cause: error }),
        ),
      );
      child.on('close', (status, killed) => resolve({ status, signal: killed, tail }));
    }).finally(() => signal.removeEventListener('abort', stop));
    ended.catch(() => {});
    return { ended };
  }

  async #run(args: string[], stdin: string, signal: AbortSignal): Promise<Ended> {
    signal.throwIfAborted();
    const ended = await this.#start(args, stdin, signal).ended;
    signal.throwIfAborted();
    return ended;
  }

  #failed(what: string, { status, signal, tail }: Ended): UsageError {
    const last = tail.trimEnd().split('\n').at(-1) ?? '';
    return new UsageError(`${this.program} ${what} ended with ${signal ?? `status ${status}`}: ${last}`, {
      exitCode: status === 2 ? 2 : 1,
      hint: 'the log at level debug has all that it said',
    });
  }

  /**
   * Build a layer into a file.
   *
   * @param input bytes of the layer, compressed or not
   * @throws UsageError the builder failed; what the input throws
   */
  async buildLayer(
    input: AsyncIterable<Uint8Array>,
    blob: string,
    options: BlobOptions,
    chunkDict: string | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { version, compressor, alignedChunk, chunkSize, batchSize, prefetchPatterns } = options;
    const fifo = `${blob}.fifo`;
    makeFifo(fifo, 0o640);
    const args = ['create', '--log-level', 'warn', '--prefetch-policy', 'fs', '--blob', blob];
    args.push('--whiteout-spec', 'none', '--fs-version', String(version), '--type', 'tar-rafs');
    args.push('--blob-inline-meta', ...(version === 6 ? ['--features', 'blob-toc'] : []));
    if (chunkDict !== undefined) args.push('--chunk-dict', `bootstrap=${chunkDict}`);
    args.push('--compressor', compressor, ...(alignedChunk ? ['--aligned-chunk'] : []));
    args.push('--chunk-size', `0x${chunkSize.toString(16)}`);
    if (batchSize > 0) args.push('--batch-size', `0x${batchSize.toString(16)}`);
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    try {
      const { ended } = this.#start([...args, fifo], prefetchPatterns.join('\n'), both);
      let over = false;
      const building = ended.then((end) => {
        over = true;
        if (end.status !== 0) throw this.#failed('create', end);
      });
      building.catch(() => (over = true));
      const feeding = feed(fifo, decodedTar(input[Symbol.asyncIterator](), both), both, () => over);
      // what goes wrong with the input ends the builder, which waits for it
      feeding.catch((error: unknown) => stop.abort(error));
      const [built, fed] = await Promise.allSettled([building, feeding]);
      signal.throwIfAborted();
      const piped = fed.status === 'rejected' && (fed.reason as NodeJS.ErrnoException).code === 'EPIPE';
      if (fed.status === 'rejected' && !piped) throw fed.reason;
      if (built.status === 'rejected') throw built.reason;
      if (fed.status === 'rejected') throw fed.reason;
    } finally {
      await rm(fifo, { force: true });
    }
  }

  /** Merge layer bootstraps. @returns ids of the blobs that the result names */
  async merge(
    sources: readonly string[],
    bootstrap: string,
    chunkDict: string | undefined,
    patterns: readonly string[],
    signal: AbortSignal,
  ): Promise<string[]> {
    const json = `${bootstrap}.json`;
    const args = ['merge', '--log-level', 'warn', '--prefetch-policy', 'fs', '--output-json', json];
    args.push('--bootstrap', bootstrap);
    if (chunkDict !== undefined) args.push('--chunk-dict', `bootstrap=${chunkDict}`);
    const end = await this.#run([...args, ...sources], patterns.join('\n'), signal);
    if (end.status !== 0) throw this.#failed('merge', end);
    const { blobs } = JSON.parse(await readFile(json, 'utf8')) as { blobs?: unknown };
    await rm(json);
    if (!Array.isArray(blobs) || !blobs.every((id) => typeof id === 'string' && /^[0-9a-f]{64}$/.test(id)))
      throw new UsageError(`${this.program} merge wrote no list of blobs into ${json}`, { exitCode: 1 });
    return blobs as string[];
  }
}

/** Write all chunks into a named pipe once somebody reads it, then close it. */
async function feed(
  path: string,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  isOver: () => boolean,
): Promise<void> {
  const fd = await openWriter(path, signal, isOver);
  if (fd === undefined) return;
  const socket = new Socket({ fd, readable: false, writable: true });
  const closed = once(socket, 'close').catch(() => {});
  let failure: Error | undefined;
  socket.on('error', (error) => (failure ??= error));
  const stop = (): void => void socket.destroy();
  signal.addEventListener('abort', stop);
  try {
    for await (const chunk of chunks) {
      signal.throwIfAborted();
      if (failure !== undefined) throw failure;
      if (!socket.write(chunk)) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
    }
    signal.throwIfAborted();
    socket.end();
    await closed;
    if (failure !== undefined) throw failure;
  } finally {
    signal.removeEventListener('abort', stop);
    socket.destroy();
  }
}

/** Open for writing once there is a reader; undefined when the builder ended without reading. */
async function openWriter(
  path: string,
  signal: AbortSignal,
  isOver: () => boolean,
): Promise<number | undefined> {
  for (;;) {
    signal.throwIfAborted();
    if (isOver()) return undefined;
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await sleep(POLL_MS);
  }
}
