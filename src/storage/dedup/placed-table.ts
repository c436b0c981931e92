// Where chunks of a blob stand in the cache file of another one: uncompressed, at offsets that the database gave.
import type { ChunkTable } from '../cache/chunk-table.ts';

export class PlacedTable implements ChunkTable {
  readonly count: number;
  readonly #table: ChunkTable;
  readonly #offsets: ReadonlyMap<number, number>;

  /** @param offsets in the other file, by chunk index; only these chunks are asked about */
  constructor(table: ChunkTable, offsets: ReadonlyMap<number, number>) {
    this.#table = table;
    this.#offsets = offsets;
    this.count = table.count;
  }

  storedOffset(index: number): number {
    return this.#offsets.get(index) ?? 0;
  }

  storedSize(index: number): number {
    return this.#table.plainSize(index);
  }

  unitSize(index: number): number {
    return this.#table.plainSize(index);
  }

  offsetInUnit(_index: number): number {
    return 0;
  }

  isCompressed(_index: number): boolean {
    return false;
  }

  isBatched(_index: number): boolean {
    return false;
  }

  plainOffset(index: number): number {
    return this.#table.plainOffset(index);
  }

  plainSize(index: number): number {
    return this.#table.plainSize(index);
  }

  digest(index: number): Uint8Array | undefined {
    return this.#table.digest(index);
  }

  /** what has no digest is not shared */
  crc(_index: number): number {
    return -1;
  }
}
