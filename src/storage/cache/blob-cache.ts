// One blob: what of it is local, and how the rest gets here. Chunks are fetched once however many ask, verified before
// anybody sees them, written, marked ready in this process, and marked in the file once the data is flushed.
// Source: blob-and-cache.md 17, 18.
import { errnoName } from '../../base/errno.ts';
import { BackendError, IntegrityError, NydusError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { CompressorName, DigesterName } from '../../codec/algorithms.ts';
import { digestOf } from '../../codec/digest.ts';
import { addressOf, preadFull } from '../../native/file-io.ts';
import type { BlobReader } from '../backend/backend.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { ChunkTable } from './chunk-table.ts';
import type { DataFile } from './data-file.ts';
import {
  ChunkOutcome,
  type ChunkFailure,
  type DecodeJob,
  type DecodeResult,
  type DecodeTarget,
} from './decode.ts';
import { decodeJob, JOB_BYTES, splitRange } from './decode-plan.ts';
import type { DecodePool } from './decode-pool.ts';
import { extendRange, mergeChunks, rangeOf, type FetchRange } from './fetch-plan.ts';
import type { CacheMeter } from './meter.ts';
import { Publisher } from './publisher.ts';
import { RecentChunks } from './recent-chunks.ts';
import { withSignal } from './with-signal.ts';

/** A cache that refused data is tried again after this time. */
const BROKEN_MS = 30_000;

export interface BlobCacheOptions {
  blobId: string;
  compressor: CompressorName;
  digester: DigesterName;
  /** undefined while the backend has no such blob: what is local is served, the rest fails */
  reader: BlobReader | undefined;
  /** `memory`: nothing is kept */
  mode: DecodeTarget;
  map: ChunkMap;
  data: DataFile | undefined;
  /** loads the table; asked again after it has failed */
  loadTable: () => Promise<ChunkTable>;
  /** verify chunks found in the cache before their first use in this process */
  validate: boolean;
  /** look for a chunk in the data file, verifying it, before it is fetched: the map does not know */
  probe: boolean;
  /** milliseconds until what was written is flushed and its bits are set in the file */
  publishMs: number;
  pool: DecodePool;
  meter: CacheMeter;
  logger: Logger;
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

interface FetchHow {
  urgent: boolean;
  /** decoded bytes go to the caller only */
  past?: boolean;
}

/** How one job ended; never rejects. */
interface JobEnd {
  plain: Map<number, Uint8Array>;
  /** chunk index to what went wrong */
  errors: Map<number, Error>;
}

export class BlobCache {
  readonly blobId: string;
  readonly map: ChunkMap;
  readonly data: DataFile | undefined;
  readonly mode: DecodeTarget;
  readonly #options: BlobCacheOptions;
  readonly #pending = new Map<number, Promise<JobEnd>>();
  readonly #recent = new RecentChunks();
  readonly #publisher: Publisher;
  /** chunks of the raw file that failed their check: the map file still says ready */
  readonly #damaged = new Set<number>();
  /** chunks that were looked for in the data file */
  readonly #probed = new Set<number>();
  #table: Promise<ChunkTable> | undefined;
  #brokenUntil = 0;
  #warned = false;

  constructor(options: BlobCacheOptions) {
    this.blobId = options.blobId;
    this.map = options.map;
    this.data = options.data;
    this.mode = options.mode;
    this.#options = options;
    this.#publisher = new Publisher(options.map, options.data, options.publishMs, options.logger);
  }

  /** The chunk table; loaded on first use, and again after a failure. */
  table(): Promise<ChunkTable> {
    if (this.#table === undefined) {
      const loading = this.#options.loadTable();
      this.#table = loading;
      loading.catch(() => {
        if (this.#table === loading) this.#table = undefined;
      });
    }
    return this.#table;
  }

  /** True while data can be written to the cache file. */
  get #writable(): boolean {
    return this.mode !== 'memory' && this.data?.writable === true && performance.now() >= this.#brokenUntil;
  }

  /** Chunks on their way. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** True when a chunk is neither local nor on its way. */
  isMissing(index: number): boolean {
    return !this.map.isReady(index) && !this.#pending.has(index);
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
    const table = await withSignal(this.table(), signal);
    if (options.bypass === true) return withSignal(this.#fetchPast(table, wanted), signal);
    const out = new Map<number, Uint8Array>();
    let left = wanted.filter((index) => !this.#isLocal(table, index, out));
    // a second round finds what came with somebody else's fetch and was not kept for us
    for (let round = 0; left.length > 0 && round < 3; round++) {
      const waits = this.#start(table, left, options);
      const ends = await withSignal(Promise.all(waits), signal);
      for (const { plain } of ends)
        for (const [index, bytes] of plain) if (left.includes(index)) out.set(index, bytes);
      const missing = left.filter((index) => !out.has(index) && !this.#isLocal(table, index, out));
      for (const { errors } of ends) for (const index of missing) throwIfSet(errors.get(index));
      left = missing;
    }
    if (left.length > 0) throw new BackendError(`blob ${this.blobId}: chunk ${left[0]} did not arrive`);
    return out;
  }

  async #fetchPast(table: ChunkTable, wanted: readonly number[]): Promise<Map<number, Uint8Array>> {
    const ranges = mergeChunks(table, wanted, JOB_BYTES);
    const ends = await Promise.all(
      ranges.flatMap((range) => this.#fetch(table, range, new Set(wanted), { urgent: true, past: true })),
    );
    for (const { errors } of ends) for (const error of errors.values()) throw error;
    return new Map(ends.flatMap(({ plain }) => [...plain]));
  }

  /** Start fetching chunks that nobody waits for. Resolves when they are here or failed. */
  async prefetch(range: FetchRange): Promise<void> {
    if (!this.#writable) return;
    const table = await this.table();
    const chunks = range.chunks.filter((index) => !this.refresh(table, index) && !this.#pending.has(index));
    if (chunks.length > 0)
      await Promise.all(this.#fetch(table, rangeOf(table, chunks), new Set(), { urgent: false }));
  }

  /** True when a chunk can be read at once; its bytes go to `out` when the plain file does not have them. */
  #isLocal(table: ChunkTable, index: number, out: Map<number, Uint8Array>): boolean {
    if (this.mode === 'plain' && this.refresh(table, index)) return true;
    const recent = this.#recent.get(index);
    if (recent !== undefined) out.set(index, recent);
    return recent !== undefined;
  }

  /** True when a chunk is local. Looks at the map file once more: another daemon may have fetched it. */
  refresh(table: ChunkTable, index: number): boolean {
    if (this.#damaged.has(index)) return false;
    if (this.map.refresh(index)) return true;
    if (this.mode !== 'plain') return false;
    const { validate, probe } = this.#options;
    if (validate && this.map.isReadyInFile(index)) return this.#verifyCached(table, index);
    if (!probe || this.#probed.has(index)) return false;
    this.#probed.add(index);
    if (!this.#verifyCached(table, index)) return false;
    this.#publisher.add(index, table.plainSize(index));
    this.#publisher.schedule();
    return true;
  }

  /** Verify a chunk of the plain data file; it is ready in this process when that succeeds. */
  #verifyCached(table: ChunkTable, index: number): boolean {
    const size = table.plainSize(index);
    const bytes = new Uint8Array(size);
    if (this.data === undefined) return false;
    if (preadFull(this.data.fd, addressOf(bytes), size, table.plainOffset(index)) !== size) return false;
    const expected = table.digest(index);
    if (expected === undefined || !digestOf(this.#options.digester, bytes).equals(expected)) return false;
    this.#options.meter.wholeHits++;
    this.map.mark(index);
    return true;
  }

  /** Start what is missing; the promises cover all of `wanted`. */
  #start(table: ChunkTable, wanted: readonly number[], options: ObtainOptions): Set<Promise<JobEnd>> {
    const waits = new Set<Promise<JobEnd>>();
    const wantedSet = new Set(wanted);
    if (this.mode === 'raw') this.#readRaw(table, wanted, waits);
    // without a place to put them, further chunks would be fetched in vain
    const extra = this.#writable ? (options.extra ?? []) : [];
    const missing = [...new Set([...wanted, ...extra])].filter((index) => !this.#pending.has(index));
    const chunks = missing.filter((index) => !this.refresh(table, index));
    for (const range of mergeChunks(table, chunks, Math.max(options.batch, 1))) {
      const todo = options.extend && this.#writable ? this.#extend(table, range, options.batch) : range;
      const fresh = todo.chunks.filter((index) => !this.#pending.has(index));
      if (fresh.length > 0)
        void this.#fetch(table, rangeOf(table, fresh), wantedSet, { urgent: options.urgent });
    }
    for (const index of wanted) {
      const pending = this.#pending.get(index);
      if (pending !== undefined) waits.add(pending);
    }
    return waits;
  }

  #extend(table: ChunkTable, range: FetchRange, batch: number): FetchRange {
    const missing = (index: number): boolean =>
      !this.#pending.has(index) && !this.refresh(table, index) && this.#mayCache(table, index);
    return extendRange(table, range, batch, missing);
  }

  /** A chunk that nothing can verify is not cached unless a reader of this image wants it. */
  #mayCache(table: ChunkTable, index: number): boolean {
    return table.digest(index) !== undefined || table.crc(index) >= 0;
  }

  /** Raw mode: decode chunks whose stored bytes are local; those that fail are fetched again. */
  #readRaw(table: ChunkTable, wanted: readonly number[], waits: Set<Promise<JobEnd>>): void {
    const { data } = this;
    if (data === undefined) return;
    for (const index of wanted) {
      if (this.#pending.has(index) || !this.refresh(table, index)) continue;
      const job = this.#job(table, rangeOf(table, [index]), new Set([index]), 'memory', data.fd, undefined);
      const end = this.#options.pool.run(job, true).then((result) => {
        this.#pending.delete(index);
        this.#options.meter.wholeHits++;
        if (result.plain.size === 0) {
          this.#options.logger.warn(
            `blob ${this.blobId}: chunk ${index} in the raw cache is damaged, fetching it again`,
          );
          this.#damaged.add(index);
          this.map.unmark(index);
        }
        this.#keepRecent(result.plain);
        return { plain: result.plain, errors: new Map<number, Error>() };
      });
      const settled = end.catch((error: unknown) => this.#jobFailed([index], error));
      this.#pending.set(index, settled);
      waits.add(settled);
    }
  }

  #keepRecent(plain: Map<number, Uint8Array>): void {
    if (this.mode === 'plain' && this.#writable) return;
    for (const [index, bytes] of plain) this.#recent.add(index, bytes);
  }

  /** Fetch a range in jobs: the ones a reader waits for first. */
  #fetch(
    table: ChunkTable,
    range: FetchRange,
    wanted: ReadonlySet<number>,
    how: FetchHow,
  ): Promise<JobEnd>[] {
    const { reader } = this.#options;
    const parts = splitRange(table, range);
    const local = reader !== undefined && reader.fd >= 0;
    const whole = local || reader === undefined ? undefined : this.#readRange(reader, range, !how.urgent);
    const isWanted = (part: FetchRange): boolean => part.chunks.some((index) => wanted.has(index));
    const ordered = [...parts.filter(isWanted), ...parts.filter((part) => !isWanted(part))];
    return ordered.map((part) => {
      const bytes = whole?.then((all) => all.subarray(part.start - range.start, part.end - range.start));
      const end = this.#runPart(table, part, wanted, { ...how, urgent: how.urgent && isWanted(part) }, bytes);
      const settled = end.catch((error: unknown) => this.#jobFailed(part.chunks, error));
      if (how.past !== true) for (const index of part.chunks) this.#pending.set(index, settled);
      return settled;
    });
  }

  async #readRange(reader: BlobReader, range: FetchRange, prefetch: boolean): Promise<Uint8Array> {
    const length = range.end - range.start;
    this.#options.meter.buffered += length;
    try {
      const bytes = await reader.read(range.start, length, undefined, { prefetch });
      const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
      shared.set(bytes);
      return shared;
    } finally {
      this.#options.meter.buffered -= length;
    }
  }

  async #runPart(
    table: ChunkTable,
    part: FetchRange,
    wanted: ReadonlySet<number>,
    how: FetchHow,
    bytes: Promise<Uint8Array> | undefined,
  ): Promise<JobEnd> {
    const { reader, pool, meter } = this.#options;
    if (reader === undefined)
      throw new BackendError(`blob ${this.blobId} is not complete and the backend does not have it`);
    const target = this.#writable && how.past !== true ? this.mode : 'memory';
    const stored = await bytes;
    const length = part.end - part.start;
    meter.buffered += length;
    try {
      const job = this.#job(table, part, wanted, target, reader.fd, stored);
      const result = await pool.run(job, how.urgent);
      if (stored === undefined) reader.note(part.start, result.got, result.readMillis);
      return await this.#finish(table, part, wanted, result);
    } finally {
      meter.buffered -= length;
      if (how.past !== true) for (const index of part.chunks) this.#pending.delete(index);
    }
  }

  #job(
    table: ChunkTable,
    part: FetchRange,
    wanted: ReadonlySet<number>,
    target: DecodeTarget,
    sourceFd: number,
    stored: Uint8Array | undefined,
  ): DecodeJob {
    const { compressor, digester } = this.#options;
    const dataFd = this.data?.fd ?? -1;
    const { ready } = this.map;
    return decodeJob(table, part, { compressor, digester, wanted, target, sourceFd, stored, dataFd, ready });
  }

  async #finish(
    table: ChunkTable,
    part: FetchRange,
    wanted: ReadonlySet<number>,
    result: DecodeResult,
  ): Promise<JobEnd> {
    const errors = new Map<number, Error>();
    if (result.got < 0) {
      throw new BackendError(
        `cannot read ${part.end - part.start} bytes at ${part.start} of blob ${this.blobId}: ${errnoName(-result.got)}`,
      );
    }
    this.#account(table, part, result);
    this.#keepRecent(result.plain);
    for (const failure of result.failures) {
      const again = await this.#fetchAgain(table, failure, wanted);
      if (again instanceof Error) errors.set(failure.index, again);
      else for (const [index, bytes] of again) result.plain.set(index, bytes);
    }
    return { plain: result.plain, errors };
  }

  #account(table: ChunkTable, part: FetchRange, result: DecodeResult): void {
    const { meter, logger } = this.#options;
    part.chunks.forEach((index, at) => {
      if (result.outcomes[at] !== ChunkOutcome.cached) return;
      meter.entries++;
      this.#damaged.delete(index);
      this.#publisher.add(index, table.plainSize(index));
    });
    if (result.writeErrno !== 0) {
      this.#brokenUntil = performance.now() + BROKEN_MS;
      if (!this.#warned) {
        this.#warned = true;
        logger.warn(
          `cache file ${this.data?.path} cannot be written (${errnoName(result.writeErrno)}): blob ${this.blobId} is served without caching`,
        );
      }
    } else if (this.#warned && result.outcomes.includes(ChunkOutcome.cached)) {
      this.#warned = false;
      logger.info(`cache file ${this.data?.path} takes data again`);
    }
    this.#publisher.schedule();
  }

  /** A chunk failed its check: read it once more, alone; when that fails as well nobody gets it. */
  async #fetchAgain(
    table: ChunkTable,
    failure: ChunkFailure,
    wanted: ReadonlySet<number>,
  ): Promise<Map<number, Uint8Array> | Error> {
    const { index } = failure;
    const { reader, pool, logger } = this.#options;
    try {
      if (reader === undefined) throw new BackendError(`blob ${this.blobId} is not in the backend`);
      const part = rangeOf(table, [index]);
      const bytes = await reader.read(part.start, part.end - part.start);
      const target = this.#writable ? this.mode : 'memory';
      const result = await pool.run(this.#job(table, part, wanted, target, -1, bytes), wanted.has(index));
      const second = result.failures[0];
      if (second === undefined) {
        logger.warn(
          `blob ${this.blobId}: chunk ${index} arrived damaged (${failure.problem}), the second fetch is good`,
        );
        this.#account(table, part, result);
        this.#keepRecent(result.plain);
        return result.plain;
      }
      const error = new IntegrityError(`blob ${this.blobId}: chunk ${index}: ${second.problem}`, {
        hint: 'the blob in the backend is damaged or is not the one the image was built with',
      });
      logger.error(error.message);
      return error;
    } catch (error) {
      return error instanceof Error ? error : new BackendError(messageOf(error));
    }
  }

  #jobFailed(chunks: readonly number[], error: unknown): JobEnd {
    for (const index of chunks) this.#pending.delete(index);
    const wrapped =
      error instanceof NydusError ? error : new BackendError(messageOf(error), { cause: error });
    this.#options.logger.error(`blob ${this.blobId}: ${wrapped.message}`);
    return { plain: new Map(), errors: new Map(chunks.map((index) => [index, wrapped])) };
  }

  /** Wait for what is under way, publish, close the files. Nobody may read from the data file any more. */
  async close(): Promise<void> {
    this.#publisher.stop();
    // a table that is still being loaded writes its file
    const table = await this.#table?.catch(() => undefined);
    await Promise.all(this.#pending.values());
    await this.#publisher.finish();
    this.map.close();
    this.data?.close();
    table?.close?.();
  }
}

function throwIfSet(error: Error | undefined): void {
  if (error !== undefined) throw error;
}
