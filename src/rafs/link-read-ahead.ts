// Read-ahead for blobs behind a network link: after a reader's miss the bytes that follow are fetched while the link has room,
// a little at first, more for as long as the reader goes on there. Several places of a blob are followed, the newest first. A file
// that is read here and there is filled with what the link could have carried while its reader waited: a program whose pages
// are wanted in no order costs bandwidth then instead of round trips. A little of what lies before a new place comes along: the kernel maps
// pages around a fault, programs look at neighbours, and going backwards one round trip at a time is the worst a reader can do.
import type { BlobCache } from '../storage/cache/blob-cache.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import { rangeOf } from '../storage/cache/fetch-plan.ts';
import { KIB, MIB } from '../base/limits.ts';
import { Urgency, type Link } from '../storage/backend/link.ts';

/** Stored bytes of one request: a quarter of what a round trip carries, within these. */
const MIN_PIECE = 64 * KIB;
const MAX_PIECE = MIB;
/** Stored bytes fetched after a first miss: what a round trip carries, within these. */
const MIN_FIRST_WINDOW = 128 * KIB;
const MAX_FIRST_WINDOW = 4 * MIB;
/** Stored bytes fetched before a new place: this part of what a round trip carries, within the other. */
const PART_BEHIND = 1 / 4;
const MAX_BEHIND = MIB;
/** Stored bytes fetched in front of a reader at most. */
const MAX_WINDOW = 16 * MIB;
/** Places that are followed, and files. */
const MAX_ZONES = 4;
const MAX_FILES = 8;
/** Misses in one file after which it is filled, and stored bytes that it may be owed. */
const FILL_AFTER = 3;
const MAX_OWED = 64 * MIB;
/** How often the position of readers is looked at while enough is there, and for how long after the last movement. */
const POLL_MS = 5;
const QUIET_MS = 250;

/** What it needs of a blob cache. */
export type LinkedCache = Pick<BlobCache, 'table' | 'isMissing' | 'prefetch'>;

/** One place where a reader goes through the blob. */
interface Zone {
  /** chunk where it began */
  start: number;
  /** furthest chunk that a reader has touched */
  seen: number;
  /** next chunk to look at */
  next: number;
  /** stored bytes to be in front of `seen` */
  window: number;
}

/** Chunks of a file: `first` to `end`, exclusive. */
export interface FileChunks {
  first: number;
  end: number;
}

/** A file that readers go about in. */
interface OpenFile extends FileChunks {
  misses: number;
  /** stored bytes that may still be fetched for it */
  owed: number;
  /** where filling goes on */
  cursor: number;
}

export class LinkReadAhead {
  readonly #cache: LinkedCache;
  readonly #link: Link;
  readonly #positions: Int32Array;
  readonly #blobIndex: number;
  readonly #stop = new AbortController();
  /** newest first */
  readonly #zones: Zone[] = [];
  /** newest first */
  readonly #files: OpenFile[] = [];
  /** new places whose neighbourhood before them is to be fetched, newest first: chunk, and stored bytes before it */
  readonly #behind: { end: number; bytes: number }[] = [];
  #running = false;
  #movedAt = 0;
  #position = -1;

  /** @param positions chunk read last by blob index, kept by LocalReader */
  constructor(cache: LinkedCache, link: Link, positions: Int32Array, blobIndex: number) {
    this.#cache = cache;
    this.#link = link;
    this.#positions = positions;
    this.#blobIndex = blobIndex;
  }

