// Feeds cache files that the kernel reads: marks them, takes the events of readers that would find a hole, fetches, answers.
// One group, one thread and one journal for all images of the daemon. Source: DESIGN 2.1.
import { closeSync, fstatSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { tryWrite } from '../../native/descriptor.ts';
import {
  createPreContentGroup,
  FAN_ALLOW,
  FAN_DENY_EIO,
  markPreContent,
  unmarkPreContent,
} from '../../native/fanotify.ts';
import { currentThreadId, interruptThread, prepareInterrupts } from '../../native/thread-interrupt.ts';
import { putResponse, RESPONSE_SIZE } from './events.ts';
import { FedBlob, type BlobUser } from './fed-blob.ts';
import { FeedWords, type FeedNews, type FeedReport, type FeedStart } from './feed-messages.ts';
import { Journal, UNKNOWN_BLOB, type PendingEvent } from './journal.ts';

/** How often blobs are looked at: one that has become complete loses its mark. */
const COMPLETE_MS = 500;
const NUDGE_MS = 1;
/** How long the end of the process may be held up by the thread. */
const EXIT_MS = 500;
const YOUNG_MB = 2;

function workerUrl(): URL {
  return new URL(
    import.meta.url.endsWith('.ts') ? './event-worker.ts' : './event-worker.js',
    import.meta.url,
  );
}

/** What was counted since the start. */
export interface FeedCounts {
  /** events answered */
  events: number;
  /** answered at once: everything was local */
  allowed: number;
  /** failed: the reader got EIO */
  denied: number;
  /** bytes that readers asked about */
  bytes: number;
}

export class Feed {
  readonly #logger: Logger;
  readonly #groupFd: number;
  readonly #journal: Journal;
  readonly #words = new FeedWords();
  readonly #blobs = new Map<number, FedBlob>();
  readonly #controller = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  readonly #counts = { answered: 0, denied: 0, bytes: 0 };
  readonly #said = new Set<string>();
  #worker: Worker | undefined;
  #ended: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #lastId = 0;
  #onComplete: () => void = () => {};

  private constructor(logger: Logger, groupFd: number, journal: Journal) {
    this.#logger = logger;
    this.#groupFd = groupFd;
    this.#journal = journal;
    prepareInterrupts();
    process.on('exit', this.#onExit);
  }

  /** @throws SystemError the kernel has no such events, or we may not have them */
  static open(logger: Logger): Feed {
    const groupFd = createPreContentGroup();
    try {
      return new Feed(logger, groupFd, Journal.create());
    } catch (error) {
      closeSync(groupFd);
      throw error;
    }
  }

  /** Node waits for its threads when the process ends, however it ends: get ours out of its read. */
  readonly #onExit = (): void => {
    this.#words.stop();
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + EXIT_MS;
    while (performance.now() < deadline && this.#nudge()) Atomics.wait(pause, 0, 0, 1);
  };

  #nudge(): boolean {
    if (this.#worker === undefined || this.#words.done) return false;
    return this.#words.tid === 0 || interruptThread(this.#words.tid);
  }

  /**
   * Take care of the blob of an image. A blob with missing chunks gets its mark: call this before the kernel opens the file,
   * and after everybody of this process who writes it has opened it.
   *
   * @throws SystemError EOPNOTSUPP  the file system of the cache has no such events
   */
  add(user: BlobUser): void {
    const fd = user.cache.data?.fd ?? -1;
    const { dev, ino } = fstatSync(fd);
    let blob = [...this.#blobs.values()].find((known) => known.dev === dev && known.ino === ino);
    if (blob === undefined) {
      const id = ++this.#lastId;
      blob = new FedBlob(id, dev, ino, (ranges) => this.#tell({ type: 'ranges', id, memory: ranges.memory }));
      blob.users.push(user);
      const ready = user.cache.map.ready.buffer as SharedArrayBuffer;
      this.#blobs.set(id, blob);
      this.#startWorker();
      this.#tell({ type: 'blob', id, dev, ino, ready });
    } else blob.users.push(user);
    this.#mark(blob);
  }

  #mark(blob: FedBlob): void {
    if (blob.marked || blob.complete) return;
    markPreContent(this.#groupFd, blob.user.cache.data?.fd ?? -1);
    blob.marked = true;
    // its failure shows with the first event, which tries again
    blob.ranges().catch((error: unknown) => this.#warn(messageOf(error)));
    this.#timer ??= setInterval(() => this.#lookForComplete(), COMPLETE_MS).unref();
  }

  /** An image is no longer mounted. */
  remove(user: BlobUser): void {
    for (const [id, blob] of this.#blobs) {
      const at = blob.users.indexOf(user);
      if (at < 0) continue;
      if (blob.users.length === 1) {
        this.#unmark(blob);
        this.#blobs.delete(id);
        this.#tell({ type: 'drop', id });
      }
      blob.users.splice(at, 1);
    }
  }

  /** True when no blob has a mark: readers need nobody. */
  get complete(): boolean {
    return [...this.#blobs.values()].every(({ marked }) => !marked);
  }

  /** Called when the last mark has gone. */
  set onComplete(call: () => void) {
    this.#onComplete = call;
  }

  #lookForComplete(): void {
    let changed = false;
    for (const blob of this.#blobs.values()) {
      if (!blob.marked || !blob.complete) continue;
      this.#unmark(blob);
      changed = true;
      this.#logger.info(`blob ${blob.user.cache.blobId} is complete: the kernel reads it without asking`);
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
      unmarkPreContent(this.#groupFd, blob.user.cache.data?.fd ?? -1);
    } catch (error) {
      this.#warn(`the mark of blob ${blob.user.cache.blobId} stays: ${messageOf(error)}`);
    }
  }

  #startWorker(): void {
    if (this.#worker !== undefined) return;
    const start: FeedStart = {
      groupFd: this.#groupFd,
      journalFd: this.#journal.fd,
      words: this.#words.buffer,
      mainTid: currentThreadId(),
    };
    const worker = new Worker(workerUrl(), {
      workerData: start,
      name: 'erofs',
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    worker.on('message', (report: FeedReport) => this.#onReport(report));
    worker.on('error', (error) => this.#logger.error(`the thread for events died: ${messageOf(error)}`));
    this.#ended = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.#worker = worker;
  }

  #tell(news: FeedNews): void {
    this.#worker?.postMessage(news);
    this.#words.announce();
  }

  #onReport(report: FeedReport): void {
    if (report.type === 'error') this.#warn(report.message);
    else if (report.type === 'need') {
      const work = this.#serve(report).finally(() => this.#pending.delete(work));
      this.#pending.add(work);
    }
  }

  async #serve(event: PendingEvent): Promise<void> {
    let response = FAN_ALLOW;
    try {
      await this.#fill(event);
    } catch (error) {
      response = FAN_DENY_EIO;
      this.#warn(`a read of ${event.count} bytes at ${event.offset} fails: ${messageOf(error)}`);
    }
    this.#counts.answered++;
    this.#counts.bytes += Math.max(0, event.count);
    if (response !== FAN_ALLOW) this.#counts.denied++;
    this.answer(event, response);
  }

  async #fill({ fd, blob, offset, count }: PendingEvent): Promise<void> {
    // no range: not a read; who else may open the file does not get to see holes as data through a mount
    if (count < 0) return;
    const { signal } = this.#controller;
    const known = blob === UNKNOWN_BLOB ? this.#blobOf(fd) : this.#blobs.get(blob);
    if (known === undefined) throw new Error('no image has this blob');
    await known.fill(offset, count, signal);
  }

  #blobOf(fd: number): FedBlob | undefined {
    const { dev, ino } = fstatSync(fd);
    return [...this.#blobs.values()].find((blob) => blob.dev === dev && blob.ino === ino);
  }

  /** Answer an event and forget it. */
  answer({ fd, slot }: PendingEvent, response: number): void {
    const bytes = Buffer.alloc(RESPONSE_SIZE);
    putResponse(new DataView(bytes.buffer, bytes.byteOffset, RESPONSE_SIZE), 0, fd, response);
    // a failure means that nobody waits any more
    tryWrite(this.#groupFd, bytes);
    this.#journal.settle(slot);
    closeSync(fd);
  }

  /** The same trouble is told once. */
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

  /** End the thread and close the group: only once nothing is mounted that a mark is needed for. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#words.stop();
    while (this.#nudge()) await new Promise((resolve) => setTimeout(resolve, NUDGE_MS));
    await this.#ended;
    this.#controller.abort(new Error('unmounted'));
    await Promise.all(this.#pending);
    process.off('exit', this.#onExit);
    closeSync(this.#groupFd);
    const { fd } = this.#journal;
    this.#journal.close();
    closeSync(fd);
  }
}
