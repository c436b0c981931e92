// Which chunks are fetched together: merging of adjoining chunks into one ranged request, and the chunks that come along
// when a reader misses. Pure functions over a chunk table. Source: blob-and-cache.md 18.3 and 18.5.
import type { ChunkTable } from './chunk-table.ts';
import { storedEnd } from './chunk-table.ts';

/** Smallest batch: what a reader misses is extended to this much at least. */
export const MIN_BATCH = 128 * 1024;

/** Chunks of one ranged request, in order of their stored offsets. */
export interface FetchRange {
  chunks: number[];
  /** first byte in the blob, and end */
  start: number;
  end: number;
}

function continues(table: ChunkTable, previous: number, next: number, gap: number): boolean {
  if (table.isBatched(previous) || table.isBatched(next)) {
    const distance = table.plainOffset(next) - (table.plainOffset(previous) + table.plainSize(previous));
    return distance >= 0 && distance <= gap && table.storedOffset(next) >= table.storedOffset(previous);
  }
  const distance = table.storedOffset(next) - storedEnd(table, previous);
  return distance >= 0 && distance <= gap;
}

/**
 * Merge chunks into ranged requests.
 *
 * @param chunks in the order they are wanted
 * @param batch  a range is closed once it holds this many stored bytes
 */
export function mergeChunks(table: ChunkTable, chunks: readonly number[], batch: number): FetchRange[] {
  const gap = Math.floor(batch / 128);
  const ranges: FetchRange[] = [];
  let current: FetchRange | undefined;
  let size = 0;
  for (const index of chunks) {
    const last = current?.chunks.at(-1);
    const end = storedEnd(table, index);
    if (current !== undefined && last !== undefined && size < batch && continues(table, last, index, gap)) {
      size += Math.max(0, end - current.end);
      current.chunks.push(index);
      current.end = Math.max(current.end, end);
    } else {
      current = { chunks: [index], start: table.storedOffset(index), end };
      size = end - current.start;
      ranges.push(current);
    }
  }
  return ranges;
}

/**
 * Extend a range with the chunks that follow in the blob, up to `batch` stored bytes from its start.
 *
 * @param isMissing chunks for which it is false are dropped: they are ready or on their way
 */
export function extendRange(
  table: ChunkTable,
  range: FetchRange,
  batch: number,
  isMissing: (index: number) => boolean,
): FetchRange {
  const wanted = new Set(range.chunks);
  let index = Math.min(...range.chunks);
  const lastWanted = Math.max(...range.chunks);
  let unit = -1;
  if (table.isBatched(index)) {
    unit = table.storedOffset(index);
    while (index > 0 && table.isBatched(index - 1) && table.storedOffset(index - 1) === unit) index--;
  }
  const fetchEnd = table.storedOffset(index) + Math.max(batch, 0);
  const taken: number[] = [];
  for (; index < table.count; index++) {
    const inside = storedEnd(table, index) <= fetchEnd;
    const sameUnit = table.isBatched(index) && table.storedOffset(index) === unit;
    if (!wanted.has(index) && !sameUnit && !inside) {
      if (index > lastWanted) break;
      continue;
    }
    if (table.isBatched(index)) unit = table.storedOffset(index);
    if (wanted.has(index) || isMissing(index)) taken.push(index);
  }
  return rangeOf(table, taken);
}

/** The range that covers these chunks, sorted by stored offset. */
export function rangeOf(table: ChunkTable, chunks: readonly number[]): FetchRange {
  const sorted = [...chunks].sort((a, b) => table.storedOffset(a) - table.storedOffset(b) || a - b);
  let start = Infinity;
  let end = 0;
  for (const index of sorted) {
    start = Math.min(start, table.storedOffset(index));
    end = Math.max(end, storedEnd(table, index));
  }
  return { chunks: sorted, start: sorted.length === 0 ? 0 : start, end };
}
