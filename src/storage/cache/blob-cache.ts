// One blob as one image reads it: what of it is local, and how the rest gets here. Chunks are fetched once however many ask, of
// other images too (blob-files.ts), verified before anybody sees them, written, marked ready in this process, and marked in the
// file once the data is flushed.
// Source: blob-and-cache.md 17, 18.
import { BackendError, IntegrityError } from '../../base/errors.ts';
import type { Link } from '../backend/link.ts';
import type { BlobFiles } from './blob-files.ts';
import { ChunkFetcher, type FetcherOptions, type JobEnd } from './chunk-fetcher.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { ChunkTable } from './chunk-table.ts';
import type { DataFile } from './data-file.ts';
import type { DecodeTarget } from './decode.ts';
import { JOB_BYTES } from './decode-plan.ts';
import { extendRange, mergeChunks, rangeOf, reachOf, type FetchRange } from './fetch-plan.ts';
import { KeptChunks } from './kept-chunks.ts';
import { withSignal } from './with-signal.ts';

/** Rounds of one read: those that wait for another image's fetch may be in vain. */
const MAX_ROUNDS = 5;

export interface BlobCacheOptions extends FetcherOptions {
  /** the files are used no longer: the last one to say so closes them */
  release: () => Promise<void>;
  /** loads the table; asked again after it has failed */
  loadTable: () => Promise<ChunkTable>;
  /** loads it past the file that is kept; undefined when none is, or it was just fetched */
  reloadTable: () => Promise<ChunkTable> | undefined;
}

export interface ObtainOptions {
  /** further chunks worth fetching with them, in order; they are not waited for */
  extra?: readonly number[];
  /** stored bytes of one ranged request; 0 = fetch only what is wanted */
  batch: number;
  /** true: extend each request with the chunks that follow in the blob */
  extend: boolean;
  /** false for prefetch and read-ahead */
  urgent: boolean;
  /** true: fetch past the cache, because reading from it has just failed */
  bypass?: boolean;
}

export class BlobCache {
  readonly blobId: string;
  readonly map: ChunkMap;
  readonly data: DataFile | undefined;
  /** `memory`: nothing is kept */
  readonly mode: DecodeTarget;
  readonly #options: BlobCacheOptions;
  readonly #files: BlobFiles;
  readonly #fetcher: ChunkFetcher;
  readonly #kept: KeptChunks;
  #table: Promise<ChunkTable> | undefined;

  constructor(options: BlobCacheOptions) {
    const { files, meter, digester } = options;
    this.blobId = options.blobId;
    this.map = files.map;
    this.data = files.data;
    this.mode = files.mode;
    this.#options = options;
    this.#files = files;
    this.#fetcher = new ChunkFetcher(options);
    this.#kept = new KeptChunks({ files, digester, meter });
  }

  /** The chunk table; loaded on first use, and again after a failure. */
  table(): Promise<ChunkTable> {
    return this.#table ?? this.#setTable(this.#options.loadTable());
  }

  #setTable(loading: Promise<ChunkTable>): Promise<ChunkTable> {
    this.#table = loading;
    loading.then(
      (table) => this.#files.neighbours?.use(table),
      () => {
        if (this.#table === loading) this.#table = undefined;
      },
    );
    return loading;
  }

  /**
   * What came of the table does not fit the data or the bootstrap: when it was kept in a file, which may be damaged, take
   * the one of the backend.
   *
   * @returns false when that cannot help
   */
  async reloadTable(): Promise<boolean> {
    const reloading = this.#options.reloadTable();
    if (reloading === undefined) return false;
    await this.#setTable(reloading);
    return true;
  }

  /** The network that missing chunks come over; undefined where they are local. */
  get link(): Link | undefined {
    return this.#options.reader?.link;
  }

  /** True while its file takes no data: it refused some lately, or cannot be written at all. */
  get isDegraded(): boolean {
    return this.#files.health.isDegraded || this.#files.isRefused;
  }

