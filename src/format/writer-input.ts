// What the bootstrap encoders of both versions are given: a numbered tree and a blob table. The builder's tree has
// these shapes (src/tree/node.ts); they are repeated here because format/ does not look upwards.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';

/** A chunk as the 80-byte record holds it (rafs-metadata 2.5). */
export interface WriterChunk {
  digest: Uint8Array;
  blobIndex: number;
  flags: number;
  compressedSize: number;
  uncompressedSize: number;
  compressedOffset: number;
  uncompressedOffset: number;
  fileOffset: number;
  index: number;
  crc32: number;
}

/** One name in one directory. */
export interface WriterNode {
  name: Buffer;
  mode: number;
  uid: number;
  gid: number;
  mtime: number;
  mtimeNsec: number;
  size: number;
  rdev: number;
  target?: Buffer;
  /** full name as latin1 of the raw bytes -> value */
  xattrs?: Map<string, Buffer>;
  children?: WriterNode[];
  chunks: WriterChunk[];
  hardlinkFlag?: boolean;
  dirSize5?: number;
  /** v5 i_blocks where the source counted something else than the formula gives */
  blocks5?: number;
  index: number;
  /** index of the first link */
  ino: number;
  nlink: number;
}

/** One row of the blob table. */
export interface WriterBlob {
  id: string;
  chunkCount: number;
  chunkSize: number;
  features: number;
  compressor: CompressorName;
  digester: DigesterName;
  compressedSize: number;
  uncompressedSize: number;
  tocSize: number;
  tocDigest: Uint8Array;
  metaDigest: Uint8Array;
  metaSize: Uint8Array;
  cipherIv: Uint8Array;
  cipher: number;
  ciCompressor: number;
  ciOffset: number;
  ciCompressedSize: number;
  ciUncompressedSize: number;
  readaheadOffset: number;
  readaheadSize: number;
}

/** A tree whose entries have their numbers. Arrays are addressed by index, from 1; slot 0 is unused. */
export interface WriterTree {
  /** entries in W-order: `nodes[0]` is the root, index 1 */
  nodes: readonly WriterNode[];
  /** index of the parent directory; 0 for the root */
  parents: Uint32Array;
  /** directories: index of the first child, or the index that would have come next */
  childIndexes: Uint32Array;
  /** distinct inodes */
  inodes: number;
}

/** Facts of the image that go into the superblock. */
export interface WriterOptions {
  chunkSize: number;
  compressor: CompressorName;
  digester: DigesterName;
  explicitUidGid: boolean;
  alwaysHasXattr?: boolean;
  encrypted?: boolean;
}
