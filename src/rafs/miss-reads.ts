// Reads of what is not local: which chunks a read needs, where bootstrap and blob agree they are, getting them with what else is worth
// getting, and putting the read together. Lives on the main thread. Source: blob-and-cache.md 17, 18.
import { BackendError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { newAttr, type ChunkRef, type RafsImage } from '../format/image.ts';
import { addressOf, preadFull } from '../native/file-io.ts';
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import { MIN_BATCH } from '../storage/cache/fetch-plan.ts';
import type { CacheMeter } from '../storage/cache/meter.ts';
import type { RecordTable } from '../storage/cache/record-table.ts';
import { amplify5 } from './amplify.ts';
import type { LinkReadAhead } from './link-read-ahead.ts';
import type { OpenBlob } from './open-blobs.ts';
import type { ReadAhead } from './read-ahead.ts';
import { chunksOfFile, planRead, type ReadPiece } from './read-plan.ts';

export interface MissReadsOptions {
  image: RafsImage;
  /** by blob index; undefined for one without chunks */
  blobs: readonly (OpenBlob | undefined)[];
  /** by blob index; undefined where nothing is read ahead */
  ahead: readonly (ReadAhead | LinkReadAhead | undefined)[];
  /** by blob index: the chunk that was read last */
  positions: Int32Array;
  /** bytes that a fetch may be extended to; 0 = not at all */
  batchSize: number;
  /** false: what is fetched is not kept, so nothing is fetched beyond what is asked for */
  keeps: boolean;
  meter: CacheMeter;
  logger: Logger;
}

export class MissReads {
  /** readers that wait for a fetch */
  waiting = 0;
  /** bytes that readers have asked for and that were not local */
  userBytes = 0;
  readonly #image: RafsImage;
  readonly #blobs: MissReadsOptions['blobs'];
  readonly #ahead: MissReadsOptions['ahead'];
  readonly #positions: Int32Array;
  readonly #batchSize: number;
  readonly #batch: number;
  readonly #keeps: boolean;
  readonly #meter: CacheMeter;
  readonly #logger: Logger;

  constructor(options: MissReadsOptions) {
    this.#image = options.image;
    this.#blobs = options.blobs;
    this.#ahead = options.ahead;
    this.#positions = options.positions;
    this.#batchSize = options.batchSize;
    this.#batch = Math.max(options.batchSize, MIN_BATCH);
    this.#keeps = options.keeps;
    this.#meter = options.meter;
    this.#logger = options.logger;
  }

  /** Read from a regular file. As `RafsInstance.read`. */
  async read(
    ino: number,
    offset: number,
    size: number,
    target: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const attr = newAttr();
    this.#image.attr(ino, attr);
    const pieces = planRead(this.#image, ino, attr.size, offset, size);
    this.waiting++;
    let plain: Map<number, Map<number, Uint8Array>>;
    try {
      plain = await this.#obtain(ino, offset, size, pieces, signal);
    } finally {
      this.waiting--;
    }
    const length = Math.min(size, attr.size - offset);
    target.fill(0, 0, length);
    for (const piece of pieces) {
      const bytes = plain.get(piece.ref.blobIndex)?.get(piece.ref.chunkIndex);
      if (bytes !== undefined) target.set(bytes.subarray(piece.from, piece.from + piece.size), piece.at);
      else await this.#readFile(piece, target, signal);
    }
    return length;
  }

  /** Make chunks of a blob local. As `RafsInstance.fetchChunks`. */
  async fetchChunks(
    blobIndex: number,
    chunks: readonly number[],
    signal?: AbortSignal,
  ): Promise<Map<number, Uint8Array>> {
    const { cache } = this.#blob(blobIndex);
    const table = await cache.table();
    const missing = chunks.find((index) => !cache.refresh(table, index));
    const last = chunks.at(-1);
    if (last !== undefined) this.#positions[blobIndex] = last;
    if (missing === undefined) return new Map();
    this.waiting++;
    try {
      for (const index of chunks) this.userBytes += table.plainSize(index);
      const obtaining = cache.obtain(chunks, { batch: this.#batch, extend: true, urgent: true }, signal);
      this.#ahead[blobIndex]?.miss(missing);
      const plain = await obtaining;
      this.#ahead[blobIndex]?.fetched(missing);
      return plain;
    } finally {
      this.waiting--;
    }
  }

  #blob(blobIndex: number): OpenBlob {
    const blob = this.#blobs[blobIndex];
    if (blob === undefined)
      throw new BackendError(`a chunk of blob ${blobIndex} is wanted, the blob has none`);
    return blob;
  }

  /** Chunks by blob index, then chunk index, for those that the data file does not have. */
  async #obtain(
    ino: number,
    offset: number,
    size: number,
    pieces: readonly ReadPiece[],
    signal: AbortSignal | undefined,
  ): Promise<Map<number, Map<number, Uint8Array>>> {
    const wanted = new Map<number, number[]>();
    for (const { ref } of pieces) {
      const blob = this.#blob(ref.blobIndex);
      const list = wanted.get(ref.blobIndex) ?? [];
      wanted.set(ref.blobIndex, list);
      if (!list.includes(ref.chunkIndex)) list.push(ref.chunkIndex);
      this.#meter.total++;
      if (blob.cache.mode === 'plain' && blob.cache.map.isReady(ref.chunkIndex)) this.#meter.partialHits++;
      else this.userBytes += ref.uncompressedSize;
      blob.records?.note(ref.chunkIndex, ref.recordOffset);
    }
    const out = new Map<number, Map<number, Uint8Array>>();
    const jobs = [...wanted].map(async ([blobIndex, chunks]) => {
      const { cache, records } = this.#blob(blobIndex);
      const table = await this.#checkPlaces(cache, pieces, blobIndex);
      const missing = chunks.find((index) => !cache.refresh(table, index));
      const extra =
        records === undefined || missing === undefined
          ? []
          : this.#amplify(records, ino, offset, size, pieces, blobIndex);
      const options = { batch: this.#batch, extend: records === undefined, urgent: true, extra };
      const obtaining = cache.obtain(chunks, options, signal);
      if (missing !== undefined)
        this.#ahead[blobIndex]?.miss(missing, chunksOfFile(this.#image, ino, blobIndex));
      out.set(blobIndex, await obtaining);
      if (missing !== undefined) this.#ahead[blobIndex]?.fetched(missing);
    });
    await Promise.all(jobs);
    return out;
  }

  /** The bootstrap and the chunk table of the blob must agree where a chunk is: readers go by the first, writers by the other. */
  async #checkPlaces(cache: BlobCache, pieces: readonly ReadPiece[], blobIndex: number): Promise<ChunkTable> {
    let table = await cache.table();
    let problem = placeProblem(table, cache.blobId, pieces, blobIndex);
    if (problem !== undefined && (await cache.reloadTable())) {
      table = await cache.table();
      problem = placeProblem(table, cache.blobId, pieces, blobIndex);
    }
    if (problem !== undefined) throw new BackendError(problem);
    return table;
  }

  #amplify(
    records: RecordTable,
    ino: number,
    offset: number,
    size: number,
    pieces: readonly ReadPiece[],
    blobIndex: number,
  ): number[] {
    const last = pieces.at(-1)?.ref;
    if (last === undefined || last.blobIndex !== blobIndex || !this.#keeps) return [];
    const stored = (ref: ChunkRef): { start: number; end: number } => {
      records.note(ref.chunkIndex, ref.recordOffset);
      const start = records.storedOffset(ref.chunkIndex);
      return { start, end: start + records.storedSize(ref.chunkIndex) };
    };
    const place = { blobIndex, end: stored(last).end };
    try {
      return amplify5(this.#image, ino, offset, size, this.#batchSize, place, stored).map(
        (ref) => ref.chunkIndex,
      );
    } catch (error) {
      // a damaged file that nobody asked for must not fail this read
      this.#logger.debug(`read of inode ${ino} is not extended: ${messageOf(error)}`);
      return [];
    }
  }

  /** Copy a piece from the data file; when that fails, once more from the backend, past the cache. */
  async #readFile(piece: ReadPiece, target: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    const { ref, from, size, at } = piece;
    const { cache } = this.#blob(ref.blobIndex);
    const fd = cache.data?.fd ?? -1;
    // the garbage collection may have taken it since it was obtained
    const isThere = cache.map.isReady(ref.chunkIndex);
    if (isThere && preadFull(fd, addressOf(target) + at, size, ref.uncompressedOffset + from) === size)
      return;
    if (isThere)
      this.#logger.warn(
        `cannot read chunk ${ref.chunkIndex} of blob ${cache.blobId} from its cache file, fetching it`,
      );
    const options = { batch: this.#batch, extend: false, urgent: true, bypass: true };
    const bytes = (await cache.obtain([ref.chunkIndex], options, signal)).get(ref.chunkIndex);
    if (bytes === undefined)
      throw new BackendError(`chunk ${ref.chunkIndex} of blob ${cache.blobId} did not arrive`);
    target.set(bytes.subarray(from, from + size), at);
  }
}

/** What the bootstrap and the chunk table of a blob do not agree on. */
function placeProblem(
  table: ChunkTable,
  blobId: string,
  pieces: readonly ReadPiece[],
  blobIndex: number,
): string | undefined {
  for (const { ref } of pieces) {
    if (ref.blobIndex !== blobIndex) continue;
    const place = table.plainOffset(ref.chunkIndex);
    const size = table.plainSize(ref.chunkIndex);
    if (place === ref.uncompressedOffset && size >= ref.uncompressedSize) continue;
    return `chunk ${ref.chunkIndex} of blob ${blobId} is ${size} bytes at ${place}, the bootstrap says ${ref.uncompressedSize} at ${ref.uncompressedOffset}`;
  }
  return undefined;
}
