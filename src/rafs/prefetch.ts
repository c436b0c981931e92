// Fetches in the background what a container is likely to need: a list, the table of the bootstrap, or everything.
// Readers go first: while one waits, only one range is under way, and none of what was not listed. Source: blob-and-cache.md 20; nydusd.md 11.
import { messageOf } from '../base/errors.ts';
import { MIB } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { S_IFDIR, S_IFMT, S_IFREG } from '../format/flags.ts';
import { newAttr, newChunkRef, type ChunkRef, type RafsImage } from '../format/image.ts';
import { FileType6 } from '../format/rafs6/layout.ts';
import { Urgency } from '../storage/backend/link.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import { mergeChunks, MIN_BATCH, type FetchRange } from '../storage/cache/fetch-plan.ts';
import type { CacheMeter } from '../storage/cache/meter.ts';
import type { RecordTable } from '../storage/cache/record-table.ts';
import type { PrefetchConfig } from '../storage/config.ts';
import { resolvePath } from './path.ts';
import { QuietReaders } from './quiet-readers.ts';
import { TokenBucket } from './token-bucket.ts';
import { walkTree } from './walk.ts';

/** Collected chunks of a blob are sorted, merged and fetched once they are this many, or this many bytes. */
const FLUSH_CHUNKS = 1024;
const FLUSH_BYTES = 16 * MIB;
/** Files and chunks looked at before other work on this thread gets its turn. */
const YIELD_EVERY = 512;
const BUSY_POLL_MS = 5;

/** A blob to prefetch into. */
export interface PrefetchBlob {
  cache: BlobCache;
  records: RecordTable | undefined;
}

export interface PrefetchOptions {
  image: RafsImage;
  /** by blob index */
  blobs: readonly (PrefetchBlob | undefined)[];
  /** what is requested (`rafs.prefetch`) */
  request: PrefetchConfig;
  /** how it is run (`cache.prefetch`); nothing is fetched unless it is enabled */
  run: PrefetchConfig;
  meter: CacheMeter;
  logger: Logger;
  /** true while a reader waits for a fetch */
  isBusy: () => boolean;
  /** bytes that readers have fetched so far */
  userBytes: () => number;
}

/** A range to fetch. */
interface Wanted {
  cache: BlobCache;
  range: FetchRange;
}

function pause(millis: number): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, millis));
}

function yieldTurn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

export class Prefetcher {
  readonly #options: PrefetchOptions;
  readonly #bucket: TokenBucket | undefined;
  readonly #running = new Set<Promise<void>>();
  readonly #stop = new AbortController();
  #done: Promise<void> | undefined;
  #userBytes = 0;

  constructor(options: PrefetchOptions) {
    this.#options = options;
    const limit = options.run.bandwidth_limit;
    this.#bucket = limit > 0 ? new TokenBucket(Math.max(limit, options.image.super.chunkSize)) : undefined;
  }

  /**
   * Start, once. Errors are logged: prefetch never fails a mount.
   *
   * @param list absolute paths; [] = what the image says
   */
  start(list: readonly string[]): void {
    if (this.#done !== undefined || !this.#options.request.enable) return;
    if (!this.#options.run.enable) {
      this.#options.logger.warn('prefetch is requested, but cache.prefetch is not enabled');
      return;
    }
    this.#done = this.#run(list).catch((error: unknown) => {
      if (!this.#stop.signal.aborted) this.#options.logger.warn(`prefetch ended early: ${messageOf(error)}`);
    });
  }

  /** Resolves when everything was fetched, or at once when nothing was started. */
  get finished(): Promise<void> {
    return this.#done ?? Promise.resolve();
  }

  /** Fetch no further ranges, and wait for those under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #run(list: readonly string[]): Promise<void> {
    const { meter, run, isBusy, userBytes } = this.#options;
    const quiet = new QuietReaders({ isBusy, userBytes, signal: this.#stop.signal });
    await yieldTurn();
    meter.prefetchWorkers = Math.max(1, run.threads);
    meter.prefetchBegin = Date.now();
    try {
      for await (const { cache, range, listed } of this.#ranges(list)) {
        if (!listed) await quiet.wait();
        await this.#queue(cache, range);
      }
    } finally {
      await Promise.all(this.#running);
      meter.prefetchEnd = Date.now();
    }
  }

  async *#ranges(list: readonly string[]): AsyncGenerator<Wanted & { listed: boolean }> {
    const { image, request, logger } = this.#options;
    const table = image.prefetchInos();
    const rootAlone = table.length === 1 && table[0] === image.rootIno;
    const full = rootAlone || (list.length === 1 && list[0] === '/');
    let everything = full || request.prefetch_all || request.stream_prefetch;
    if (!full && !request.stream_prefetch) {
      const roots = list.length > 0 ? this.#resolve(list) : table;
      if (list.length === 0 && roots.includes(image.rootIno)) {
        logger.warn('Root inode was found, but it should not prefetch all files!');
        everything = true;
      } else for await (const wanted of this.#files(roots)) yield { ...wanted, listed: true };
    }
    if (!everything) return;
    const rest = image.super.version === 6 ? this.#wholeBlobs() : this.#files([image.rootIno]);
    for await (const wanted of rest) yield { ...wanted, listed: false };
  }

  #resolve(list: readonly string[]): number[] {
    return list.map((path) => resolvePath(this.#options.image, path)).filter((ino) => ino !== 0);
  }

  /** Chunks of files; directories stand for all below them. */
  async *#files(roots: readonly number[]): AsyncGenerator<Wanted> {
    const collected = new Map<number, { chunks: number[]; bytes: number }>();
    let count = 0;
    for (const ino of this.#filesBelow(roots)) {
      if (++count % YIELD_EVERY === 0) await yieldTurn();
      if (this.#stop.signal.aborted) return;
      for (const ref of this.#chunksOf(ino)) {
        const list = collected.get(ref.blobIndex) ?? { chunks: [], bytes: 0 };
        collected.set(ref.blobIndex, list);
        this.#options.blobs[ref.blobIndex]?.records?.note(ref.chunkIndex, ref.recordOffset);
        list.chunks.push(ref.chunkIndex);
        list.bytes += ref.uncompressedSize;
        if (list.chunks.length <= FLUSH_CHUNKS && list.bytes <= FLUSH_BYTES) continue;
        collected.delete(ref.blobIndex);
        yield* this.#merge(ref.blobIndex, list.chunks);
      }
    }
    for (const [blobIndex, { chunks }] of collected) yield* this.#merge(blobIndex, chunks);
  }

