// RAFS v5 on disk. Source: rafs-metadata.md section 3.
import { bytes, i64n, struct, u16, u32, u64n, type Infer } from '../struct.ts';

export const RAFS5_MAGIC = 0x5241_4653;
export const RAFS5_VERSION = 0x500;
export const SUPERBLOCK5_SIZE = 8192;

/** First 8192 bytes of a v5 bootstrap. */
export const superblock5 = struct('superblock5', {
  size: SUPERBLOCK5_SIZE,
  source: 'upstream rafs/src/metadata/layout/v5.rs, RafsV5SuperBlock',
  fields: {
    magic: u32('0x52414653'),
    fsVersion: u32('0x500'),
    sbSize: u32('8192'),
    blockSize: u32('chunk size in bytes; the name is historical'),
    flags: u64n('SuperFlag'),
    inodesCount: u64n('distinct inodes, hard links counted once'),
    inodeTableOffset: u64n('8192'),
    prefetchTableOffset: u64n('end of the inode table'),
    blobTableOffset: u64n('end of the prefetch table'),
    inodeTableEntries: u32('tree entries, without the alignment slot'),
    prefetchTableEntries: u32('prefetch entries, without the alignment slot'),
    blobTableSize: u32('bytes of the blob table, padding included'),
    extendedBlobTableEntries: u32('extended blob records; 0 in very old images'),
    extendedBlobTableOffset: u64n('end of the blob table'),
    reserved: bytes(8112, 'zero'),
  },
});
export type Superblock5 = Infer<typeof superblock5>;

/** Sizes of one blob; one record per row of the blob table. */
export const extendedBlob5 = struct('extendedBlob5', {
  size: 64,
  source: 'upstream rafs/src/metadata/layout/v5.rs, RafsV5ExtBlobEntry',
  fields: {
    chunkCount: u32('chunks stored in the blob'),
    features: u32('BlobFeature'),
    uncompressedSize: u64n('size of the uncompressed blob address space'),
    compressedSize: u64n('size of the blob'),
    reserved: bytes(40, 'zero'),
  },
});
export type ExtendedBlob5 = Infer<typeof extendedBlob5>;

/** Head of one blob table element; the id and a NUL separator follow. */
export const blobEntry5 = struct('blobEntry5', {
  size: 8,
  source: 'upstream rafs/src/metadata/layout/v5.rs, RafsV5BlobTable',
  fields: {
    readaheadOffset: u32('start of the blob range to prefetch; written 0'),
    readaheadSize: u32('length of that range; set by the blob prefetch policy'),
  },
});

export const INODE5_SIZE = 128;

/** Head of an inode record; name, symlink target, xattr table and chunk records follow. */
export const inode5 = struct('inode5', {
  size: INODE5_SIZE,
  source: 'upstream rafs/src/metadata/layout/v5.rs, RafsV5Inode',
  fields: {
    digest: bytes(32, 'inode digest'),
    parent: u64n('inode number of the parent directory; 0 for the root'),
    ino: u64n('inode number; the index of the first link'),
    uid: u32('0 unless SuperFlag.explicitUidGid'),
    gid: u32('0 unless SuperFlag.explicitUidGid'),
    projid: u32('0'),
    mode: u32('full st_mode'),
    size: u64n('file size, target length, or the directory formula'),
    blocks: u64n('512-byte blocks, xattrs included'),
    flags: u64n('InodeFlag5'),
    nlink: u32('links'),
    childIndex: u32('directory: index of the first child'),
    childCount: u32('directory: children; regular file: chunks'),
    nameSize: u16('name length in bytes, unpadded'),
    symlinkSize: u16('target length in bytes, unpadded'),
    rdev: u32('device number of a char or block device'),
    mtimeNsec: u32('nanoseconds'),
    mtime: i64n('seconds'),
    reserved: bytes(8, 'zero'),
  },
});
export type Inode5 = Infer<typeof inode5>;

export const InodeFlag5 = { symlink: 0x1, hardlink: 0x2, xattr: 0x4, hasHole: 0x8 } as const;
