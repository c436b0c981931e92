// Blobs as flat files of a FUSE mount that is nowhere to be seen, for the kernel's EROFS to read as devices: works with a cache on any
// file system. When this process ends, the connection breaks and readers get EIO, never zeros.
import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';
import { alignUp } from '../../base/bytes.ts';
import { BackendError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { tryWrite } from '../../native/descriptor.ts';
import { addressOf, preadFull } from '../../native/file-io.ts';
import {
  createMount,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
} from '../../native/mount-api.ts';
import { interruptThread, prepareInterrupts } from '../../native/thread-interrupt.ts';
import { MAX_IO } from '../opcodes.ts';
import { offsetsOf, outHeader } from '../protocol.ts';
import type { BlobFeed, FeedCounts } from './blob-feed.ts';
import { FedBlob, type BlobUser } from './fed-blob.ts';
import { FeedWords, type FlatNeed, type FlatNews, type FlatReport, type FlatStart } from './feed-messages.ts';
import { isWhole } from './flat-loop.ts';

const BLOCK = 4096;
const YOUNG_MB = 2;
const NUDGE_MS = 1;
const EXIT_MS = 500;
const O = offsetsOf(outHeader);

function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './flat-worker.ts' : './flat-worker.js', import.meta.url);
}

export class FlatFeed implements BlobFeed {
  readonly ready: Promise<void>;
  readonly #logger: Logger;
  readonly #deviceFd: number;
  readonly #mountFd: number;
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  readonly #words = new FeedWords();
  readonly #blobs = new Map<number, FedBlob>();
  readonly #controller = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  readonly #counts = { answered: 0, denied: 0, bytes: 0 };
  readonly #said = new Set<string>();
  #lastId = 0;

  /** @throws Error, SystemError  no /dev/fuse, or we may not mount */
  constructor(logger: Logger) {
    this.#logger = logger;
    this.#deviceFd = openSync('/dev/fuse', fsConstants.O_RDWR);
    try {
      const options = [
        ['source', 'nydusd-blobs'],
        ['fd', String(this.#deviceFd)],
        ['rootmode', '40000'],
        ['user_id', '0'],
        ['group_id', '0'],
        ['max_read', String(MAX_IO)],
      ] as const;
      this.#mountFd = createMount('fuse', options, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    } catch (error) {
      closeSync(this.#deviceFd);
      throw error;
    }
    prepareInterrupts();
    const workerData: FlatStart = { deviceFd: this.#deviceFd, words: this.#words.buffer };
    this.#worker = new Worker(workerUrl(), {
      workerData,
      name: 'flat',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.ready.catch(() => {});
    this.#worker.on('message', (report: FlatReport) => {
      if (report.type === 'ready') ready.resolve();
      else if (report.type === 'need') this.#begin(this.#serve(report));
    });
    this.#worker.on('error', (error) => {
      this.#logger.error(`the thread that serves blobs died: ${messageOf(error)}`);
      ready.reject(error);
    });
    this.#ended = new Promise((resolve) => this.#worker.once('exit', () => resolve()));
    process.on('exit', this.#onExit);
  }

  readonly #onExit = (): void => {
    this.#words.stop();
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + EXIT_MS;
    while (performance.now() < deadline && this.#nudge()) Atomics.wait(pause, 0, 0, 1);
  };

  #nudge(): boolean {
    if (this.#words.done) return false;
    return this.#words.tid === 0 || interruptThread(this.#words.tid);
  }

  add(user: BlobUser): void {
    const { fd, path } = user.cache.data ?? { fd: -1, path: '' };
    let blob = [...this.#blobs.values()].find((known) => known.path === path);
    if (blob === undefined) {
      const id = ++this.#lastId;
      blob = new FedBlob(id, fd, path, ({ memory }) => this.#tell({ type: 'ranges', id, memory }));
      blob.users.push(user);
      this.#blobs.set(id, blob);
      const size = alignUp(user.instance.image.blobs[user.blobIndex]?.uncompressedSize ?? 0, BLOCK);
      const ready = user.cache.map.ready.buffer as SharedArrayBuffer;
      this.#tell({ type: 'blob', id, size, fd: blob.fd, ready });
      blob.ranges().catch((error: unknown) => this.#warn(messageOf(error)));
    } else blob.users.push(user);
  }

  remove(user: BlobUser): void {
    for (const [id, blob] of this.#blobs) {
      const at = blob.users.indexOf(user);
      if (at < 0) continue;
      if (blob.users.length === 1) {
        this.#blobs.delete(id);
        this.#tell({ type: 'drop', id });
        blob.close();
      }
      blob.users.splice(at, 1);
    }
  }

  deviceOf(user: BlobUser): string {
    const found = [...this.#blobs.values()].find(({ users }) => users.includes(user));
    return `/proc/self/fd/${this.#mountFd}/${found?.id ?? 0}`;
  }

  #tell(news: FlatNews): void {
    this.#worker.postMessage(news);
    this.#words.announce();
  }

  #begin(serving: Promise<void>): void {
    const work = serving.finally(() => this.#pending.delete(work));
    this.#pending.add(work);
  }

  async #serve(need: FlatNeed): Promise<void> {
    let reply = Buffer.alloc(outHeader.size + need.size);
    let error = 0;
    try {
      await this.#readInto(need, reply.subarray(outHeader.size));
    } catch (problem) {
      error = -constants.errno.EIO;
      reply = reply.subarray(0, outHeader.size);
      this.#counts.denied++;
      this.#warn(`a read of ${need.size} bytes at ${need.offset} fails: ${messageOf(problem)}`);
    }
    this.#counts.answered++;
    this.#counts.bytes += need.size;
    reply.writeUInt32LE(reply.length, O.len);
    reply.writeInt32LE(error, O.error);
    reply.writeUInt32LE(need.uniqueLow, O.unique);
    reply.writeUInt32LE(need.uniqueHigh, O.unique + 4);
    tryWrite(this.#deviceFd, reply);
  }

  async #readInto({ id, offset, size }: FlatNeed, target: Buffer): Promise<void> {
    const blob = this.#blobs.get(id);
    if (blob === undefined) throw new BackendError('no image has this blob any more');
    await blob.fill(offset, size, this.#controller.signal);
    const got = preadFull(blob.fd, addressOf(target), size, offset);
    const deviceSize = alignUp(
      blob.user.instance.image.blobs[blob.user.blobIndex]?.uncompressedSize ?? 0,
      BLOCK,
    );
    if (got < 0 || !isWhole(got, offset, size, deviceSize))
      throw new BackendError(`${blob.path} gives ${got} of ${size} bytes at ${offset}`);
  }

  #warn(text: string): void {
    if (this.#said.has(text) || this.#said.size > 1000) return;
    this.#said.add(text);
    this.#logger.error(text);
  }

  counts(): FeedCounts {
    const { allowed, allowedBytes } = this.#words;
    const { answered, denied, bytes } = this.#counts;
    return { events: allowed + answered, allowed, denied, bytes: bytes + allowedBytes };
  }

  /** End; who still reads gets EIO. */
  async close(): Promise<void> {
    this.#words.stop();
    while (this.#nudge()) await new Promise((resolve) => setTimeout(resolve, NUDGE_MS));
    await this.#ended;
    this.#controller.abort(new Error('unmounted'));
    await Promise.all(this.#pending);
    process.off('exit', this.#onExit);
    for (const blob of this.#blobs.values()) blob.close();
    this.#blobs.clear();
    closeSync(this.#mountFd);
    closeSync(this.#deviceFd);
  }
}
