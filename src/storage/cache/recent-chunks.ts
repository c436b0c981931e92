// Decoded chunks that a plain file does not hold (no cache, raw cache), kept for a moment: a reader takes a chunk in
// several pieces and each would decode it again.
import { MIB } from '../../base/limits.ts';

const DEFAULT_BYTES = 8 * MIB;

export class RecentChunks {
  readonly #limit: number;
  /** in order of use, oldest first */
  readonly #chunks = new Map<number, Uint8Array>();
  #bytes = 0;

  constructor(limit = DEFAULT_BYTES) {
    this.#limit = limit;
  }

  get(index: number): Uint8Array | undefined {
    const bytes = this.#chunks.get(index);
    if (bytes === undefined) return undefined;
    this.#chunks.delete(index);
    this.#chunks.set(index, bytes);
    return bytes;
  }

  add(index: number, bytes: Uint8Array): void {
    this.#bytes += bytes.length - (this.#chunks.get(index)?.length ?? 0);
    this.#chunks.delete(index);
    this.#chunks.set(index, bytes);
    for (const [oldest, { length }] of this.#chunks) {
      if (this.#bytes <= this.#limit || oldest === index) break;
      this.#chunks.delete(oldest);
      this.#bytes -= length;
    }
  }
}
