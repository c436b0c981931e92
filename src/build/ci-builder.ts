// Compression information of a blob while it is written: one entry a chunk, batch contexts behind them.
// Source: blob-and-cache.md 4 and 8.
import { batchContext, CI_HEADER_SIZE, CI_MAGIC, CiFlag, ciEntryV1, ciEntryV2, ciHeader } from '../format/blobmeta/layout.ts';
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

const TWO_32 = 0x1_0000_0000;

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

  /** Batches flushed so far: the context number of the batch that is open. */
  get batches(): number {
    return this.#contexts.length;
  }

  /** Entry of a chunk that is stored on its own. */
  add(chunk: TreeChunk): void {
    this.count++;
    if (!this.#v2) {
      this.#addV1(chunk);
      return;
    }
    const compressed = (chunk.flags & ChunkFlag.compressed) !== 0;
    // a CRC of 0 with the flag would be refused by readers
    const flags = (compressed ? CiFlag.compressed : 0) | (chunk.crc32 !== 0 ? CiFlag.hasCrc32 : 0);
    this.#addV2(chunk, flags, chunk.compressedOffset, chunk.compressedSize, chunk.crc32, 0);
  }

  /** Entry of a chunk in the open batch, which will be stored at `batchOffset`. */
  addBatched(chunk: TreeChunk, batchOffset: number, offsetInBatch: number): void {
    this.count++;
    this.#addV2(chunk, CiFlag.batch | CiFlag.compressed, batchOffset, 0, offsetInBatch, this.#contexts.length);
  }

  /** The open batch was stored. */
  closeBatch(context: BatchContext): void {
    this.#contexts.push(context);
  }

  #addV1(chunk: TreeChunk): void {
    const at = this.#entries.reserve(ciEntryV1.size);
    const { view } = this.#entries;
    const usize = chunk.uncompressedSize - 1;
    const csize = chunk.compressedSize - 1;
    const high = Math.floor(chunk.uncompressedOffset / TWO_32);
    ciEntryV1.put.uncompressedLow(view, at, ((chunk.uncompressedOffset & 0xffff_f000) | (((usize >>> 20) & 0xf) << 8)) >>> 0);
    ciEntryV1.put.uncompressedHigh(view, at, (((usize & 0xf_ffff) << 12) | (high & 0xfff)) >>> 0);
    ciEntryV1.put.compressedLow(view, at, chunk.compressedOffset % TWO_32);
    ciEntryV1.put.compressedHigh(
      view,
      at,
      (((csize & 0xf_ffff) << 12) | (((csize >>> 20) & 0xf) << 8) | (Math.floor(chunk.compressedOffset / TWO_32) & 0xff)) >>> 0,
    );
  }

  #addV2(chunk: TreeChunk, flags: number, offset: number, csize: number, dataLow: number, dataHigh: number): void {
    const at = this.#entries.reserve(ciEntryV2.size);
    const { view } = this.#entries;
    ciEntryV2.put.uncompressedBlock(view, at, chunk.uncompressedOffset / 4096);
    ciEntryV2.put.uncompressedSizeFlags(view, at, ((flags << 24) | (chunk.uncompressedSize - 1)) >>> 0);
    ciEntryV2.put.compressedOffsetLow(view, at, offset % TWO_32);
    ciEntryV2.put.compressedSizeOffset(view, at, ((csize << 8) | Math.floor(offset / TWO_32)) >>> 0);
    ciEntryV2.put.dataLow(view, at, dataLow);
    ciEntryV2.put.dataHigh(view, at, dataHigh);
  }

  /** Entries and contexts, plain. */
  data(): Buffer {
    const contexts = this.#contexts.map((context) => batchContext.encode(context));
    return Buffer.concat([this.#entries.bytes, ...contexts]);
  }

  /** The 4096-byte header for the data stored at `ciOffset`. */
  header(features: number, ciCompressor: number, ciOffset: number, compressedSize: number): Buffer {
    const entriesSize = this.#entries.length;
    const contextSize = this.#contexts.length * batchContext.size;
    const header = ciHeader.encode({
      magic: CI_MAGIC,
      features,
      ciCompressor,
      ciEntries: this.count,
      ciOffset,
      ciCompressedSize: compressedSize,
      ciUncompressedSize: entriesSize + contextSize,
      ctxOffset: contextSize > 0 ? entriesSize : 0,
      ctxSize: contextSize,
      ctxCount: this.#contexts.length,
      magic2: CI_MAGIC,
    });
    if (header.length !== CI_HEADER_SIZE) throw new RangeError('ciHeader size');
    return header;
  }
}
