// Which chunks are fetched together: merging of adjoining chunks into one ranged request, and the chunks that come along
// when a reader misses. Pure functions over a chunk table. Source: blob-and-cache.md 18.3 and 18.5.
import type { Link } from '../backend/link.ts';
import type { ChunkTable } from './chunk-table.ts';
import { storedEnd } from './chunk-table.ts';

/** Smallest batch: what a reader misses is extended to this much at least. */
export const MIN_BATCH = 128 * 1024;

/** Smallest extension of a read over a network. */
const MIN_LINKED_BATCH = 64 * 1024;

/** How far requests may reach: upstream's constants, or what the network between makes worth while. */
export interface Reach {
  /** stored bytes that a request is extended to */
  batch: number;
  /** stored bytes between two wanted chunks that are fetched along rather than asked around */
  gap: number;
}

/**
 * A gap costs its bytes, a request of its own costs a round trip: what the link carries meanwhile is where they meet. What
 * follows a wanted chunk is fetched along for half of that, behind the wanted bytes, where it delays nobody for long.
 *
 * @param batch `batch_size` of the configuration, the most that a request is extended to
 */
export function reachOf(batch: number, link: Link | undefined): Reach {
  const gap = Math.floor(batch / 128);
  if (link === undefined || !link.known) return { batch, gap };
  return {
    batch: Math.min(batch, Math.max(MIN_LINKED_BATCH, link.product / 2)),
    gap: Math.max(gap, Math.min(batch, link.product)),
  };
}

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
 * @param gap    stored bytes between two chunks that may be fetched in vain
 */
export function mergeChunks(
  table: ChunkTable,
  chunks: readonly number[],
  batch: number,
  gap: number = Math.floor(batch / 128),
): FetchRange[] {
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
    // what lies in a gap is fetched in any case
    const inside = storedEnd(table, index) <= Math.max(fetchEnd, range.end);
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
