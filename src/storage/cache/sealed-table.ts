// Where the chunks of a blob stand in an encrypted cache file: at their uncompressed offsets, in whole pages.
// Source: blob-and-cache.md 17.10.
import { alignUp } from '../../base/bytes.ts';
import { XTS_PAGE } from '../../codec/xts.ts';
import { UncompressedTable } from './uncompressed-table.ts';

export class SealedTable extends UncompressedTable {
  storedOffset(index: number): number {
    return this.table.plainOffset(index);
  }

  override storedSize(index: number): number {
    return alignUp(this.table.plainSize(index), XTS_PAGE);
  }
}
