// Brings chunks of one blob here: one fetch per chunk however many ask, decoded and verified in jobs, written to the cache
// file where that takes data; a chunk that fails its check is fetched once more, alone. Source: blob-and-cache.md 18.6.
import { errnoName } from '../../base/errno.ts';
import { BackendError, IntegrityError, NydusError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { CompressorName, DigesterName } from '../../codec/algorithms.ts';
import type { BlobReader } from '../backend/backend.ts';
import type { BlobFiles } from './blob-files.ts';
import type { ChunkTable } from './chunk-table.ts';
import type { DataFile } from './data-file.ts';
import { ChunkOutcome, type ChunkFailure, type DecodeResult, type Seal } from './decode.ts';
import { decodeJob, JOB_BYTES, splitRange, type JobOptions } from './decode-plan.ts';
import type { DecodePool, Urgent } from './decode-pool.ts';
import { PlacedTable } from '../dedup/placed-table.ts';
import { SourceFile } from '../dedup/source-file.ts';
import { mergeChunks, rangeOf, type FetchRange } from './fetch-plan.ts';
import type { CacheMeter } from './meter.ts';
import { SealedTable } from './sealed-table.ts';
import { StreamedRange } from './streamed-range.ts';

export interface FetcherOptions {
  blobId: string;
  compressor: CompressorName;
  digester: DigesterName;
  /** undefined while the backend has no such blob */
  reader: BlobReader | undefined;
  files: BlobFiles;
  /** how an encrypted cache file is encrypted */
  seal: Seal | undefined;
  pool: DecodePool;
  meter: CacheMeter;
  logger: Logger;
}

/** Bytes between two chunks of another cache file that are read along. */
const SOURCE_GAP = 16 * 1024;
/** Stored bytes between two chunks that are fetched although the node has what lies there. */
const KNOWN_GAP = 8 * 1024;

export interface FetchHow {
  /** a reader waits */
  urgent: boolean;
  /** decoded bytes go to the caller only */
  past?: boolean;
}

/** How one job ended; never rejects. */
export interface JobEnd {
  /** who started it: with the chunk table and the credentials of one image, which may be wrong for that one alone */
  by: ChunkFetcher;
  plain: Map<number, Uint8Array>;
  /** chunk index to what went wrong */
  errors: Map<number, Error>;
}

export class ChunkFetcher {
  readonly #options: FetcherOptions;
  /** jobs that were started here */
  readonly #running = new Set<Promise<JobEnd>>();

  constructor(options: FetcherOptions) {
    this.#options = options;
  }

  /** Resolves when nothing that was started here is under way. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** True while data can be written to the cache file. */
  get isWritable(): boolean {
    const { mode, data, health } = this.#options.files;
    return mode !== 'memory' && data?.writable === true && health.isUsable;
  }

  /** Decode a chunk of a raw or an encrypted cache file; when that fails it is forgotten, and fetched on the next try. */
  readKept(table: ChunkTable, index: number, data: DataFile): Promise<JobEnd> {
    const { pool, meter, logger, blobId } = this.#options;
    const { map, mode } = this.#options.files;
    const stored = mode === 'sealed' ? new SealedTable(table) : table;
    const part = rangeOf(stored, [index]);
    const wanted = new Set([index]);
    const how = { wanted, target: 'memory', sourceFd: data.fd, stored: undefined } as const;
    const job = this.#job(stored, part, { ...how, opens: mode === 'sealed' });
    const end = pool
      .run(job, () => true)
      .then(({ plain }) => {
        this.#options.files.arrived(index);
        meter.wholeHits++;
        if (plain.size === 0) {
          logger.warn(`blob ${blobId}: chunk ${index} in the ${mode} cache is damaged, fetching it again`);
          map.forget(index);
        }
        this.#keepRecent(plain);
        return { by: this, plain, errors: new Map<number, Error>() };
      });
    return this.#settle([index], end);
  }

  /** Get a range: what other cache files of the node have from there, the rest from the backend. */
  fetch(table: ChunkTable, range: FetchRange, wanted: ReadonlySet<number>, how: FetchHow): Promise<JobEnd>[] {
    const { neighbours, mode } = this.#options.files;
    const usable = neighbours !== undefined && mode === 'plain' && this.isWritable && how.past !== true;
    const found = usable ? neighbours.find(table, range.chunks) : [];
    if (neighbours === undefined || found.length === 0) return this.#fetchRange(table, range, wanted, how);
    const ends: Promise<JobEnd>[] = [];
    const left = new Set(range.chunks);
    for (const { path, offsets } of found) {
      const source = SourceFile.open(path);
      if (source === undefined) continue;
      const placed = new PlacedTable(table, offsets);
      const { chunks } = rangeOf(placed, [...offsets.keys()]);
      for (const part of mergeChunks(placed, chunks, JOB_BYTES, SOURCE_GAP)) {
        for (const index of part.chunks) left.delete(index);
        ends.push(this.#settle(part.chunks, this.#copy(table, placed, part, source, path, wanted, how)));
      }
      source.release();
    }
    return [...ends, ...this.#fetchLeft(table, [...left], wanted, how)];
  }

  #fetchLeft(
    table: ChunkTable,
    chunks: readonly number[],
    wanted: ReadonlySet<number>,
    how: FetchHow,
  ): Promise<JobEnd>[] {
    const sorted = rangeOf(table, chunks).chunks;
    return mergeChunks(table, sorted, Infinity, KNOWN_GAP).flatMap((range) =>
      this.#fetchRange(table, range, wanted, how),
    );
  }

  /** Copy chunks out of another cache file; what turns out not to be there is fetched. */
  async #copy(
    table: ChunkTable,
    placed: PlacedTable,
    part: FetchRange,
    source: SourceFile,
    path: string,
    wanted: ReadonlySet<number>,
    how: FetchHow,
  ): Promise<JobEnd> {
    const { pool, meter, logger, blobId, files } = this.#options;
    source.hold();
    const target = { wanted, target: 'plain', sourceFd: source.fd, stored: undefined, clones: true } as const;
    const urgent = how.urgent && part.chunks.some((index) => wanted.has(index));
    const result = await pool
      .run(this.#job(placed, part, target), this.#urgency(part, urgent))
      .catch((error: unknown) =>
        logger.warn(`blob ${blobId}: cannot copy chunks from ${path}: ${messageOf(error)}`),
      )
      .finally(() => source.release());
    for (const index of part.chunks) files.arrived(index);
    const bad = part.chunks.filter(
      (_, at) => (result?.outcomes[at] ?? ChunkOutcome.bad) === ChunkOutcome.bad,
    );
    const end: JobEnd = {
      by: this,
      plain: result?.plain ?? new Map<number, Uint8Array>(),
      errors: new Map(),
    };
    if (result !== undefined && result.got >= 0) {
      meter.dedupChunks += part.chunks.length - bad.length;
      meter.dedupBytes += result.plainBytes;
      meter.dedupShared += result.cloned;
      this.#account(placed, part, result);
      this.#keepRecent(result.plain);
    }
    if (bad.length === 0) return end;
    files.neighbours?.refute(path, table, bad);
    for (const { plain, errors } of await Promise.all(this.#fetchLeft(table, bad, wanted, how))) {
      for (const [index, bytes] of plain) end.plain.set(index, bytes);
      for (const [index, error] of errors) end.errors.set(index, error);
    }
    return end;
  }

  /** Fetch a range in jobs: the ones a reader waits for first. */
  #fetchRange(
    table: ChunkTable,
    range: FetchRange,
    wanted: ReadonlySet<number>,
    how: FetchHow,
  ): Promise<JobEnd>[] {
    const { reader } = this.#options;
    const parts = splitRange(table, range, wanted);
    const local = reader !== undefined && reader.fd >= 0;
    const stream = local || reader === undefined ? undefined : this.#stream(reader, range, !how.urgent);
    const isWanted = (part: FetchRange): boolean => part.chunks.some((index) => wanted.has(index));
    const ordered = [...parts.filter(isWanted), ...parts.filter((part) => !isWanted(part))];
    return ordered.map((part) => {
      const bytes = stream?.part(part.start - range.start, part.end - range.start);
      const end = this.#runPart(table, part, wanted, { ...how, urgent: how.urgent && isWanted(part) }, bytes);
      return this.#settle(part.chunks, end, how.past);
    });
  }

  #settle(chunks: readonly number[], end: Promise<JobEnd>, past = false): Promise<JobEnd> {
    const settled = end
      .catch((error: unknown) => this.#jobFailed(chunks, error))
      .finally(() => this.#running.delete(settled));
    this.#running.add(settled);
    const { pending } = this.#options.files;
    if (!past) for (const index of chunks) pending.set(index, settled);
    return settled;
  }

  #keepRecent(plain: Map<number, Uint8Array>): void {
    const { mode, recent } = this.#options.files;
    if (mode === 'plain' && this.isWritable) return;
    for (const [index, bytes] of plain) recent.add(index, bytes);
  }

  #stream(reader: BlobReader, range: FetchRange, prefetch: boolean): StreamedRange {
    const { meter } = this.#options;
    const length = range.end - range.start;
    meter.buffered += length;
    return new StreamedRange(reader, range.start, length, prefetch, () => (meter.buffered -= length));
  }

  async #runPart(
    table: ChunkTable,
    part: FetchRange,
    wanted: ReadonlySet<number>,
    how: FetchHow,
    bytes: Promise<Uint8Array> | undefined,
  ): Promise<JobEnd> {
    const { reader, pool, meter, blobId, files } = this.#options;
    if (reader === undefined)
      throw new BackendError(`blob ${blobId} is not complete and the backend does not have it`);
    const target = this.isWritable && how.past !== true ? files.mode : 'memory';
    const stored = await bytes;
    const length = part.end - part.start;
    meter.buffered += length;
    try {
      const job = this.#job(table, part, { wanted, target, sourceFd: reader.fd, stored });
      const result = await pool.run(job, this.#urgency(part, how.urgent));
      if (stored === undefined) reader.note(part.start, result.got, result.readMillis);
      else reader.link?.digested(stored.length, result.millis);
      return await this.#finish(table, part, wanted, result);
    } finally {
      meter.buffered -= length;
      if (how.past !== true) for (const index of part.chunks) files.arrived(index);
    }
  }

  /** Somebody may come to wait for a part that was not urgent when it was asked for. */
  #urgency({ chunks }: FetchRange, urgent: boolean): Urgent {
    const { awaited } = this.#options.files;
    return () => urgent || (awaited.size > 0 && chunks.some((index) => awaited.has(index)));
  }

  #job(
    table: ChunkTable,
    part: FetchRange,
    what: Pick<JobOptions, 'wanted' | 'target' | 'sourceFd' | 'stored' | 'opens' | 'clones'>,
  ): ReturnType<typeof decodeJob> {
    const { compressor, digester, files, seal } = this.#options;
    const { data, map } = files;
    const common = { compressor, digester, dataFd: data?.fd ?? -1, ready: map.ready, seal };
    return decodeJob(table, part, { ...common, ...what });
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
        `cannot read ${part.end - part.start} bytes at ${part.start} of blob ${this.#options.blobId}: ${errnoName(-result.got)}`,
      );
    }
    this.#account(table, part, result);
    this.#keepRecent(result.plain);
    for (const failure of result.failures) {
      const again = await this.#fetchAgain(table, failure, wanted);
      if (again instanceof Error) errors.set(failure.index, again);
      else for (const [index, bytes] of again) result.plain.set(index, bytes);
    }
    return { by: this, plain: result.plain, errors };
  }

  #account(table: ChunkTable, part: FetchRange, result: DecodeResult): void {
    const { meter, files } = this.#options;
    const { health, publisher } = files;
    part.chunks.forEach((index, at) => {
      if (result.outcomes[at] !== ChunkOutcome.cached) return;
      meter.entries++;
      publisher.add(index, table.plainSize(index));
    });
    if (result.writeErrno !== 0) health.failed(result.writeErrno);
    else if (result.outcomes.includes(ChunkOutcome.cached)) health.succeeded();
    publisher.schedule();
  }

  /** A chunk failed its check: read it once more, alone; when that fails as well nobody gets it. */
  async #fetchAgain(
    table: ChunkTable,
    failure: ChunkFailure,
    wanted: ReadonlySet<number>,
  ): Promise<Map<number, Uint8Array> | Error> {
    const { index } = failure;
    const { reader, pool, logger, blobId, files } = this.#options;
    try {
      if (reader === undefined) throw new BackendError(`blob ${blobId} is not in the backend`);
      const part = rangeOf(table, [index]);
      const stored = await reader.read(part.start, part.end - part.start);
      const target = this.isWritable ? files.mode : 'memory';
      const job = this.#job(table, part, { wanted, target, sourceFd: -1, stored });
      const result = await pool.run(job, this.#urgency(part, wanted.has(index)));
      const second = result.failures[0];
      if (second === undefined) {
        logger.warn(
          `blob ${blobId}: chunk ${index} arrived damaged (${failure.problem}), the second fetch is good`,
        );
        this.#account(table, part, result);
        this.#keepRecent(result.plain);
        return result.plain;
      }
      const error = new IntegrityError(`blob ${blobId}: chunk ${index}: ${second.problem}`, {
        hint: 'the blob in the backend is damaged or is not the one the image was built with',
      });
      logger.error(error.message);
      return error;
    } catch (error) {
      return error instanceof Error ? error : new BackendError(messageOf(error));
    }
  }

  #jobFailed(chunks: readonly number[], error: unknown): JobEnd {
    for (const index of chunks) this.#options.files.arrived(index);
    const wrapped =
      error instanceof NydusError ? error : new BackendError(messageOf(error), { cause: error });
    this.#options.logger.error(`blob ${this.#options.blobId}: ${wrapped.message}`);
    return { by: this, plain: new Map(), errors: new Map(chunks.map((index) => [index, wrapped])) };
  }
}
