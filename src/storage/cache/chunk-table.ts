// What storage knows about the chunks of one blob, wherever it stands: compression information of v6, chunk records of v5.

/** Chunks of one blob by chunk index. Every accessor throws FormatError for values that break the limits of the blob. */
export interface ChunkTable {
  readonly count: number;
  /** position in the blob of the chunk, or of the batch that holds it */
  storedOffset(index: number): number;
  /** bytes in the blob of the chunk, or of the batch that holds it */
  storedSize(index: number): number;
  /** decoded size of what is stored there: of the chunk, or of the whole batch */
  unitSize(index: number): number;
  /** where the chunk starts in that; 0 unless batched */
  offsetInUnit(index: number): number;
  /** true when the stored bytes went through the compressor */
  isCompressed(index: number): boolean;
  isBatched(index: number): boolean;
  /** position in the uncompressed address space = in the plain data file */
  plainOffset(index: number): number;
  plainSize(index: number): number;
  /** digest of the plain bytes, or undefined when the image has none */
  digest(index: number): Uint8Array | undefined;
  /** CRC-32C of the plain bytes, or -1 when the image has none */
  crc(index: number): number;
  /** nobody reads it any more: memory it maps is given back */
  close?(): void;
}

/** End of the stored bytes of a chunk (or its batch). */
export function storedEnd(table: ChunkTable, index: number): number {
  return table.storedOffset(index) + table.storedSize(index);
}
