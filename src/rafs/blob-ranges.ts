// A blob as the flat address space that the kernel's EROFS reads: which chunks hold a range of it. Built once per blob from its
// chunk table, in shared memory, so that every thread can search it. Source: blob-and-cache.md 15.5, 18.9.
import { BackendError, FormatError } from '../base/errors.ts';
import { alignUp, viewOf } from '../base/bytes.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import type { RafsImage } from '../format/image.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';

/** The kernel reads whole blocks: the rest of a chunk's last block is zero and belongs to it. */
const BLOCK = 4096;
const field = chunkRecord.field;

/** Memory of a BlobRanges; survives structured cloning. Sorted by start, without overlaps. */
export interface RangeMemory {
  /** Float64 per chunk: first byte */
  starts: SharedArrayBuffer;
  /** Float64 per chunk: end of its last block */
  ends: SharedArrayBuffer;
  /** Uint32 per chunk: chunk index */
  chunks: SharedArrayBuffer;
}

/** Chunks of one blob by address. */
export class BlobRanges {
  readonly memory: RangeMemory;
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #chunks: Uint32Array;

  constructor(memory: RangeMemory) {
    this.memory = memory;
    this.#starts = new Float64Array(memory.starts);
    this.#ends = new Float64Array(memory.ends);
    this.#chunks = new Uint32Array(memory.chunks);
  }

  /**
   * Sort the chunks of a blob by address. Where the bootstrap has a record of a chunk, it must agree with the table: the kernel
   * goes by the bootstrap, what we fetch by the table, and a difference would show as zeros.
   *
   * @throws FormatError EINVAL   two chunks overlap, or an entry breaks the limits of the blob
   * @throws BackendError EIO     bootstrap and chunk table disagree
   */
  static build(table: ChunkTable, image: RafsImage, blobIndex: number): BlobRanges {
    const { count } = table;
    const order = Uint32Array.from({ length: count }, (_, index) => index);
    const place = Float64Array.from({ length: count }, (_, index) => table.plainOffset(index));
    order.sort((a, b) => (place[a] ?? 0) - (place[b] ?? 0) || a - b);
    const memory: RangeMemory = {
      starts: new SharedArrayBuffer(count * 8),
      ends: new SharedArrayBuffer(count * 8),
      chunks: new SharedArrayBuffer(count * 4),
    };
    const ranges = new BlobRanges(memory);
    const view = viewOf(image.bytes);
    let end = 0;
    order.forEach((index, at) => {
      const start = place[index] ?? 0;
      const size = table.plainSize(index);
      if (start < end || start % BLOCK !== 0) {
        throw new FormatError(
          { struct: 'chunk table' },
          `chunk ${index} of blob ${blobIndex} starts at ${start}, the one before it ends at ${end}`,
        );
      }
      checkRecord(image, view, blobIndex, index, start, size);
      end = alignUp(start + size, BLOCK);
      ranges.#starts[at] = start;
      ranges.#ends[at] = end;
      ranges.#chunks[at] = index;
    });
    return ranges;
  }

  /** Position of the first chunk that ends behind an address. */
  #find(address: number): number {
    const ends = this.#ends;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[middle] ?? 0) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * True when chunks cover a range without a gap and all of them are ready. Allocates nothing.
   *
   * @param ready bits of the chunk map
   */
  isReady(offset: number, count: number, ready: Uint8Array): boolean {
    const end = offset + count;
    let at = offset;
    for (let i = this.#find(offset); at < end; i++) {
      if (i >= this.#starts.length || (this.#starts[i] ?? 0) > at) return false;
      const chunk = this.#chunks[i] ?? 0;
      if ((Atomics.load(ready, chunk >> 3) & (0x80 >> (chunk & 7))) === 0) return false;
      at = this.#ends[i] ?? end;
    }
    return true;
  }

  /**
   * Chunk indexes that hold a range, in the order of their addresses.
   *
   * @returns undefined when a part of it belongs to no chunk: nothing of an image lies there
   */
  covering(offset: number, count: number): number[] | undefined {
    const end = offset + count;
    const found: number[] = [];
    let at = offset;
    for (let i = this.#find(offset); at < end; i++) {
      if (i >= this.#starts.length || (this.#starts[i] ?? 0) > at) return undefined;
      found.push(this.#chunks[i] ?? 0);
      at = this.#ends[i] ?? end;
    }
    return found;
  }
}

function checkRecord(
  image: RafsImage,
  view: DataView,
  blobIndex: number,
  index: number,
  start: number,
  size: number,
): void {
  const record = image.chunkRecordOffset(blobIndex, index);
  if (record === 0) return;
  const place = field.uncompressedOffset(view, record);
  const wanted = field.uncompressedSize(view, record);
  if (place === start && size >= wanted) return;
  throw new BackendError(
    `chunk ${index} of blob ${blobIndex} is ${size} bytes at ${start}, the bootstrap says ${wanted} at ${place}`,
  );
}
