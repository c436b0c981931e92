// Names of flag bits as upstream prints them. Source: rafs-metadata.md 2.2, 2.3; golden cli/, check.txt.
import { BlobFeature, SuperFlag } from '../../format/flags.ts';

function names(table: readonly (readonly [number, string])[], flags: number): string[] {
  return table.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name);
}

const SUPER: readonly (readonly [number, string])[] = [
  [SuperFlag.compressionNone, 'COMPRESSION_NONE'],
  [SuperFlag.compressionLz4, 'COMPRESSION_LZ4'],
  [SuperFlag.hashBlake3, 'HASH_BLAKE3'],
  [SuperFlag.hashSha256, 'HASH_SHA256'],
  [SuperFlag.explicitUidGid, 'EXPLICIT_UID_GID'],
  [SuperFlag.hasXattr, 'HAS_XATTR'],
  [SuperFlag.compressionGzip, 'COMPRESSION_GZIP'],
  [SuperFlag.compressionZstd, 'COMPRESSION_ZSTD'],
  [SuperFlag.inlinedChunkDigest, 'INLINED_CHUNK_DIGEST'],
  [SuperFlag.tarfsMode, 'TARTFS_MODE'],
  [SuperFlag.encryptionNone, 'ENCRYPTION_NONE'],
  [SuperFlag.encryptionAes128Xts, 'ENCRYPTION_ASE_128_XTS'],
];

/** Superblock flags, lowest bit first. */
export function superFlagNames(flags: number): string[] {
  return names(SUPER, flags);
}

const BLOB: readonly (readonly [number, string])[] = [
  [BlobFeature.aligned, 'ALIGNED'],
  [BlobFeature.inlinedFsMeta, 'INLINED_FS_META'],
  [BlobFeature.chunkInfoV2, 'CHUNK_INFO_V2'],
  [BlobFeature.zran, 'ZRAN'],
  [BlobFeature.separate, 'SEPARATE'],
  [BlobFeature.inlinedChunkDigest, 'INLINED_CHUNK_DIGEST'],
  [BlobFeature.tarfs, 'TARFS'],
  [BlobFeature.batch, 'BATCH'],
  [BlobFeature.encrypted, 'ENCRYPTED'],
  [BlobFeature.isChunkdictGenerated, 'IS_CHUNKDICT_GENERATED'],
  [BlobFeature.isSeparatedWithPrefetchFiles, 'IS_SEPARATED_WITH_PREFETCH_FILES'],
  [BlobFeature.external, 'EXTERNAL'],
  [BlobFeature.hasTarHeader, 'HAS_TAR_HEADER'],
  [BlobFeature.hasToc, 'HAS_TOC'],
  [BlobFeature.capTarToc, 'CAP_TAR_TOC'],
];

/** Blob features as `inspect` shows them, lowest bit first. */
export function blobFeatureNames(features: number): string[] {
  return names(BLOB, features);
}

const CHECK: readonly (readonly [number, string])[] = [
  [BlobFeature.aligned, 'aligned'],
  [BlobFeature.batch, 'batch'],
  [BlobFeature.capTarToc, 'cap_toc'],
  [BlobFeature.inlinedChunkDigest, 'chunk-digest'],
  [BlobFeature.chunkInfoV2, 'chunk-v2'],
  [BlobFeature.inlinedFsMeta, 'fs-meta'],
  [BlobFeature.separate, 'separate'],
  [BlobFeature.hasTarHeader, 'tar-header'],
  [BlobFeature.hasToc, 'toc'],
  [BlobFeature.zran, 'zran'],
  [BlobFeature.encrypted, 'encrypted'],
  [BlobFeature.isChunkdictGenerated, 'is-chunkdict-generated'],
];

/** Blob features as `check` shows them, in its order (nydus-image 4.1). */
export function checkFeatureNames(features: number): string[] {
  return names(CHECK, features);
}
