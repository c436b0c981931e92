// What the bootstrap encoders of both versions are given: a numbered tree and a blob table.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';

/** A chunk as the 80-byte record holds it (rafs-metadata 2.5). */
export interface WriterChunk {
  digest: Uint8Array;
  blobIndex: number;
  /** ChunkFlag */
  flags: number;
  compressedSize: number;
  uncompressedSize: number;
  compressedOffset: number;
  uncompressedOffset: number;
  fileOffset: number;
  /** chunk number inside the blob */
  index: number;
  crc32: number;
}

/** One name in one directory. Names, targets and xattr values are raw bytes. */
export interface WriterNode {
  /** empty for the root */
  name: Buffer;
  /** full st_mode */
  mode: number;
  uid: number;
  gid: number;
  /** seconds, may be negative */
  mtime: number;
  mtimeNsec: number;
  /** regular: bytes; symlink: target length; else 0 (v5 directory sizes are computed by the reader of the source) */
  size: number;
  rdev: number;
  /** symlink target */
  target?: Buffer;
  /** full name (latin1 of the raw bytes) to value; sorted by name when written */
  xattrs?: Map<string, Buffer>;
  /** directories only, sorted by name bytes */
  children?: WriterNode[];
  /** regular files only, in file order; empty until the data was stored */
  chunks: WriterChunk[];
  /** v5 i_flags HARDLINK, set by tar sources on the link and its target */
  hardlinkFlag?: boolean;
  /** v5 directory i_size as loaded from a parent image or computed from the source */
  dirSize5?: number;
  /** v5 i_blocks of a directory that lost its opaque mark in an overlay: upstream counted the mark before (golden parent-v5-up-ovl) */
  blocks5?: number;
  index: number;
  /** index of the first link */
  ino: number;
  nlink: number;
}

/** A node with everything but name, mode and number at its default: one link, no data, of root, at second 0. */
export function plainNode(name: string | Buffer, mode: number, index: number): Omit<WriterNode, 'children'> {
  return {
    name: typeof name === 'string' ? Buffer.from(name) : name,
    mode,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    rdev: 0,
    chunks: [],
    index,
    ino: index,
    nlink: 1,
  };
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