  *#filesBelow(roots: readonly number[]): Generator<number> {
    const { image, logger } = this.#options;
    const seen = new Set<number>();
    const attr = newAttr();
    for (const root of roots) {
      try {
        image.attr(root, attr);
        const type = attr.mode & S_IFMT;
        if (type === S_IFREG && !seen.has(root)) {
          seen.add(root);
          yield root;
        } else if (type === S_IFDIR) {
          for (const { ino, fileType } of walkTree(image, root)) {
            if (fileType !== FileType6.regular || seen.has(ino)) continue;
            seen.add(ino);
            yield ino;
          }
        }
      } catch (error) {
        logger.warn(`prefetch of inode ${root}: ${messageOf(error)}`);
      }
    }
  }

  #chunksOf(ino: number): ChunkRef[] {
    const { image } = this.#options;
    return Array.from({ length: image.chunkCount(ino) }, (_, position) => {
      const ref = newChunkRef();
      image.chunk(ino, position, ref);
      return ref;
    });
  }

  async *#merge(blobIndex: number, chunks: number[]): AsyncGenerator<Wanted> {
    const { blobs, meter } = this.#options;
    const cache = blobs[blobIndex]?.cache;
    if (cache === undefined) return;
    meter.prefetchUnmerged += chunks.length;
    const table = await cache.table();
    const sorted = [...new Set(chunks)].sort(
      (a, b) => table.storedOffset(a) - table.storedOffset(b) || a - b,
    );
    for (const range of mergeChunks(table, sorted, this.#batch)) yield { cache, range };
  }

  async *#wholeBlobs(): AsyncGenerator<Wanted> {
    for (const blob of this.#options.blobs) {
      if (blob === undefined) continue;
      const table = await blob.cache.table();
      for (let start = 0; start < table.count; start += FLUSH_CHUNKS) {
        const length = Math.min(FLUSH_CHUNKS, table.count - start);
        const chunks = Array.from({ length }, (_, i) => start + i);
        for (const range of mergeChunks(table, chunks, this.#batch)) yield { cache: blob.cache, range };
        await yieldTurn();
      }
    }
  }

  get #batch(): number {
    return Math.max(this.#options.run.batch_size, MIN_BATCH);
  }

  /** Wait for a free place, for readers and for the bandwidth limit, then start a range. */
  async #queue(cache: BlobCache, range: FetchRange): Promise<void> {
    const { meter, isBusy, run } = this.#options;
    this.#stop.signal.throwIfAborted();
    while (this.#running.size >= Math.max(1, run.threads)) await Promise.race(this.#running);
    const { link } = cache;
    if (link === undefined) while (isBusy() && this.#running.size > 0) await pause(BUSY_POLL_MS);
    await this.#throttle(range.end - range.start);
    // over a network: as fast as readers leave room
    const admitted = await link?.admit(range.end - range.start, Urgency.prefetch, this.#stop.signal);
    this.#stop.signal.throwIfAborted();
    meter.prefetchRequests++;
    meter.prefetchBytes += range.end - range.start;
    const started = performance.now();
    const fetching = cache
      .prefetch(range)
      .catch((error: unknown) =>
        this.#options.logger.warn(`prefetch of blob ${cache.blobId}: ${messageOf(error)}`),
      )
      .finally(() => {
        this.#running.delete(fetching);
        meter.prefetchMillis += performance.now() - started;
      });
    this.#running.add(fetching);
    await yieldTurn();
    admitted?.();
  }

  async #throttle(bytes: number): Promise<void> {
    if (this.#bucket === undefined) return;
    const user = this.#options.userBytes();
    const wait = this.#bucket.take(bytes + user - this.#userBytes);
    this.#userBytes = user;
    // in short steps, so that `stop` is not held up by a long wait
    for (let left = wait; left > 0 && !this.#stop.signal.aborted; left -= 100)
      await pause(Math.min(left, 100));
  }
}
