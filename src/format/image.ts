// What a RAFS bootstrap answers, whatever its version: implemented by rafs5/reader.ts and rafs6/reader.ts over
// mapped bytes. Nothing here allocates per inode; the caller owns the out objects and reuses them.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';

/** Facts of the superblock. */
export interface SuperInfo {
  version: 5 | 6;
  /** SuperFlag, low 32 bits as unsigned number */
  flags: number;
  chunkSize: number;
  compressor: CompressorName;
  digester: DigesterName;
  explicitUidGid: boolean;
  hasXattr: boolean;
  /** distinct inodes as the superblock says (v5), or tree entries (v6) */
  inodesCount: number;
  /** block size: 4096, or 512 in tarfs mode */
  blockSize: number;
}

/** One row of the blob table, both versions. Fields a version lacks are zero or empty. */
export interface BlobInfo {
  index: number;
  /** id as stored; see effectiveBlobId in rafs/ for inlined placeholders */
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
  metaSize: number;
  cipher: number;
  cipherIv: Uint8Array;
  ciCompressor: CompressorName;
  ciOffset: number;
  ciCompressedSize: number;
  ciUncompressedSize: number;
  /** v5: blob prefetch range */
  readaheadOffset: number;
  readaheadSize: number;
  /** v6: first block of the blob in one flat device */
  mappedBlkaddr: number;
}

/** Attributes of one inode; filled by `attr`. */
export interface InodeAttr {
  /** number users see: i_ino for v5, nid for v6 */
  ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  size: number;
  /** 512-byte blocks: as stored for v5 (xattrs included), of the size for v6 */
  blocks: number;
  /** device number; meaningless unless char or block */
  rdev: number;
  mtime: number;
  mtimeNsec: number;
}

/** Place of one chunk of a file; filled by `chunk`. */
export interface ChunkRef {
  blobIndex: number;
  chunkIndex: number;
  /** position in the uncompressed blob address space = position in the cache data file */
  uncompressedOffset: number;
  uncompressedSize: number;
  fileOffset: number;
  /** byte offset of the 80-byte chunk record in the bootstrap; 0 when the version keeps none per file (v6) */
  recordOffset: number;
}

/** Called for each directory entry; `cookie` resumes after this entry; return false to stop. */
export type DirVisitor = (ino: number, name: Uint8Array, fileType: number, cookie: number) => boolean;

export interface RafsImage {
  readonly super: SuperInfo;
  readonly blobs: readonly BlobInfo[];
  readonly rootIno: number;
  /** the whole bootstrap */
  readonly bytes: Uint8Array;

  /** Inode number of a child, 0 when there is none. `.` and `..` are answered too. FormatError ENOTDIR on a file. */
  lookup(dir: number, name: Uint8Array): number;
  /** FormatError when `ino` is no inode of this image. */
  attr(ino: number, out: InodeAttr): void;
  /**
   * Visit entries after `cookie` (0 = from the start), `.` and `..` included: v5 as `.`=1, `..`=2, children from 3;
   * v6 in on-disk order, cookies 1, 2, 3 ... fileType is a FileType6 number, always the true one.
   * The name is a view of mapped memory, valid during the call.
   */
  readdir(dir: number, cookie: number, visit: DirVisitor): void;
  /** chunks of a regular file, 0 for an empty one */
  chunkCount(ino: number): number;
  chunk(ino: number, position: number, out: ChunkRef): void;
  /** target of a symlink: a view of mapped memory */
  readlink(ino: number): Uint8Array;
  /** full xattr names with their values: views of mapped memory or fresh names */
  xattrs(ino: number): Iterable<{ name: Buffer; value: Uint8Array }>;
  /** value of one xattr by full name, or undefined */
  xattr(ino: number, name: Uint8Array): Uint8Array | undefined;
  /** parent directory of a directory; the root's is itself */
  parentOf(dir: number): number;
  /** v5 inode numbers or v6 nids of the prefetch table, in order, ending before the first 0 */
  prefetchInos(): number[];
  /**
   * Byte offset in `bytes` of the 80-byte chunk record of a chunk, 0 when the bootstrap has none.
   * The first call builds an index of 4 bytes per chunk of that blob (v5: walks all inodes; v6: reads the chunk table).
   */
  chunkRecordOffset(blobIndex: number, chunkIndex: number): number;
}

/** An empty attribute object to be filled by `RafsImage.attr`. */
export function newAttr(): InodeAttr {
  return { ino: 0, mode: 0, nlink: 0, uid: 0, gid: 0, size: 0, blocks: 0, rdev: 0, mtime: 0, mtimeNsec: 0 };
}

/** An empty chunk reference to be filled by `RafsImage.chunk`. */
export function newChunkRef(): ChunkRef {
  return {
    blobIndex: 0,
    chunkIndex: 0,
    uncompressedOffset: 0,
    uncompressedSize: 0,
    fileOffset: 0,
    recordOffset: 0,
  };
}
