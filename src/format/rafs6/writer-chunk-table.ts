// The chunk table of a v6 bootstrap: one record for each distinct chunk the tree refers to. Source: rafs-metadata.md 4.14.
import { chunkRecord } from '../chunk-record.ts';
import { BlobFeature } from '../flags.ts';
import type { WriterBlob, WriterChunk, WriterNode } from '../writer-input.ts';

/** A number holds this many digest bytes exactly. */
const HEAD_BYTES = 6;

interface Keyed {
  /** first six digest bytes: decides nearly every comparison */
  head: number;
  chunk: WriterChunk;
}

/**
 * Chunks of a tree, sorted by (digest, blob, index where the blob is external), each key once: the last reference in
 * W-order wins.
 */
export function distinctChunks(nodes: readonly WriterNode[], blobs: readonly WriterBlob[]): WriterChunk[] {
  const keyed: Keyed[] = [];
  for (const node of nodes) {
    for (const chunk of node.chunks) {
      const { digest } = chunk;
      let head = 0;
      for (let i = 0; i < HEAD_BYTES; i++) head = head * 256 + (digest[i] as number);
      keyed.push({ head, chunk });
    }
  }
  const externalIndex = (chunk: WriterChunk): number =>
    ((blobs[chunk.blobIndex]?.features ?? 0) & BlobFeature.external) === 0 ? -1 : chunk.index;
  const compare = (a: Keyed, b: Keyed): number =>
    a.head - b.head ||
    Buffer.compare(a.chunk.digest, b.chunk.digest) ||
    a.chunk.blobIndex - b.chunk.blobIndex ||
    externalIndex(a.chunk) - externalIndex(b.chunk);
  keyed.sort(compare);
  const distinct: WriterChunk[] = [];
  let last: Keyed | undefined;
  for (const item of keyed) {
    // the sort is stable: equal keys stand in order of reference
    if (last !== undefined && compare(last, item) === 0) distinct[distinct.length - 1] = item.chunk;
    else distinct.push(item.chunk);
    last = item;
  }
  return distinct;
}

/** Write one 80-byte chunk record. */
export function writeChunkRecord(view: DataView, offset: number, chunk: WriterChunk): void {
  const { put } = chunkRecord;
  put.digest(view, offset, chunk.digest);
  put.blobIndex(view, offset, chunk.blobIndex);
  put.flags(view, offset, chunk.flags);
  put.compressedSize(view, offset, chunk.compressedSize);
  put.uncompressedSize(view, offset, chunk.uncompressedSize);
  put.compressedOffset(view, offset, chunk.compressedOffset);
  put.uncompressedOffset(view, offset, chunk.uncompressedOffset);
  put.fileOffset(view, offset, chunk.fileOffset);
  put.index(view, offset, chunk.index);
  put.crc32(view, offset, chunk.crc32);
}