  /** Writes that its file refused. */
  get writeErrors(): number {
    return this.#files.health.writeErrors;
  }

  /** Chunks on their way. */
  get pendingCount(): number {
    return this.#files.pending.size;
  }

  /** True when a chunk is neither local nor on its way. */
  isMissing(index: number): boolean {
    return !this.map.isReady(index) && !this.#files.pending.has(index);
  }

  /**
   * Make chunks local.
   *
   * @returns plain bytes of those that cannot be read from a plain data file; the others are there now
   * @throws IntegrityError EIO  a wanted chunk failed its digest twice
   * @throws BackendError EIO    it could not be fetched
   */
  async obtain(
    wanted: readonly number[],
    options: ObtainOptions,
    signal?: AbortSignal,
  ): Promise<Map<number, Uint8Array>> {
    try {
      return await this.#obtain(wanted, options, signal);
    } catch (error) {
      // the chunk may be good and the table wrong about its place
      if (!(error instanceof IntegrityError) || !(await withSignal(this.reloadTable(), signal))) throw error;
      return this.#obtain(wanted, options, signal);
    }
  }

  async #obtain(
    wanted: readonly number[],
    options: ObtainOptions,
    signal: AbortSignal | undefined,
  ): Promise<Map<number, Uint8Array>> {
    const table = await withSignal(this.table(), signal);
    if (options.bypass === true) return withSignal(this.#fetchPast(table, wanted), signal);
    const out = new Map<number, Uint8Array>();
    let left = wanted.filter((index) => !this.#isLocal(table, index, out));
    // a second round finds what came with somebody else's fetch and was not kept for us, and asks for what another image could not get
    let foreign: Error | undefined;
    for (let round = 0; left.length > 0 && round < MAX_ROUNDS; round++) {
      const waits = this.#start(table, left, options);
      const ends = await withSignal(Promise.all(waits), signal);
      for (const { plain } of ends)
        for (const [index, bytes] of plain) if (left.includes(index)) out.set(index, bytes);
      const missing = left.filter((index) => !out.has(index) && !this.#isLocal(table, index, out));
      for (const { errors, by } of ends) {
        const error = missing.map((index) => errors.get(index)).find((each) => each !== undefined);
        if (error !== undefined && by === this.#fetcher) throw error;
        foreign = error ?? foreign;
      }
      left = missing;
    }
    if (left.length > 0)
      throw foreign ?? new BackendError(`blob ${this.blobId}: chunk ${left[0]} did not arrive`);
    return out;
  }

  async #fetchPast(table: ChunkTable, wanted: readonly number[]): Promise<Map<number, Uint8Array>> {
    const ranges = mergeChunks(table, wanted, JOB_BYTES);
    const how = { urgent: true, past: true };
    const ends = await Promise.all(
      ranges.flatMap((range) => this.#fetcher.fetch(table, range, new Set(wanted), how)),
    );
    for (const { errors } of ends) for (const error of errors.values()) throw error;
    return new Map(ends.flatMap(({ plain }) => [...plain]));
  }

  /** Start fetching chunks that nobody waits for. Resolves when they are here or failed. */
  async prefetch(range: FetchRange): Promise<void> {
    if (!this.#fetcher.isWritable) return;
    const table = await this.table();
    const { pending } = this.#files;
    const chunks = range.chunks.filter((index) => !this.refresh(table, index) && !pending.has(index));
    if (chunks.length === 0) return;
    await Promise.all(this.#fetcher.fetch(table, rangeOf(table, chunks), new Set(), { urgent: false }));
  }

  /** True when a chunk can be read at once; its bytes go to `out` when the plain file does not have them. */
  #isLocal(table: ChunkTable, index: number, out: Map<number, Uint8Array>): boolean {
    if (this.mode === 'plain' && this.refresh(table, index)) return true;
    // a file that takes data again is worth fetching for once more
    if (this.mode === 'plain' && this.#fetcher.isWritable) return false;
    const recent = this.#files.recent.get(index);
    if (recent !== undefined) out.set(index, recent);
    return recent !== undefined;
  }

  /** True when a chunk is local. Looks at the map file once more: another daemon may have fetched it. */
  refresh(table: ChunkTable, index: number): boolean {
    return this.#kept.has(table, index);
  }

  /** Start what is missing; the promises cover all of `wanted`. */
  #start(table: ChunkTable, wanted: readonly number[], options: ObtainOptions): Set<Promise<JobEnd>> {
    const fetcher = this.#fetcher;
    const { isWritable } = fetcher;
    const { pending } = this.#files;
    const wantedSet = new Set(wanted);
    this.#readKept(table, wanted);
    // without a place to put them, further chunks would be fetched in vain
    const extra = isWritable ? (options.extra ?? []) : [];
    const missing = [...new Set([...wanted, ...extra])].filter((index) => !pending.has(index));
    const chunks = missing.filter((index) => !this.refresh(table, index));
    const reach = reachOf(Math.max(options.batch, 1), this.link);
    for (const range of mergeChunks(table, chunks, Math.max(options.batch, 1), reach.gap)) {
      const todo = options.extend && isWritable ? this.#extend(table, range, reach.batch) : range;
      const fresh = todo.chunks.filter((index) => !pending.has(index));
      if (fresh.length > 0)
        void fetcher.fetch(table, rangeOf(table, fresh), wantedSet, { urgent: options.urgent });
    }
    if (options.urgent) for (const index of wanted) if (pending.has(index)) this.#files.awaited.add(index);
    const waits = wanted.map((index) => pending.get(index)).filter((wait) => wait !== undefined);
    return new Set(waits);
  }

  #extend(table: ChunkTable, range: FetchRange, batch: number): FetchRange {
    const { pending } = this.#files;
    const missing = (index: number): boolean =>
      !pending.has(index) && !this.refresh(table, index) && this.#mayCache(table, index);
    return extendRange(table, range, batch, missing);
  }

  /** A chunk that nothing can verify is not cached unless a reader of this image wants it. */
  #mayCache(table: ChunkTable, index: number): boolean {
    return table.digest(index) !== undefined || table.crc(index) >= 0;
  }

  /** Raw and encrypted files: decode what is there. */
  #readKept(table: ChunkTable, wanted: readonly number[]): void {
    const { data, mode } = this;
    if (data === undefined || (mode !== 'raw' && mode !== 'sealed')) return;
    for (const index of wanted)
      if (!this.#files.pending.has(index) && this.refresh(table, index))
        void this.#fetcher.readKept(table, index, data);
  }

  /**
   * Take cold chunks out of the data file. Does nothing while another process uses it, or the kernel reads it by itself.
   *
   * @param bytes how much is wanted
   * @returns how much was given back
   */
  async giveBack(bytes: number): Promise<number> {
    const { data, map } = this;
    if (data === undefined || (this.mode !== 'plain' && this.mode !== 'sealed')) return 0;
    if (!map.persistent) return 0;
    const table = await this.table();
    // from here on nothing else runs on this thread until the data is gone
    const { pending, puncher, neighbours } = this.#files;
    const taken = (cold: readonly number[]): void => neighbours?.withdraw(cold);
    const isMoving = (index: number): boolean => pending.has(index);
    return data.whileSole(() => puncher.punch(table, data.fd, bytes, isMoving, taken)) ?? 0;
  }

  /** Wait for what was started here, and let go of the files. No reader of this image may read from the data file any more. */
  async close(): Promise<void> {
    // a table that is still being loaded writes its file
    const table = await this.#table?.catch(() => undefined);
    await this.#fetcher.settled();
    await this.#options.release();
    if (table !== undefined) this.#files.neighbours?.leave(table);
    table?.close?.();
  }
}