  /** A reader missed this chunk, of this file; call when its fetch has been started. */
  miss(index: number, file?: FileChunks): void {
    if (this.#stop.signal.aborted) return;
    this.#movedAt = performance.now();
    this.#touch(index, true);
    if (file !== undefined) this.#owe(index, file);
    if (this.#running) return;
    this.#running = true;
    this.#run()
      // what failed shows when a reader asks for it
      .catch(() => {})
      .finally(() => (this.#running = false));
  }

  /** The fetch of a missed chunk is over: what follows is decided by `miss` alone. */
  fetched(_index: number): void {}

  stop(): void {
    this.#stop.abort(new Error('stopped'));
  }

  /** A reader is at this chunk. */
  #touch(index: number, missed: boolean): void {
    const zone = this.#zones.find(({ start, next }) => index >= start && index <= next + 1);
    if (zone !== undefined) {
      if (index <= zone.seen) return;
      zone.seen = index;
      zone.next = Math.max(zone.next, index + 1);
      // the reader goes on here: a miss says that it was faster than we
      zone.window = Math.min(MAX_WINDOW, zone.window * (missed ? 2 : 1.25));
      this.#zones.splice(this.#zones.indexOf(zone), 1);
      this.#zones.unshift(zone);
    } else if (missed) {
      const window = Math.min(MAX_FIRST_WINDOW, Math.max(MIN_FIRST_WINDOW, this.#link.product));
      this.#zones.unshift({ start: index, seen: index, next: index + 1, window });
      this.#zones.length = Math.min(this.#zones.length, MAX_ZONES);
      this.#behind.unshift({ end: index, bytes: Math.min(MAX_BEHIND, this.#link.product * PART_BEHIND) });
      this.#behind.length = Math.min(this.#behind.length, MAX_ZONES);
    }
  }

  /** The reader waits a round trip: that much more may be fetched for its file. */
  #owe(index: number, { first, end }: FileChunks): void {
    const at = this.#files.findIndex((file) => file.first === first && file.end === end);
    const file = this.#files[at] ?? { first, end, misses: 0, owed: 0, cursor: index + 1 };
    if (at >= 0) this.#files.splice(at, 1);
    this.#files.unshift(file);
    this.#files.length = Math.min(this.#files.length, MAX_FILES);
    file.misses++;
    file.cursor = index + 1;
    if (file.misses >= FILL_AFTER) file.owed = Math.min(MAX_OWED, file.owed + this.#link.product);
  }

  #look(): void {
    const position = Atomics.load(this.#positions, this.#blobIndex);
    if (position === this.#position) return;
    this.#position = position;
    this.#movedAt = performance.now();
    this.#touch(position, false);
  }

  async #run(): Promise<void> {
    const table = await this.#cache.table();
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#look();
      if (!this.#wants(table)) {
        if (performance.now() - this.#movedAt > QUIET_MS) return;
        await new Promise((resolve) => void setTimeout(resolve, POLL_MS));
        continue;
      }
      const piece = Math.min(MAX_PIECE, Math.max(MIN_PIECE, this.#link.product / 4));
      const started = await this.#link.admit(piece, Urgency.readAhead, signal);
      // meanwhile the reader may have gone elsewhere
      this.#look();
      const chunks = this.#pickBehind(table) ?? this.#pickAhead(table, piece) ?? this.#pickFill(table, piece);
      if (chunks !== undefined) {
        this.#cache.prefetch(rangeOf(table, chunks)).catch(() => {});
        // the request is on its way once the cache has looked at its map
        await new Promise((resolve) => void setImmediate(resolve));
      }
      started();
    }
  }

  /** True when there is something to fetch; what is local already is passed over. */
  #wants(table: ChunkTable): boolean {
    if (this.#behind.some(({ end, bytes }) => this.#before(table, end, bytes).length > 0)) return true;
    this.#behind.length = 0;
    for (const zone of this.#zones) {
      const limit = this.#limitOf(table, zone);
      while (zone.next < table.count && table.storedOffset(zone.next) < limit) {
        if (this.#cache.isMissing(zone.next)) return true;
        zone.next++;
      }
    }
    return this.#files.some((file) => file.owed > 0);
  }

  /** Missing chunks that lie directly before one, up to this many stored bytes, in order. */
  #before(table: ChunkTable, end: number, bytes: number): number[] {
    const chunks: number[] = [];
    const limit = table.storedOffset(end) - bytes;
    for (let at = end - 1; at >= 0 && this.#cache.isMissing(at); at--) {
      const start = table.storedOffset(at);
      if (start < limit || start > table.storedOffset(end)) break;
      chunks.unshift(at);
    }
    return chunks;
  }

  #pickBehind(table: ChunkTable): number[] | undefined {
    for (let next = this.#behind.shift(); next !== undefined; next = this.#behind.shift()) {
      const chunks = this.#before(table, next.end, next.bytes);
      if (chunks.length > 0) return chunks;
    }
    return undefined;
  }

  #limitOf(table: ChunkTable, zone: Zone): number {
    return table.storedOffset(Math.min(zone.seen, table.count - 1)) + zone.window;
  }

  /** Missing chunks of the newest zone that has some inside its window, up to this many stored bytes. */
  #pickAhead(table: ChunkTable, bytes: number): number[] | undefined {
    for (const zone of this.#zones) {
      const limit = this.#limitOf(table, zone);
      let end = zone.next;
      while (end < table.count && table.storedOffset(end) < limit) end++;
      const { chunks, next } = this.#missingRun(table, zone.next, end, bytes);
      zone.next = next;
      if (chunks.length > 0) return chunks;
    }
    return undefined;
  }

  /** Missing chunks of the newest file that is owed bytes: behind its last miss, then from its start. */
  #pickFill(table: ChunkTable, bytes: number): number[] | undefined {
    for (const file of this.#files) {
      if (file.owed <= 0) continue;
      let found = this.#missingRun(table, file.cursor, file.end, bytes);
      if (found.chunks.length === 0) found = this.#missingRun(table, file.first, file.end, bytes);
      file.cursor = found.next;
      const last = found.chunks.at(-1);
      const first = found.chunks[0];
      if (last === undefined || first === undefined) {
        // all of it is here or on its way
        file.owed = 0;
        continue;
      }
      file.owed -= table.storedOffset(last) + table.storedSize(last) - table.storedOffset(first);
      return found.chunks;
    }
    return undefined;
  }

  /** The first run of missing chunks from `at` on, up to this many stored bytes: one request for what adjoins. */
  #missingRun(table: ChunkTable, at: number, end: number, bytes: number): { chunks: number[]; next: number } {
    const chunks: number[] = [];
    let first = -1;
    let next = at;
    for (; next < Math.min(end, table.count); next++) {
      const start = table.storedOffset(next);
      if (first >= 0 && start - first >= bytes) break;
      if (!this.#cache.isMissing(next)) {
        if (chunks.length > 0) break;
        continue;
      }
      if (first < 0) first = start;
      chunks.push(next);
    }
    return { chunks, next };
  }
}
