// RAFS v6 on disk: an EROFS image plus RAFS structures the kernel ignores. Source: rafs-metadata.md section 4.
import { ascii, bytes, i64n, struct, u16, u32, u64n, u8, type Infer } from '../struct.ts';

export const EROFS_MAGIC = 0xe0f5_e1e2;
export const EROFS_SUPER_OFFSET = 0x400;
export const EXTENDED_SUPER_OFFSET = 0x480;
export const DEVICE_SLOTS_OFFSET = 0x580;
export const BLOCK_SIZE = 4096;
export const NID_SHIFT = 5;
/** feature_compat bit that marks RAFS v6. */
export const COMPAT_RAFS6 = 0x4000_0000;
/** CHUNKED_FILE + DEVICE_TABLE, the only value allowed. */
export const INCOMPAT_RAFS6 = 0xc;

/** EROFS superblock at byte 0x400. */
export const superblock6 = struct('superblock6', {
  size: 128,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_super_block; upstream layout/v6.rs, RafsV6SuperBlock',
  fields: {
    magic: u32('0xE0F5E1E2'),
    checksum: u32('0, not used'),
    featureCompat: u32('0x40000000 marks RAFS v6'),
    blkszbits: u8('12, or 9 in tarfs mode'),
    extslots: u8('0'),
    rootNid: u16('128'),
    inos: u64n('tree entries, every hard link included'),
    buildTime: u64n('0'),
    buildTimeNsec: u32('0'),
    blocks: u32('sum of the device blocks'),
    metaBlkaddr: u32('start of the metadata area in blocks'),
    xattrBlkaddr: u32('0, no shared xattrs'),
    uuid: bytes(16, 'zero'),
    volumeName: bytes(16, 'zero'),
    featureIncompat: u32('0xC: chunked files, device table'),
    union: u16('0'),
    extraDevices: u16('number of blobs'),
    devtSlotoff: u16('11: device slots start at 11 * 128'),
    reserved: bytes(38, 'zero'),
  },
});
export type Superblock6 = Infer<typeof superblock6>;

/** RAFS extended superblock at byte 0x480. */
export const extendedSuper6 = struct('extendedSuper6', {
  size: 256,
  source: 'upstream layout/v6.rs, RafsV6SuperBlockExt',
  fields: {
    flags: u64n('SuperFlag'),
    blobTableOffset: u64n('file offset of the blob table'),
    blobTableSize: u32('256 bytes a blob'),
    chunkSize: u32('chunk size in bytes'),
    chunkTableOffset: u64n('file offset of the chunk table'),
    chunkTableSize: u64n('80 bytes a chunk'),
    prefetchTableOffset: u64n('file offset of the prefetch table, or 0'),
    prefetchTableSize: u32('4 bytes an entry, or 0'),
    padding: u32('zero'),
    reserved: bytes(200, 'zero'),
  },
});
export type ExtendedSuper6 = Infer<typeof extendedSuper6>;

/** One extra device of EROFS: a blob. */
export const deviceSlot6 = struct('deviceSlot6', {
  size: 128,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_deviceslot; upstream layout/v6.rs, RafsV6Device',
  fields: {
    tag: ascii(64, 'blob id'),
    blocks: u32('uncompressed size of the blob in blocks'),
    mappedBlkaddr: u32('first block when all blobs are concatenated behind the bootstrap'),
    reserved: bytes(56, 'zero'),
  },
});
export type DeviceSlot6 = Infer<typeof deviceSlot6>;

/** One row of the blob table. */
export const blobRecord6 = struct('blobRecord6', {
  size: 256,
  source: 'upstream layout/v6.rs, RafsV6Blob',
  fields: {
    blobId: bytes(64, 'blob id, NUL padded'),
    blobIndex: u32('position in the table'),
    chunkSize: u32('equal to that of the superblock'),
    chunkCount: u32('chunks stored in the blob'),
    compressor: u32('compression of the chunk data'),
    digester: u32('digest of the chunks'),
    features: u32('BlobFeature'),
    compressedSize: u64n('size of the blob file'),
    uncompressedSize: u64n('size of the uncompressed blob address space'),
    tocSize: u32('table of contents with its tar header; 0 when none'),
    ciCompressor: u32('compression of the compression information'),
    ciOffset: u64n('offset of the compression information in the blob'),
    ciCompressedSize: u64n('stored size'),
    ciUncompressedSize: u64n('decoded size'),
    tocDigest: bytes(32, 'SHA-256 of the last tocSize bytes'),
    metaDigest: bytes(32, 'id of a separate metadata blob, or cipher key'),
    metaSize: bytes(8, 'u64 size of a separate metadata blob, or first half of the cipher IV'),
    cipherIv: bytes(8, 'second half of the cipher IV'),
    cipher: u32('0 none, 1 AES-128-XTS'),
    reserved: bytes(36, 'zero'),
  },
});
export type BlobRecord6 = Infer<typeof blobRecord6>;

