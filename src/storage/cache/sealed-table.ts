// Where the chunks of a blob stand in an encrypted cache file: at their uncompressed offsets, in whole pages.
// Source: blob-and-cache.md 17.10.
import { alignUp } from '../../base/bytes.ts';
import { XTS_PAGE } from '../../codec/xts.ts';
import type { ChunkTable } from './chunk-table.ts';

export class SealedTable implements ChunkTable {
  readonly count: number;
  readonly #table: ChunkTable;

  constructor(table: ChunkTable) {
    this.#table = table;
    this.count = table.count;
  }

  storedOffset(index: number): number {
    return this.#table.plainOffset(index);
  }

  storedSize(index: number): number {
    return alignUp(this.#table.plainSize(index), XTS_PAGE);
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

  crc(index: number): number {
    return this.#table.crc(index);
  }
}
