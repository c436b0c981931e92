// Finds and parses the table of contents at the end of a blob, and decodes the sections it names.
// Blobs without one end with the trailer of their bootstrap, or say nothing. Source: blob-and-cache.md 6.
import { FormatError, IntegrityError } from '../../base/errors.ts';
import { isZero, toHex, viewOf } from '../../base/bytes.ts';
import { MAX_TOC_SIZE, MIN_TOC_SIZE } from '../../base/limits.ts';
import { decompress } from '../../codec/compress.ts';
import { digestOf } from '../../codec/digest.ts';
import { parseTrailer, TRAILER_SIZE } from '../tar/trailer.ts';
import { Section, TocFlag, tocEntry, type TocEntry } from './layout.ts';

/** Bytes of the tail that are read when nothing says how long the table is. */
const AUTO_TAIL = 4096;
const TOC_FLAG_MASK = 0xf;

/** A byte range of a blob. */
export interface ByteRange {
  start: number;
  /** exclusive */
  end: number;
}

/** The parsed table. */
export interface Toc {
  entries: TocEntry[];
  /** SHA-256 of entries and trailer */
  digest: Buffer;
  /** bytes of entries and trailer */
  size: number;
}

/**
 * Range to read in order to find the table.
 *
 * @param blobSize size of the blob as its storage says
 * @param tocSize  size from the blob table, 0 when it has none
 * @throws FormatError the size of the blob table is impossible, or the blob is smaller
 */
export function tocTail(blobSize: number, tocSize = 0): ByteRange {
  if (tocSize === 0) {
    const size = Math.min(AUTO_TAIL, Math.floor(blobSize / tocEntry.size) * tocEntry.size);
    return { start: blobSize - size, end: blobSize };
  }
  if (tocSize < MIN_TOC_SIZE || tocSize > MAX_TOC_SIZE || tocSize % tocEntry.size !== 0) {
    throw new FormatError(
      { struct: 'blobInfo', field: 'tocSize' },
      `is ${tocSize}, expected a multiple of ${tocEntry.size} from ${MIN_TOC_SIZE} to ${MAX_TOC_SIZE}`,
    );
  }
  if (tocSize > blobSize)
    throw new FormatError(
      { struct: 'blobInfo', field: 'tocSize' },
      `is ${tocSize}, the blob has ${blobSize} bytes`,
    );
  return { start: blobSize - tocSize, end: blobSize };
}

/**
 * Parse the table at the end of `tail`.
 *
 * @param tail     last bytes of a blob
 * @param blobSize size of the blob; every section must be inside
 * @param digest   expected SHA-256 of the table; all zero or undefined: not compared
 * @returns undefined when the tail does not end with a table
 * @throws FormatError    the table is damaged
 * @throws IntegrityError the digest differs
 */
export function parseToc(tail: Uint8Array, blobSize: number, digest?: Uint8Array): Toc | undefined {
  const trailer = parseTrailer(tail, tail.length - TRAILER_SIZE);
  if (trailer === undefined || trailer.name !== Section.toc) return undefined;
  const start = tail.length - TRAILER_SIZE - trailer.size;
  if (start < 0 || trailer.size % tocEntry.size !== 0 || trailer.size + TRAILER_SIZE > MAX_TOC_SIZE) {
    throw new FormatError(
      { struct: 'toc', field: 'size' },
      `is ${trailer.size}, expected a multiple of ${tocEntry.size} up to ${Math.min(tail.length, MAX_TOC_SIZE) - TRAILER_SIZE}`,
    );
  }
  const table = tail.subarray(start);
  const found = digestOf('sha256', table);
  if (digest !== undefined && !isZero(digest) && !found.equals(digest)) {
    throw new IntegrityError(`table of contents: digest ${toHex(found)}, expected ${toHex(digest)}`);
  }
  const view = viewOf(table);
  const entries: TocEntry[] = [];
  for (let at = 0; at < trailer.size; at += tocEntry.size)
    entries.push(checkEntry(tocEntry.read(view, at), at, blobSize));
  return { entries, digest: found, size: table.length };
}

