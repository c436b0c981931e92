// What of a blob is in its cache file: by the map, and where the map may say too much or too little by looking at the data.
import { crc32c } from '../../codec/crc32c.ts';
import { digestOf } from '../../codec/digest.ts';
import type { DigesterName } from '../../codec/algorithms.ts';
import { addressOf, preadFull } from '../../native/file-io.ts';
import type { BlobFiles } from './blob-files.ts';
import type { ChunkTable } from './chunk-table.ts';
import type { CacheMeter } from './meter.ts';

export interface KeptOptions {
  files: BlobFiles;
  digester: DigesterName;
  meter: CacheMeter;
}

/** True when plain bytes are what the image says; false as well when it says nothing. */
export function isVerified(
  table: ChunkTable,
  index: number,
  digester: DigesterName,
  bytes: Uint8Array,
): boolean {
  const digest = table.digest(index);
  if (digest !== undefined) return digestOf(digester, bytes).equals(digest);
  const crc = table.crc(index);
  return crc >= 0 && crc32c(bytes) === crc;
}

export class KeptChunks {
  readonly #options: KeptOptions;

  constructor(options: KeptOptions) {
    this.#options = options;
  }

  /** True when a chunk is local. Looks at the map file once more: another daemon may have fetched it. */
  has(table: ChunkTable, index: number): boolean {
    const { map, mode, probe, probed, publisher } = this.#options.files;
    if (map.refresh(index)) return true;
    if (mode !== 'plain') return false;
    if (map.distrusts && map.isReadyInFile(index)) {
      if (this.#verify(table, index)) return true;
      map.forget(index);
      return false;
    }
    if (!probe || probed.has(index)) return false;
    probed.add(index);
    if (!this.#verify(table, index)) return false;
    publisher.add(index, table.plainSize(index));
    publisher.schedule();
    return true;
  }

  /** Verify a chunk of the plain data file; it is ready in this process when that succeeds. */
  #verify(table: ChunkTable, index: number): boolean {
    const { digester, meter, files } = this.#options;
    const { data, map } = files;
    const size = table.plainSize(index);
    const bytes = new Uint8Array(size);
    if (data === undefined) return false;
    if (preadFull(data.fd, addressOf(bytes), size, table.plainOffset(index)) !== size) return false;
    if (!isVerified(table, index, digester, bytes)) return false;
    meter.wholeHits++;
    map.mark(index);
    return true;
  }
}
