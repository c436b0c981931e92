// Blobs as flat files of a FUSE mount that is nowhere to be seen, for the kernel's EROFS to read as devices: works with a cache on any
// file system. When this process ends, the connection breaks and readers get EIO, never zeros.
import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { constants } from 'node:os';
import { alignUp } from '../../base/bytes.ts';
import { BackendError, messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { lockForProcess, tryWrite } from '../../native/descriptor.ts';
import { addressOf, preadFull } from '../../native/file-io.ts';
import { createMemfd } from '../../native/memfd.ts';
import {
  createMount,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
} from '../../native/mount-api.ts';
import { resendRequests } from '../fuse/notifications.ts';
import { MAX_IO } from '../opcodes.ts';
import { offsetsOf, outHeader } from '../protocol.ts';
import type { BlobFeed } from './blob-feed.ts';
import { FeedBase } from './feed-base.ts';
import { FedBlob, type BlobUser } from './fed-blob.ts';
import type { FlatNeed, FlatNews, FlatReport, FlatStart } from './feed-messages.ts';
import { isWhole } from './flat-loop.ts';
import { LOCK_AT } from './left.ts';

const BLOCK = 4096;
const O = offsetsOf(outHeader);

function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './flat-worker.ts' : './flat-worker.js', import.meta.url);
}

export class FlatFeed extends FeedBase<FlatNews> implements BlobFeed {
  readonly ready: Promise<void>;
  /** readers always need somebody */
  readonly complete = false;
  readonly #deviceFd: number;
  readonly #lockFd: number;
  readonly #mountFd: number;
  readonly #ready = Promise.withResolvers<void>();
  /** numbers of the blobs of the process before, by path; undefined: the connection is new */
  readonly #adopted: ReadonlyMap<string, number> | undefined;
  #lastId: number;
  #begun = false;
  #leaving = false;

  private constructor(logger: Logger, fds: readonly number[], adopted?: ReadonlyMap<string, number>) {
    super(logger);
    [this.#deviceFd = -1, this.#lockFd = -1, this.#mountFd = -1] = fds;
    this.#adopted = adopted;
    this.#lastId = Math.max(0, ...(adopted?.values() ?? []));
    this.ready = this.#ready.promise;
    this.ready.catch(() => {});
  }

  /** @throws Error, SystemError  no /dev/fuse, or we may not mount */
  static open(logger: Logger): FlatFeed {
    const opened = [openSync('/dev/fuse', fsConstants.O_RDWR)];
    try {
      const options = [
        ['source', 'nydusd-blobs'],
        ['fd', String(opened[0])],
        ['rootmode', '40000'],
        ['user_id', '0'],
        ['group_id', '0'],
        ['max_read', String(MAX_IO)],
      ] as const;
      const lock = createMemfd('nydusd-lock');
      opened.push(lock);
      lockForProcess(lock);
      opened.push(createMount('fuse', options, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
      return new FlatFeed(logger, opened);
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw error;
    }
  }

  /**
   * Go on with the connection of another process: its readers wait. Nothing is answered before `begin`.
   *
   * @param fds what it held, in the order of `descriptors`; ours from now on
   * @param blobs numbers that the kernel knows blobs by, by path of their data files
   * @throws UsageError EINVAL  another process serves it; the descriptors stay open
   */
  static adopt(logger: Logger, fds: readonly number[], blobs: ReadonlyMap<string, number>): FlatFeed {
    if (!lockForProcess(fds[LOCK_AT] ?? -1)) {
      throw new UsageError('another nydusd answers the readers of these mounts', {
        exitCode: 1,
        hint: 'end it first, or give this one an API socket and a mountpoint of its own',
      });
    }
    return new FlatFeed(logger, fds, blobs);
  }

  /** What a successor needs. */
  get descriptors(): number[] {
    return [this.#deviceFd, this.#lockFd, this.#mountFd];
  }

  /** Blobs, by the numbers that the kernel knows them by. */
  get held(): { id: number; path: string }[] {
    return [...this.blobs.values()].map(({ id, path }) => ({ id, path }));
  }

  /** Serve. Blobs of the process before have to be there: a read of one that is not known fails. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    if (this.#adopted === undefined) this.#start();
    else
      resendRequests(this.#deviceFd)
        .catch((error: unknown) => this.warn(`readers of the daemon before may wait: ${messageOf(error)}`))
        .finally(() => this.#start());
  }

  #start(): void {
    if (this.#leaving) return;
    const start: FlatStart = { deviceFd: this.#deviceFd, words: this.words.buffer };
    this.startThread<FlatReport>(
      workerUrl(),
      'flat',
      start,
      (report) => {
        if (report.type === 'ready') this.#ready.resolve();
        else if (report.type === 'need') this.answer(this.#serve(report));
      },
      (error) => {
        this.logger.error(`the thread that serves blobs died: ${messageOf(error)}`);
        this.#ready.reject(error);
      },
    );
    for (const blob of this.blobs.values()) this.#announce(blob);
  }

  #announce(blob: FedBlob): void {
    const { id, fd, user } = blob;
    const size = alignUp(user.instance.image.blobs[user.blobIndex]?.uncompressedSize ?? 0, BLOCK);
    const ready = user.cache.map.ready.buffer as SharedArrayBuffer;
    const allowed = blob.allowed.buffer as SharedArrayBuffer;
    this.tell({ type: 'blob', id, size, fd, ready, allowed });
    // what was told before the thread was there is told again
    blob.ranges().then(
      ({ memory }) => this.tell({ type: 'ranges', id, memory }),
      (error: unknown) => this.warn(messageOf(error)),
    );
  }

  add(user: BlobUser): void {
    const { fd, path } = user.cache.data ?? { fd: -1, path: '' };
    let blob = [...this.blobs.values()].find((known) => known.path === path);
    if (blob === undefined) {
      const id = this.#adopted?.get(path) ?? ++this.#lastId;
      // a failure to load the table is over with the next read, which loads it again
      blob = new FedBlob(id, fd, path, ({ memory }) => this.tell({ type: 'ranges', id, memory }));
      blob.users.push(user);
      this.blobs.set(id, blob);
      if (this.isStarted) this.#announce(blob);
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
    if (this.#leaving) return; // the kernel asks the successor again
    this.count(this.blobs.get(need.id), need.size, error !== 0);
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

  /** End; who still reads gets EIO, unless somebody else has the connection. */
  async close(): Promise<void> {
    // before the thread has ended, the connection must not be closed; and the lock goes last, for whoever waits for it
    await this.end('unmounted');
    for (const fd of [this.#mountFd, this.#deviceFd, this.#lockFd]) closeSync(fd);
  }

  /** End without answering: a guardian holds the connection, readers wait for the successor. */
  leave(): Promise<void> {
    this.#leaving = true;
    return this.close();
  }
}
