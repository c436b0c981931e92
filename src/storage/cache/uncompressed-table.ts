// The chunks of a blob as they stand uncompressed in some file: the same chunks, at other places.
import type { ChunkTable } from './chunk-table.ts';

export abstract class UncompressedTable implements ChunkTable {
  readonly count: number;
  protected readonly table: ChunkTable;

  /** @param table of the blob */
  constructor(table: ChunkTable) {
    this.table = table;
    this.count = table.count;
  }

  abstract storedOffset(index: number): number;

  storedSize(index: number): number {
    return this.table.plainSize(index);
  }

  unitSize(index: number): number {
    return this.table.plainSize(index);
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
    return this.table.plainOffset(index);
  }

  plainSize(index: number): number {
    return this.table.plainSize(index);
  }

  digest(index: number): Uint8Array | undefined {
    return this.table.digest(index);
  }

  crc(index: number): number {
    return this.table.crc(index);
  }
}
