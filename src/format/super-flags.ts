// What the superblock flags say, shared by both versions. Source: rafs-metadata.md 2.3.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';
import { FormatError, type FormatPlace } from '../base/errors.ts';
import { KNOWN_SUPER_FLAGS, SuperFlag } from './flags.ts';

/** How every message about a superblock starts; upstream's words, which scripts match. */
export const INVALID_SUPERBLOCK = 'invalid RAFS superblock';

/** A FormatError whose message starts with `invalid RAFS superblock`. */
export function superblockError(place: FormatPlace, problem: string, hint?: string): FormatError {
  return new FormatError(place, problem, {
    summary: INVALID_SUPERBLOCK,
    ...(hint === undefined ? {} : { hint }),
  });
}

/**
 * The low 32 bits of the flags.
 *
 * @throws FormatError a bit is set that no version of the format defines
 */
export function checkSuperFlags(place: FormatPlace, flags: number): number {
  const low = flags % 0x1_0000_0000;
  if (flags > 0xffff_ffff || (low & ~KNOWN_SUPER_FLAGS) !== 0) {
    throw superblockError(
      place,
      `unknown bits in 0x${flags.toString(16)}, known are 0x${KNOWN_SUPER_FLAGS.toString(16)}`,
    );
  }
  return low;
}

/** Compression flags in the order in which upstream looks at them. */
const COMPRESSION: readonly (readonly [number, CompressorName])[] = [
  [SuperFlag.compressionNone, 'none'],
  [SuperFlag.compressionLz4, 'lz4_block'],
  [SuperFlag.compressionGzip, 'gzip'],
  [SuperFlag.compressionZstd, 'zstd'],
];

/** Compressor the flags name; lz4_block when they name none (v5 only). */
export function compressorOf(flags: number): CompressorName {
  for (const [bit, name] of COMPRESSION) if ((flags & bit) !== 0) return name;
  return 'lz4_block';
}

/** How many compression bits are set. */
export function compressionBits(flags: number): number {
  return COMPRESSION.filter(([bit]) => (flags & bit) !== 0).length;
}

/** Digester the flags name; blake3 when they name none (v5 only) or both. */
export function digesterOf(flags: number): DigesterName {
  return (flags & SuperFlag.hashBlake3) === 0 && (flags & SuperFlag.hashSha256) !== 0 ? 'sha256' : 'blake3';
}

/** How many digest bits are set. */
export function digestBits(flags: number): number {
  return ((flags & SuperFlag.hashBlake3) === 0 ? 0 : 1) + ((flags & SuperFlag.hashSha256) === 0 ? 0 : 1);
}
