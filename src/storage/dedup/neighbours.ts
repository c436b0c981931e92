// One blob and the other cache files of the node: which of them have its chunks, and what it has for them.
// Source: blob-and-cache.md 16.9.
import { toHex } from '../../base/bytes.ts';
import type { DigesterName } from '../../codec/algorithms.ts';
import type { ChunkMap } from '../cache/chunk-map.ts';
import type { ChunkTable } from '../cache/chunk-table.ts';
import type { ChunkDatabase, ChunkRow } from './chunk-database.ts';

const PREFIX: Readonly<Record<DigesterName, string>> = { blake3: 'Blake3', sha256: 'Sha256' };
/** Chunks that are looked at in one go when a database is filled from a cache. */
const SLICE = 512;

/** What the database calls a chunk; undefined for one whose digest this image does not know. */
export function chunkIdOf(table: ChunkTable, index: number, digester: DigesterName): string | undefined {
  try {
    const digest = table.digest(index);
    return digest === undefined ? undefined : `${PREFIX[digester]}:${toHex(digest)}`;
  } catch {
    // no file of this image has it: the cache may hold chunks that others of the same blob have
    return undefined;
  }
}

/** Chunks that one other cache file has. */
export interface Found {
  path: string;
  /** in that file, by chunk index of this blob */
  offsets: Map<number, number>;
}

export class Neighbours {
  readonly #database: ChunkDatabase;
  readonly #path: string;
  readonly #digester: DigesterName;
  readonly #map: ChunkMap;
  /** of the images that read the blob: each may have digests that the others lack */
  readonly #tables = new Set<ChunkTable>();
  readonly #unlisten: () => void;
  #stopped = false;

  /** @param path of the blob's own cache file, canonical */
  constructor(database: ChunkDatabase, path: string, digester: DigesterName, map: ChunkMap) {
    this.#database = database;
    this.#path = path;
    this.#digester = digester;
    this.#map = map;
    this.#unlisten = database.onRebuilt(() => this.#look());
    // what nobody has verified since the machine went down is nothing to tell others, what an earlier file had neither
    if (map.heldCount === 0 || map.suspect) database.removeFile(path);
  }

  #idIn(table: ChunkTable, index: number): string | undefined {
    return chunkIdOf(table, index, this.#digester);
  }

  #row(index: number): ChunkRow | undefined {
    for (const table of this.#tables) {
      const id = this.#idIn(table, index);
      if (id !== undefined) return { id, offset: table.plainOffset(index) };
    }
    return undefined;
  }

  #rows(chunks: readonly number[]): ChunkRow[] {
    return chunks.map((index) => this.#row(index)).filter((row) => row !== undefined);
  }

  /** Other cache files that are said to have chunks of this blob. */
  find(table: ChunkTable, chunks: readonly number[]): Found[] {
    const found = new Map<string, Found>();
    for (const index of chunks) {
      const id = this.#idIn(table, index);
      const place = id === undefined ? undefined : this.#database.find(id, this.#path);
      if (place === undefined) continue;
      const there = found.get(place.path) ?? { path: place.path, offsets: new Map<number, number>() };
      found.set(place.path, there);
      there.offsets.set(index, place.offset);
    }
    return [...found.values()];
  }

  /** Chunks are in this blob's cache file, and on the disk. */
  record(chunks: readonly number[]): void {
    this.#database.add(this.#path, this.#rows(chunks));
  }

  /** Chunks are about to be taken out of this blob's cache file. */
  withdraw(chunks: readonly number[]): void {
    const ids = this.#rows(chunks).map(({ id }) => id);
    this.#database.remove(this.#path, ids);
  }

  /** Another cache file did not have chunks that it was said to have. */
  refute(path: string, table: ChunkTable, chunks: readonly number[]): void {
    const ids = chunks.map((index) => this.#idIn(table, index)).filter((id) => id !== undefined);
    this.#database.remove(path, ids);
  }

  /** An image that reads the blob has its table. */
  use(table: ChunkTable): void {
    if (this.#stopped) return;
    this.#tables.add(table);
    this.#look();
  }

  /** The table is about to be closed. */
  leave(table: ChunkTable): void {
    this.#tables.delete(table);
  }

  /** The database may be new, or the cache older than it: see that it says what the cache has. In the background. */
  #look(): void {
    const { heldCount, suspect } = this.#map;
    if (heldCount === 0 || suspect || this.#database.count(this.#path) >= heldCount) return;
    void this.#recordAll();
  }

  async #recordAll(): Promise<void> {
    const map = this.#map;
    const rows = new Map<string, ChunkRow>();
    for (let from = 0; from < map.count; from += SLICE) {
      await new Promise((resolve) => void setImmediate(resolve));
      if (this.#stopped) return;
      for (let index = from; index < Math.min(from + SLICE, map.count); index++) {
        if (!map.isReadyInFile(index) || !(map.distrusts || map.isReady(index))) continue;
        const row = this.#row(index);
        if (row !== undefined && !rows.has(row.id)) rows.set(row.id, row);
      }
    }
    // a chunk that stands twice in the blob is recorded once
    if (this.#database.count(this.#path) < rows.size) this.#database.add(this.#path, [...rows.values()]);
  }

  /** Nothing is recorded any more. */
  stop(): void {
    this.#stopped = true;
    this.#unlisten();
    this.#tables.clear();
  }
}