/** Data layouts in bits 1-3 of the inode format. */
export const InodeLayout6 = { flatPlain: 0, flatInline: 2, chunkBased: 4 } as const;
/** Bit of the chunk format word that says chunk indexes follow. */
export const CHUNK_FORMAT_INDEXES = 0x20;

/** Extended inode, the only form we write. */
export const inodeExtended6 = struct('inodeExtended6', {
  size: 64,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_inode_extended',
  fields: {
    format: u16('bit 0: 1 = extended; bits 1-3: data layout'),
    xattrIcount: u16('xattr area in units: 12 + 4 * (n - 1) bytes'),
    mode: u16('low 16 bits of st_mode'),
    reserved: u16('zero'),
    size: u64n('file size, dirent bytes or target length'),
    u: u32('block address, chunk format or device number'),
    ino: u32('inode number in tree order; informational'),
    uid: u32('owner'),
    gid: u32('group'),
    mtime: i64n('seconds'),
    mtimeNsec: u32('nanoseconds'),
    nlink: u32('links'),
    reserved2: bytes(16, 'zero'),
  },
});
export type InodeExtended6 = Infer<typeof inodeExtended6>;

/** Compact inode: read, never written. */
export const inodeCompact6 = struct('inodeCompact6', {
  size: 32,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_inode_compact',
  fields: {
    format: u16('bit 0: 0 = compact; bits 1-3: data layout'),
    xattrIcount: u16('as in the extended form'),
    mode: u16('low 16 bits of st_mode'),
    nlink: u16('links'),
    size: u32('as in the extended form'),
    reserved: u32('zero'),
    u: u32('as in the extended form'),
    ino: u32('inode number in tree order'),
    uid: u16('owner'),
    gid: u16('group'),
    reserved2: u32('zero'),
  },
});
export type InodeCompact6 = Infer<typeof inodeCompact6>;

/** One directory entry. Entries fill the head of a directory block, names the rest. */
export const dirent6 = struct('dirent6', {
  size: 12,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_dirent; upstream layout/v6.rs, RafsV6Dirent',
  fields: {
    nid: u64n('child inode, counted in 32-byte slots from metaBlkaddr'),
    nameoff: u16('first byte of the name, from the start of the block'),
    fileType: u8('FileType6; must agree with the mode of the inode'),
    reserved: u8('zero'),
  },
});
export type Dirent6 = Infer<typeof dirent6>;

export const FileType6 = {
  unknown: 0,
  regular: 1,
  directory: 2,
  char: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
} as const;

/** Head of the xattr area of an inode. */
export const xattrHeader6 = struct('xattrHeader6', {
  size: 12,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_xattr_ibody_header',
  fields: {
    nameFilter: u32('0'),
    sharedCount: u8('0, shared xattrs are not used'),
    reserved: bytes(7, 'zero'),
  },
});

/** Head of one xattr; name suffix and value follow, padded to 4 bytes. */
export const xattrEntry6 = struct('xattrEntry6', {
  size: 4,
  source: 'Linux fs/erofs/erofs_fs.h, struct erofs_xattr_entry',
  fields: {
    nameLen: u8('length of the name without its prefix'),
    nameIndex: u8('prefix, XATTR_PREFIXES6'),
    valueSize: u16('value length'),
  },
});

/** Name prefixes by index (rafs-metadata 4.10). */
export const XATTR_PREFIXES6: readonly (string | undefined)[] = [
  undefined,
  'user.',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'trusted.',
  undefined,
  'security.',
];

/** Address of one chunk of a regular file. */
export const chunkIndex6 = struct('chunkIndex6', {
  size: 8,
  source:
    'Linux fs/erofs/erofs_fs.h, struct erofs_inode_chunk_index; upstream layout/v6.rs, RafsV6InodeChunkAddr',
  fields: {
    indexLow: u16('bits 0-15 of the chunk index in the blob'),
    deviceId: u16('low byte: blob index + 1; high byte: bits 16-23 of the chunk index'),
    blkaddr: u32('uncompressed offset in the blob, in blocks'),
  },
});
