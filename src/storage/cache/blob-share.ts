// What other threads need to read the local data of a blob. Everything here survives structured cloning:
// descriptors are numbers of the process, memory is shared.

/** One blob as every thread of the process sees it. */
export interface BlobShare {
  /** plain data file, or -1 when chunks cannot be read from one */
  dataFd: number;
  /** in-process ready bits: bit `0x80 >> (i & 7)` of byte `i >> 3` */
  ready: SharedArrayBuffer;
  /** chunks that were read, same order; readers set them, the garbage collection clears them */
  touched: SharedArrayBuffer;
  /**
   * Int32 that changes after the bits of chunks were cleared and before their data is taken away: a reader notes it before it
   * looks at a bit, and reads again when it has changed after the data was read
   */
  epoch: SharedArrayBuffer;
  /** chunks of the blob; indexes at or past it are never ready */
  chunkCount: number;
}

/** One mounted image as every thread of the process sees it. */
export interface InstanceShare {
  bootstrapPath: string;
  /** by blob index */
  blobs: BlobShare[];
  /** ReaderCounters: one line of 64-bit floats per reader, claimed with the first word */
  counters: SharedArrayBuffer;
  /** Int32 per blob: the chunk read last, for read-ahead */
  positions: SharedArrayBuffer;
}

/** Readers that get counters of their own; further ones share the last line. */
export const MAX_READERS = 64;
/** Numbers of one line: chunk reads answered, and bytes. Padded to a cache line. */
const LINE = 8;

/** Memory for the counters of all readers of an instance. */
export function newCounters(): SharedArrayBuffer {
  return new SharedArrayBuffer((MAX_READERS + 1) * LINE * 8);
}

/** The counters of one reader. */
export class ReaderCounters {
  readonly #numbers: Float64Array;
  readonly #at: number;

  constructor(memory: SharedArrayBuffer) {
    const line = Math.min(Atomics.add(new Int32Array(memory, 0, 1), 0, 1), MAX_READERS - 1) + 1;
    this.#numbers = new Float64Array(memory);
    this.#at = line * LINE;
  }

  /** Count a read that was answered locally. */
  add(chunks: number, bytes: number): void {
    const numbers = this.#numbers;
    numbers[this.#at] = (numbers[this.#at] ?? 0) + chunks;
    numbers[this.#at + 1] = (numbers[this.#at + 1] ?? 0) + bytes;
  }
}

/** Chunk reads answered by all readers. */
export function sumChunkReads(memory: SharedArrayBuffer): number {
  const numbers = new Float64Array(memory);
  let total = 0;
  for (let line = 1; line <= MAX_READERS; line++) total += numbers[line * LINE] ?? 0;
  return total;
}
