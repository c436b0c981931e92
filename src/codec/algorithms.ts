// Names and numbers of the compression and digest algorithms. Source: blob-and-cache.md 1.1.

export type CompressorName = 'none' | 'lz4_block' | 'gzip' | 'zstd';
export type DigesterName = 'blake3' | 'sha256';

/** Compression algorithm by number. */
export const COMPRESSORS: readonly CompressorName[] = ['none', 'lz4_block', 'gzip', 'zstd'];
/** Digest algorithm by number. */
export const DIGESTERS: readonly DigesterName[] = ['blake3', 'sha256'];
