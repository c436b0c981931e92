// Compression information of a blob while it is written: one entry a chunk, batch contexts behind them.
// Source: blob-and-cache.md 4 and 8.
import { batchContext, ciEntryV1, ciEntryV2 } from '../format/blobmeta/layout.ts';
import { encodeBatchContext, encodeCiHeader, putCiEntryV1, putCiEntryV2 } from '../format/blobmeta/writer.ts';
import { ChunkFlag } from '../format/flags.ts';
import type { TreeChunk } from '../tree/node.ts';

/** A batch that was flushed. */
export interface BatchContext {
  compressedSize: number;
  uncompressedSize: number;
}

/** Bytes that grow by doubling. */
class GrowingBuffer {
  #bytes = Buffer.alloc(64 * 1024);
  length = 0;

  /** Room for `size` more bytes, zeroed; returns its offset. */
  reserve(size: number): number {
    const at = this.length;
    if (at + size > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(this.#bytes.length * 2, at + size));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.length += size;
    return at;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.length);
  }

  get view(): DataView {
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
  }
}

/** Collects the entries of one blob in chunk order. */
export class CiBuilder {
  readonly #v2: boolean;
  readonly #entries = new GrowingBuffer();
  readonly #contexts: BatchContext[] = [];
  count = 0;

  /** @param v2 24-byte entries: batch builds */
  constructor(v2: boolean) {
    this.#v2 = v2;
  }

  /** Entry of a chunk that is stored on its own. */
  add(chunk: TreeChunk): void {
    this.count++;
    if (this.#v2) {
      const compressed = (chunk.flags & ChunkFlag.compressed) !== 0;
      // reserving may move the bytes: the view comes after it
      const at = this.#entries.reserve(ciEntryV2.size);
      putCiEntryV2(this.#entries.view, at, { ...chunk, compressed });
    } else {
      const at = this.#entries.reserve(ciEntryV1.size);
      putCiEntryV1(this.#entries.view, at, chunk);
    }
  }

  /** Entry of a chunk in the open batch, which will be stored at `batchOffset`. */
  addBatched(chunk: TreeChunk, batchOffset: number, offsetInBatch: number): void {
    this.count++;
    const at = this.#entries.reserve(ciEntryV2.size);
    putCiEntryV2(this.#entries.view, at, {
      uncompressedOffset: chunk.uncompressedOffset,
      uncompressedSize: chunk.uncompressedSize,
      compressedOffset: batchOffset,
      compressedSize: 0,
      compressed: true,
      batch: { context: this.#contexts.length, offset: offsetInBatch },
    });
  }

  /** The open batch was stored. */
  closeBatch(context: BatchContext): void {
    this.#contexts.push(context);
  }

  /** Entries and contexts, plain. */
  data(): Buffer {
    const contexts = this.#contexts.map((context) => encodeBatchContext(context));
    return Buffer.concat([this.#entries.bytes, ...contexts]);
  }

  /** The 4096-byte header for the data stored at `ciOffset`. */
  header(features: number, ciCompressor: number, ciOffset: number, compressedSize: number): Buffer {
    const entriesSize = this.#entries.length;
    const contextSize = this.#contexts.length * batchContext.size;
    return encodeCiHeader({
      features,
      ciCompressor,
      ciEntries: this.count,
      ciOffset,
      ciCompressedSize: compressedSize,
      ciUncompressedSize: entriesSize + contextSize,
      ctxOffset: contextSize > 0 ? entriesSize : 0,
      ctxSize: contextSize,
      ctxCount: this.#contexts.length,
    });
  }
}
