// What of a blob is in its cache file: by the map, and where the map may say too much or too little by looking at the data.
import { crc32c } from '../../codec/crc32c.ts';
import { digestOf } from '../../codec/digest.ts';
import type { DigesterName } from '../../codec/algorithms.ts';
import { addressOf, preadFull } from '../../native/file-io.ts';
import type { ChunkMap } from './chunk-map.ts';
import type { ChunkTable } from './chunk-table.ts';
import type { DataFile } from './data-file.ts';
import type { DecodeTarget } from './decode.ts';
import type { CacheMeter } from './meter.ts';
import type { Publisher } from './publisher.ts';

export interface KeptOptions {
  map: ChunkMap;
  data: DataFile | undefined;
  mode: DecodeTarget;
  digester: DigesterName;
  /** look for a chunk in the data file, verifying it, before it is fetched: the map does not know */
  probe: boolean;
  meter: CacheMeter;
  publisher: Publisher;
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
  /** chunks that were looked for in the data file */
  readonly #probed = new Set<number>();

  constructor(options: KeptOptions) {
    this.#options = options;
  }

  /** True when a chunk is local. Looks at the map file once more: another daemon may have fetched it. */
  has(table: ChunkTable, index: number): boolean {
    const { map, mode, probe, publisher } = this.#options;
    if (map.refresh(index)) return true;
    if (mode !== 'plain') return false;
    if (map.distrusts && map.isReadyInFile(index)) {
      if (this.#verify(table, index)) return true;
      map.forget(index);
      return false;
    }
    if (!probe || this.#probed.has(index)) return false;
    this.#probed.add(index);
    if (!this.#verify(table, index)) return false;
    publisher.add(index, table.plainSize(index));
    publisher.schedule();
    return true;
  }

  /** Verify a chunk of the plain data file; it is ready in this process when that succeeds. */
  #verify(table: ChunkTable, index: number): boolean {
    const { data, digester, meter, map } = this.#options;
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