function checkEntry(entry: TocEntry, at: number, blobSize: number): TocEntry {
  const fail = (field: keyof TocEntry, problem: string) =>
    new FormatError({ struct: 'tocEntry', field, offset: at }, problem);
  const known =
    entry.flags === TocFlag.none || entry.flags === TocFlag.zstd || entry.flags === TocFlag.lz4Block;
  if ((entry.flags & ~TOC_FLAG_MASK) !== 0 || !known)
    throw fail('flags', `0x${entry.flags.toString(16)} names no compression`);
  if (entry.reserved1 !== 0) throw fail('reserved1', `is ${entry.reserved1}, expected 0`);
  // the offset of image.blob is wrong in old blobs and never used
  const end = (entry.name === Section.blob ? 0 : entry.compressedOffset) + entry.compressedSize;
  if (end > blobSize)
    throw fail('compressedOffset', `section ${entry.name} ends at ${end}, the blob at ${blobSize}`);
  return { ...entry, digest: entry.digest.slice() };
}

/** Entry of a section, undefined when the blob has none. */
export function findSection(toc: Toc, name: string): TocEntry | undefined {
  return toc.entries.find((entry) => entry.name === name);
}

/**
 * Decode the stored bytes of a section and compare its digest.
 *
 * @param limit most plain bytes the caller accepts
 * @throws FormatError    sizes do not fit, an unknown codec, or the stream is damaged
 * @throws IntegrityError the digest differs; an all-zero digest is not compared
 */
export function decodeSection(entry: TocEntry, stored: Uint8Array, limit: number): Uint8Array {
  const fail = (field: keyof TocEntry, problem: string) =>
    new FormatError({ struct: 'tocEntry', field }, `${entry.name}: ${problem}`);
  if (entry.uncompressedSize > limit)
    throw fail('uncompressedSize', `is ${entry.uncompressedSize}, at most ${limit} is allowed`);
  if (stored.length !== entry.compressedSize)
    throw fail('compressedSize', `is ${entry.compressedSize}, ${stored.length} bytes were read`);
  let plain = stored;
  if (entry.flags === TocFlag.zstd) plain = decompress('zstd', stored, entry.uncompressedSize);
  else if (entry.flags === TocFlag.lz4Block) plain = decompress('lz4_block', stored, entry.uncompressedSize);
  else if (entry.compressedSize !== entry.uncompressedSize) {
    throw fail(
      'uncompressedSize',
      `is ${entry.uncompressedSize}, but ${entry.compressedSize} bytes are stored uncompressed`,
    );
  }
  if (!isZero(entry.digest)) {
    const found = digestOf('sha256', plain);
    if (!found.equals(entry.digest)) {
      throw new IntegrityError(
        `section ${entry.name}: digest ${toHex(found)}, expected ${toHex(entry.digest)}`,
      );
    }
  }
  return plain;
}

/**
 * Where the bootstrap of a blob without a table is: in front of the last trailer.
 *
 * @param tail     last bytes of the blob, at least 512
 * @returns undefined when the blob does not end with a bootstrap
 * @throws FormatError the trailer says it is longer than the blob
 */
export function trailingBootstrap(tail: Uint8Array, blobSize: number): ByteRange | undefined {
  const trailer = parseTrailer(tail, tail.length - TRAILER_SIZE);
  if (trailer === undefined || trailer.name !== Section.bootstrap) return undefined;
  const end = blobSize - TRAILER_SIZE;
  if (trailer.size > end) {
    throw new FormatError(
      { struct: 'trailer', field: 'size' },
      `is ${trailer.size}, the blob has ${end} bytes in front of it`,
    );
  }
  return { start: end - trailer.size, end };
}
