// Where chunks of a blob stand in the cache file of another one: uncompressed, at offsets that the database gave.
import type { ChunkTable } from '../cache/chunk-table.ts';
import { UncompressedTable } from '../cache/uncompressed-table.ts';

export class PlacedTable extends UncompressedTable {
  readonly #offsets: ReadonlyMap<number, number>;

  /** @param offsets in the other file, by chunk index; only these chunks are asked about */
  constructor(table: ChunkTable, offsets: ReadonlyMap<number, number>) {
    super(table);
    this.#offsets = offsets;
  }

  storedOffset(index: number): number {
    return this.#offsets.get(index) ?? 0;
  }

  /** what has no digest is not shared */
  override crc(_index: number): number {
    return -1;
  }
}
