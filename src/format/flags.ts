// Numbers and flag bits shared by both RAFS versions and by blobs.
// Source: rafs-metadata.md 2.2-2.5, blob-and-cache.md 1.1 and 2.

import type { CompressorName } from '../codec/algorithms.ts';

/** Superblock flags, low 32 bits; nothing above bit 31 is defined. */
export const SuperFlag = {
  compressionNone: 0x1,
  compressionLz4: 0x2,
  hashBlake3: 0x4,
  hashSha256: 0x8,
  explicitUidGid: 0x10,
  hasXattr: 0x20,
  compressionGzip: 0x40,
  compressionZstd: 0x80,
  inlinedChunkDigest: 0x100,
  tarfsMode: 0x200,
  encryptionNone: 0x100_0000,
  encryptionAes128Xts: 0x200_0000,
} as const;

/** Every superblock flag a reader accepts: the named ones and PRESERVED_COMPAT_0..5. */
export const KNOWN_SUPER_FLAGS = 0xff00_03ff;

/** Superblock compression flag of an algorithm. */
export const COMPRESSOR_FLAG: Record<CompressorName, number> = {
  none: SuperFlag.compressionNone,
  lz4_block: SuperFlag.compressionLz4,
  gzip: SuperFlag.compressionGzip,
  zstd: SuperFlag.compressionZstd,
};

/** Blob features. */
export const BlobFeature = {
  aligned: 0x1,
  inlinedFsMeta: 0x2,
  chunkInfoV2: 0x4,
  zran: 0x8,
  separate: 0x10,
  inlinedChunkDigest: 0x20,
  tarfs: 0x40,
  batch: 0x80,
  encrypted: 0x100,
  isChunkdictGenerated: 0x200,
  isSeparatedWithPrefetchFiles: 0x400,
  external: 0x800,
  hasTarHeader: 0x1000_0000,
  hasToc: 0x2000_0000,
  capTarToc: 0x4000_0000,
} as const;

/** Incompatible feature bits a reader knows; any other bit among the low 16 is refused. */
export const KNOWN_INCOMPAT_FEATURES = 0x0fff;

/** Flags of a chunk record. */
export const ChunkFlag = {
  compressed: 0x1,
  hole: 0x2,
  encrypted: 0x4,
  batch: 0x8,
  hasCrc32: 0x10,
} as const;

/** File type bits of a mode. */
export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_IFBLK = 0o060000;
export const S_IFIFO = 0o010000;
export const S_IFSOCK = 0o140000;

/** Low 32 bits of the Linux dev_t encoding (rafs-metadata 2.7). */
export function makeRdev(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

export function majorOf(rdev: number): number {
  return (rdev >>> 8) & 0xfff;
}

export function minorOf(rdev: number): number {
  return (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
}
