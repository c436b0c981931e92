// What the feeds of both kernel drivers have in common: blobs by number, a thread that answers what is local and sleeps in read(), the
// rest answered here, and an end that gets the thread out of its sleep.
import { Worker } from 'node:worker_threads';
import type { Logger } from '../../base/log.ts';
import { withUsualPriority } from '../../base/thread-priority.ts';
import { interruptThread, prepareInterrupts } from '../../native/thread-interrupt.ts';
import type { FeedCounts } from './blob-feed.ts';
import type { BlobUser, FedBlob } from './fed-blob.ts';
import { FeedWords } from './feed-messages.ts';

const NUDGE_MS = 1;
/** How long the end of the process may be held up by the thread. */
const EXIT_MS = 500;
const YOUNG_MB = 2;
/** Troubles that are told; each is told once. */
const MAX_SAID = 1000;

/** News for the thread that both kinds know. */
interface Drop {
  type: 'drop';
  id: number;
}

/** A feed with a thread that takes `News`. */
export abstract class FeedBase<News> {
  protected readonly logger: Logger;
  protected readonly words = new FeedWords();
  protected readonly blobs = new Map<number, FedBlob>();
  readonly #controller = new AbortController();
  readonly #pending = new Set<Promise<void>>();
  readonly #counts = { answered: 0, denied: 0, bytes: 0 };
  readonly #said = new Set<string>();
  #worker: Worker | undefined;
  #ended: Promise<void> = Promise.resolve();

  protected constructor(logger: Logger) {
    this.logger = logger;
  }

  /** Aborted when nobody waits for data any more. */
  protected get signal(): AbortSignal {
    return this.#controller.signal;
  }

  protected get isStarted(): boolean {
    return this.#worker !== undefined;
  }

  /** @param url of its entry; the bundler has to see it, so it is written down where it is known */
  protected startThread<Report>(
    url: URL,
    name: string,
    workerData: object,
    onReport: (report: Report) => void,
    onError: (error: Error) => void,
  ): void {
    prepareInterrupts();
    const resourceLimits = { maxYoungGenerationSizeMb: YOUNG_MB };
    const worker = withUsualPriority(() => new Worker(url, { workerData, name, resourceLimits }));
    worker.on('message', onReport);
    worker.on('error', onError);
    this.#ended = new Promise((resolve) => worker.once('exit', () => resolve()));
    this.#worker = worker;
    process.on('exit', this.#onExit);
  }

  protected tell(news: News | Drop): void {
    this.#worker?.postMessage(news);
    this.words.announce();
  }

  /** Answer something; the end waits for it. */
  protected answer(serving: Promise<void>): void {
    const work = serving.finally(() => this.#pending.delete(work));
    this.#pending.add(work);
  }

  /** @param blob undefined where it is not known which one was asked */
  protected count(blob: FedBlob | undefined, bytes: number, denied: boolean): void {
    for (const counts of [this.#counts, blob?.counts]) {
      if (counts === undefined) continue;
      counts.answered++;
      counts.bytes += bytes;
      if (denied) counts.denied++;
    }
  }

  /** What was asked of the blobs of these users. */
  countsOf(users: readonly BlobUser[]): FeedCounts {
    const sum: FeedCounts = { events: 0, allowed: 0, denied: 0, bytes: 0 };
    for (const blob of this.blobs.values()) {
      if (!blob.users.some((user) => users.includes(user))) continue;
      const { answered, denied, bytes } = blob.counts;
      const [allowed = 0, allowedBytes = 0] = blob.allowed;
      sum.events += allowed + answered;
      sum.allowed += allowed;
      sum.denied += denied;
      sum.bytes += bytes + allowedBytes;
    }
    return sum;
  }

  counts(): FeedCounts {
    const { allowed, allowedBytes } = this.words;
    const { answered, denied, bytes } = this.#counts;
    return { events: allowed + answered, allowed, denied, bytes: bytes + allowedBytes };
  }

  /** The same trouble is told once. */
  protected warn(text: string): void {
    if (this.#said.has(text) || this.#said.size > MAX_SAID) return;
    this.#said.add(text);
    this.logger.error(text);
  }

  /** Done before a blob that nobody uses any more is closed. */
  protected abstract onDrop(blob: FedBlob): void;

  /** An image is no longer mounted. */
  remove(user: BlobUser): void {
    for (const [id, blob] of this.blobs) {
      const at = blob.users.indexOf(user);
      if (at < 0) continue;
      if (blob.users.length === 1) {
        this.onDrop(blob);
        this.blobs.delete(id);
        this.tell({ type: 'drop', id });
        blob.close();
      }
      blob.users.splice(at, 1);
    }
  }

  /** Node waits for its threads when the process ends, however it ends: get ours out of its read. */
  readonly #onExit = (): void => {
    this.words.stop();
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + EXIT_MS;
    while (performance.now() < deadline && this.#nudge()) Atomics.wait(pause, 0, 0, 1);
  };

  #nudge(): boolean {
    if (this.#worker === undefined || this.words.done) return false;
    return this.words.tid === 0 || interruptThread(this.words.tid);
  }

  /** End the thread, what is being answered, and the blobs. @param reason what those hear who wait for data */
  protected async end(reason: string): Promise<void> {
    this.words.stop();
    while (this.#nudge()) await new Promise((resolve) => setTimeout(resolve, NUDGE_MS));
    await this.#ended;
    this.#controller.abort(new Error(reason));
    await Promise.all(this.#pending);
    process.off('exit', this.#onExit);
    for (const blob of this.blobs.values()) blob.close();
    this.blobs.clear();
  }
}
