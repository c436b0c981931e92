// Feeds cache files that the kernel reads: marks them, takes the events of readers that would find a hole, fetches, answers.
// One group, one thread and one journal for all images of the daemon. Source: DESIGN 2.1.
import { closeSync, fstatSync, openSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { duplicateTo, lockForProcess, tryWrite } from '../../native/descriptor.ts';
import {
  createPreContentGroup,
  FAN_ALLOW,
  FAN_DENY_EIO,
  markPreContent,
  unmarkPreContent,
} from '../../native/fanotify.ts';
import { SystemError } from '../../native/libc.ts';
import { currentThreadId } from '../../native/thread-interrupt.ts';
import type { BlobFeed } from './blob-feed.ts';
import { putResponse, RESPONSE_SIZE } from './events.ts';
import { FeedBase } from './feed-base.ts';
import { FedBlob, type BlobUser } from './fed-blob.ts';
import type { FeedNews, FeedReport, FeedStart } from './feed-messages.ts';
import { Journal, UNKNOWN_BLOB, type PendingEvent } from './journal.ts';

/** How often blobs are looked at: one that has become complete loses its mark. */
const COMPLETE_MS = 500;
function workerUrl(): URL {
  return new URL(
    import.meta.url.endsWith('.ts') ? './event-worker.ts' : './event-worker.js',
    import.meta.url,
  );
}

export class Feed extends FeedBase<FeedNews> implements BlobFeed {
  readonly ready = Promise.resolve();
  readonly #groupFd: number;
  readonly #journal: Journal;
  #timer: NodeJS.Timeout | undefined;
  #lastId = 0;
  #onComplete: () => void = () => {};
  #leaving = false;
  /** events that another process left, until their images are there */
  #left: PendingEvent[] = [];
  /** their descriptor numbers, as far as they are ours to close */
  readonly #reserved: Set<number>;
  /** numbers of the blobs of that process, by path */
  readonly #adopted: ReadonlyMap<string, number>;

  private constructor(
    logger: Logger,
    groupFd: number,
    journal: Journal,
    adopted: ReadonlyMap<string, number> = new Map(),
  ) {
    super(logger);
    this.#groupFd = groupFd;
    this.#journal = journal;
    this.#adopted = adopted;
    this.#lastId = Math.max(0, ...adopted.values());
    this.#left = journal.left();
    this.#reserved = reserveNumbers(this.#left);
  }

  /** @throws SystemError the kernel has no such events, or we may not have them */
  static open(logger: Logger): Feed {
    const groupFd = createPreContentGroup();
    try {
      const journal = Journal.create();
      lockForProcess(journal.fd);
      return new Feed(logger, groupFd, journal);
    } catch (error) {
      closeSync(groupFd);
      throw error;
    }
  }

  /**
   * Go on where another process ended: its readers wait. Nothing is read or answered before the first `add`.
   *
   * @param blobs numbers that its journal knows blobs by, by path of their data files
   * @throws UsageError EINVAL  another process is at it
   */
  static adopt(logger: Logger, groupFd: number, journalFd: number, blobs: ReadonlyMap<string, number>): Feed {
    if (!lockForProcess(journalFd)) {
      throw new UsageError('another nydusd answers the readers of these mounts', {
        exitCode: 1,
        hint: 'end it first, or give this one an API socket and a mountpoint of its own',
      });
    }
    return new Feed(logger, groupFd, new Journal(journalFd), blobs);
  }

  /** Open files that must outlive this process: the group and the journal, then the data files in the order of `held`. */
  get descriptors(): number[] {
    return [this.#groupFd, this.#journal.fd, ...[...this.blobs.values()].map(({ fd }) => fd)];
  }

  /** Blobs in the order of their descriptors. */
  get held(): { id: number; path: string }[] {
    return [...this.blobs.values()].map(({ id, path }) => ({ id, path }));
  }

  /** All images of the process before are there: serve the readers that it left waiting. */
  serveLeft(): void {
    const left = this.#left;
    this.#left = [];
    if (left.length > 0) this.logger.info(`${left.length} readers wait since the daemon before ended`);
    for (const event of left) this.answer(this.#serve(event, true));
  }

  /**
   * Take care of the blob of an image. A blob with missing chunks gets its mark: call this before the kernel opens the file,
   * and after everybody of this process who writes it has opened it.
   *
   * @throws SystemError EOPNOTSUPP  the file system of the cache has no such events
   */
  add(user: BlobUser): void {
    const { fd, path } = user.cache.data ?? { fd: -1, path: '' };
    let blob = this.#blobOf(fd);
    if (blob === undefined) {
      const before = this.#adopted.get(path);
      const id = before ?? ++this.#lastId;
      blob = new FedBlob(id, fd, path, ({ memory }) => this.tell({ type: 'ranges', id, memory }));
      blob.users.push(user);
      const { dev, ino } = blob;
      if (before !== undefined) this.#watch(blob);
      const ready = user.cache.map.ready.buffer as SharedArrayBuffer;
      this.blobs.set(id, blob);
      this.#startWorker();
      const allowed = blob.allowed.buffer as SharedArrayBuffer;
      this.tell({ type: 'blob', id, dev, ino, ready, allowed });
    } else blob.users.push(user);
    this.#mark(blob);
  }

  #mark(blob: FedBlob): void {
    if (blob.marked || blob.complete) return;
    markPreContent(this.#groupFd, blob.fd);
    this.#watch(blob);
  }

  #watch(blob: FedBlob): void {
    blob.marked = true;
    // its failure shows with the first event, which tries again
    blob.ranges().catch((error: unknown) => this.warn(messageOf(error)));
    this.#timer ??= setInterval(() => this.#lookForComplete(), COMPLETE_MS).unref();
  }

  protected override onDrop(blob: FedBlob): void {
    this.#unmark(blob);
  }

  deviceOf(user: BlobUser): string {
    // by descriptor: a path may have a comma, or be longer than an option may be
    return `/proc/self/fd/${user.cache.data?.fd ?? -1}`;
  }

  /** True when no blob has a mark: readers need nobody. */
  get complete(): boolean {
    return [...this.blobs.values()].every(({ marked }) => !marked);
  }

  /** Called when the last mark has gone. */
  set onComplete(call: () => void) {
    this.#onComplete = call;
  }

  #lookForComplete(): void {
    let changed = false;
    for (const blob of this.blobs.values()) {
      if (!blob.marked || !blob.complete) continue;
      this.#unmark(blob);
      changed = true;
      this.logger.info(`blob ${blob.user.cache.blobId} is complete: the kernel reads it without asking`);
    }
    if (!this.complete) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (changed) this.#onComplete();
  }

  #unmark(blob: FedBlob): void {
    if (!blob.marked) return;
    blob.marked = false;
    try {
      unmarkPreContent(this.#groupFd, blob.fd);
    } catch (error) {
      // one that the daemon before found complete has no mark any more
      if (error instanceof SystemError && error.code === 'ENOENT') return;
      this.warn(`the mark of blob ${blob.user.cache.blobId} stays: ${messageOf(error)}`);
    }
  }

  #startWorker(): void {
    if (this.isStarted) return;
    const start: FeedStart = {
      groupFd: this.#groupFd,
      journalFd: this.#journal.fd,
      words: this.words.buffer,
      mainTid: currentThreadId(),
    };
    this.startThread<FeedReport>(
      workerUrl(),
      'erofs',
      start,
      (report) => this.#onReport(report),
      (error) => this.logger.error(`the thread for events died: ${messageOf(error)}`),
    );
  }

  #onReport(report: FeedReport): void {
    if (report.type === 'error') this.warn(report.message);
    else if (report.type === 'need') this.answer(this.#serve(report));
  }

  async #serve(event: PendingEvent, left = false): Promise<void> {
    let response = FAN_ALLOW;
    try {
      await (left ? this.#fillLeft(event) : this.#fill(event));
    } catch (error) {
      response = FAN_DENY_EIO;
      this.warn(`a read of ${event.count} bytes at ${event.offset} fails: ${messageOf(error)}`);
    }
    if (this.#leaving) return; // it stays in the journal, for the successor
    this.count(this.blobs.get(event.blob), Math.max(0, event.count), response !== FAN_ALLOW);
    this.#answer(event, response, left);
  }

  async #fill({ fd, blob, offset, count }: PendingEvent): Promise<void> {
    // no range: not a read; who else may open the file does not get to see holes as data through a mount
    if (count < 0) return;
    const known = blob === UNKNOWN_BLOB ? this.#blobOf(fd) : this.blobs.get(blob);
    if (known === undefined) throw new Error('no image has this blob');
    await known.fill(offset, count, this.signal);
  }

  /** The descriptor of an event that another process read is gone with it. */
  async #fillLeft({ blob, offset, count }: PendingEvent): Promise<void> {
    if (count < 0) return;
    if (blob !== UNKNOWN_BLOB) {
      const known = this.blobs.get(blob);
      if (known === undefined) throw new Error('no image has this blob any more');
      return known.fill(offset, count, this.signal);
    }
    // that process was killed between reading the event and looking which file it is about: any may be meant
    for (const each of this.blobs.values()) {
      if ((await each.ranges()).covering(offset, count) !== undefined)
        await each.fill(offset, count, this.signal);
    }
  }

  #blobOf(fd: number): FedBlob | undefined {
    const { dev, ino } = fstatSync(fd);
    return [...this.blobs.values()].find((blob) => blob.dev === dev && blob.ino === ino);
  }

  /** Answer an event and forget it; its number is free again afterwards, not before. */
  #answer({ fd, slot }: PendingEvent, response: number, left: boolean): void {
    const bytes = Buffer.alloc(RESPONSE_SIZE);
    putResponse(new DataView(bytes.buffer, bytes.byteOffset, RESPONSE_SIZE), 0, fd, response);
    // a failure means that nobody waits any more
    tryWrite(this.#groupFd, bytes);
    this.#journal.settle(slot);
    if (!left || this.#reserved.delete(fd)) closeSync(fd);
  }

  /** End the thread and close the group: only once nothing is mounted that a mark is needed for. */
  close(): Promise<void> {
    return this.#end('unmounted');
  }

  /** End without answering: a guardian holds the group, readers wait for the successor. */
  leave(): Promise<void> {
    this.#leaving = true;
    return this.#end('this daemon ends');
  }

  async #end(reason: string): Promise<void> {
    clearInterval(this.#timer);
    await this.end(reason);
    closeSync(this.#groupFd);
    const { fd } = this.#journal;
    this.#journal.close();
    closeSync(fd);
  }
}

/**
 * Keep the numbers of events that are not answered from being given to new events: answers are matched by number alone.
 *
 * @returns those that were free, and now are open for this purpose
 */
function reserveNumbers(left: readonly PendingEvent[]): Set<number> {
  const reserved = new Set<number>();
  if (left.length === 0) return reserved;
  const nothing = openSync('/dev/null', 'r');
  for (const { fd } of left) {
    if (fd === nothing) reserved.add(fd);
    else if (!isOpen(fd)) {
      duplicateTo(nothing, fd);
      reserved.add(fd);
    }
  }
  if (!reserved.has(nothing)) closeSync(nothing);
  return reserved;
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}
