// Where the 80-byte record of a chunk is, by blob and chunk number: built once from pairs the caller walks twice.
import { FormatError } from '../base/errors.ts';
import { MAX_CHUNKS_PER_BLOB } from '../base/limits.ts';

/** Calls `each` for every chunk record: blob, chunk number in the blob, place in the unit the caller chose (from 1). */
export type ChunkWalk = (each: (blobIndex: number, chunkIndex: number, place: number) => void) => void;

/** Blobs with few chunks in use keep a map: a dense table would let one hostile number cost 64 MiB. */
const DENSE_SLACK = 0x1_0000;

/** Finds the place of a chunk record; 0 when there is none. */
export type ChunkLocator = (blobIndex: number, chunkIndex: number) => number;

/**
 * Build the table: 4 bytes per chunk of each blob in use.
 *
 * @throws FormatError a blob or chunk number is past its limit
 */
export function buildChunkLocator(blobCount: number, walk: ChunkWalk): ChunkLocator {
  const highest = Array.from({ length: blobCount }, () => -1);
  const uses = Array.from({ length: blobCount }, () => 0);
  walk((blobIndex, chunkIndex) => {
    const known = highest[blobIndex];
    if (known === undefined) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'blobIndex' },
        `is ${blobIndex}, the blob table has ${blobCount} rows`,
      );
    }
    if (chunkIndex >= MAX_CHUNKS_PER_BLOB) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'index' },
        `is ${chunkIndex}, a blob has at most ${MAX_CHUNKS_PER_BLOB} chunks`,
      );
    }
    if (chunkIndex > known) highest[blobIndex] = chunkIndex;
    uses[blobIndex] = (uses[blobIndex] ?? 0) + 1;
  });
  const tables: (Uint32Array | Map<number, number>)[] = highest.map((top, blob) =>
    top + 1 <= 16 * (uses[blob] ?? 0) + DENSE_SLACK ? new Uint32Array(top + 1) : new Map<number, number>(),
  );
  walk((blobIndex, chunkIndex, place) => {
    const table = tables[blobIndex];
    if (table instanceof Uint32Array) {
      if (table[chunkIndex] === 0) table[chunkIndex] = place;
    } else if (table !== undefined && !table.has(chunkIndex)) table.set(chunkIndex, place);
  });
  return (blobIndex, chunkIndex) => {
    const table = tables[blobIndex];
    if (table === undefined) return 0;
    return (table instanceof Uint32Array ? table[chunkIndex] : table.get(chunkIndex)) ?? 0;
  };
}
