// The file tree in memory while an image is built or merged. No byte layout here.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';

/** One chunk as the builder knows it; shared by all files that contain it, except `fileOffset`. */
export interface TreeChunk {
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
export interface TreeNode {
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
  children?: TreeNode[];
  /** regular files only, in file order; empty until the data was stored */
  chunks: TreeChunk[];
  /** v5 i_flags HARDLINK, set by tar sources on the link and its target */
  hardlinkFlag?: boolean;
  /** v5 directory i_size as loaded from a parent image or computed from the source */
  dirSize5?: number;
  /** v5 i_blocks of a directory that lost its opaque mark in an overlay: upstream counted the mark before (golden parent-v5-up-ovl) */
  blocks5?: number;
  /** identity for hard links: same layer, source inode and device = same file */
  layer: number;
  sourceIno: number;
  sourceDev: number;
  /** path in the source file system, for directory sources whose data is read later */
  sourcePath?: Buffer;
  /** true when the data comes from a parent image and is not stored again */
  inherited?: boolean;

  /** numbering, assigned before writing (rafs-metadata 2.1, 5.1, 5.2) */
  index: number;
  ino: number;
  nlink: number;
}

/** One row of the blob table while building; mirrors format/image BlobInfo. */
export interface TreeBlob {
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
