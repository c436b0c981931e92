// Blobs as flat files of a FUSE mount that is nowhere to be seen, for the kernel's EROFS to read as devices: works with a cache on any
// file system. When this process ends, the connection breaks and readers get EIO, never zeros.
import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { constants } from 'node:os';
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
import { MAX_IO } from '../opcodes.ts';
import { offsetsOf, outHeader } from '../protocol.ts';
import type { BlobFeed } from './blob-feed.ts';
import { FeedBase } from './feed-base.ts';
import { FedBlob, type BlobUser } from './fed-blob.ts';
import type { FlatNeed, FlatNews, FlatReport, FlatStart } from './feed-messages.ts';
import { isWhole } from './flat-loop.ts';

const BLOCK = 4096;
const O = offsetsOf(outHeader);

function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './flat-worker.ts' : './flat-worker.js', import.meta.url);
}

export class FlatFeed extends FeedBase<FlatNews> implements BlobFeed {
  readonly ready: Promise<void>;
  readonly #deviceFd: number;
  readonly #mountFd: number;
  #lastId = 0;

  /** @throws Error, SystemError  no /dev/fuse, or we may not mount */
  constructor(logger: Logger) {
    super(logger);
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
    const start: FlatStart = { deviceFd: this.#deviceFd, words: this.words.buffer };
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    this.ready.catch(() => {});
    this.startThread<FlatReport>(
      workerUrl(),
      'flat',
      start,
      (report) => {
        if (report.type === 'ready') ready.resolve();
        else if (report.type === 'need') this.begin(this.#serve(report));
      },
      (error) => {
        this.logger.error(`the thread that serves blobs died: ${messageOf(error)}`);
        ready.reject(error);
      },
    );
  }

  add(user: BlobUser): void {
    const { fd, path } = user.cache.data ?? { fd: -1, path: '' };
    let blob = [...this.blobs.values()].find((known) => known.path === path);
    if (blob === undefined) {
      const id = ++this.#lastId;
      blob = new FedBlob(id, fd, path, ({ memory }) => this.tell({ type: 'ranges', id, memory }));
      blob.users.push(user);
      this.blobs.set(id, blob);
      const size = alignUp(user.instance.image.blobs[user.blobIndex]?.uncompressedSize ?? 0, BLOCK);
      const ready = user.cache.map.ready.buffer as SharedArrayBuffer;
      this.tell({ type: 'blob', id, size, fd: blob.fd, ready });
      blob.ranges().catch((error: unknown) => this.warn(messageOf(error)));
    } else blob.users.push(user);
  }

  protected override onDrop(): void {}

  deviceOf(user: BlobUser): string {
    const found = [...this.blobs.values()].find(({ users }) => users.includes(user));
    return `/proc/self/fd/${this.#mountFd}/${found?.id ?? 0}`;
  }

  async #serve(need: FlatNeed): Promise<void> {
    let reply = Buffer.alloc(outHeader.size + need.size);
    let error = 0;
    try {
      await this.#readInto(need, reply.subarray(outHeader.size));
    } catch (problem) {
      error = -constants.errno.EIO;
      reply = reply.subarray(0, outHeader.size);
      this.warn(`a read of ${need.size} bytes at ${need.offset} fails: ${messageOf(problem)}`);
    }
    this.count(need.size, error !== 0);
    reply.writeUInt32LE(reply.length, O.len);
    reply.writeInt32LE(error, O.error);
    reply.writeUInt32LE(need.uniqueLow, O.unique);
    reply.writeUInt32LE(need.uniqueHigh, O.unique + 4);
    tryWrite(this.#deviceFd, reply);
  }

  async #readInto({ id, offset, size }: FlatNeed, target: Buffer): Promise<void> {
    const blob = this.blobs.get(id);
    if (blob === undefined) throw new BackendError('no image has this blob any more');
    await blob.fill(offset, size, this.signal);
    const got = preadFull(blob.fd, addressOf(target), size, offset);
    const deviceSize = alignUp(
      blob.user.instance.image.blobs[blob.user.blobIndex]?.uncompressedSize ?? 0,
      BLOCK,
    );
    if (got < 0 || !isWhole(got, offset, size, deviceSize))
      throw new BackendError(`${blob.path} gives ${got} of ${size} bytes at ${offset}`);
  }

  /** End; who still reads gets EIO. */
  async close(): Promise<void> {
    await this.end('unmounted');
    closeSync(this.#mountFd);
    closeSync(this.#deviceFd);
  }
}
