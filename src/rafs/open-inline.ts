// Gets the bootstrap and other sections out of a blob that carries them. Source: blob-and-cache.md 6.5, 6.6, 7.
import { FormatError } from '../base/errors.ts';
import { GIB, MAX_CHUNKS_PER_BLOB } from '../base/limits.ts';
import { detectVersion } from '../format/detect.ts';
import type { BlobInfo } from '../format/image.ts';
import { parseTrailer, TRAILER_SIZE } from '../format/tar/trailer.ts';
import { CI_HEADER_SIZE } from '../format/blobmeta/layout.ts';
import { Section } from '../format/toc/layout.ts';
import {
  decodeSection,
  findSection,
  parseToc,
  tocTail,
  trailingBootstrap,
  type ByteRange,
  type Toc,
} from '../format/toc/reader.ts';
import { superblockError } from '../format/super-flags.ts';

/** A bootstrap inside a blob is taken into memory whole: a larger one is refused. */
export const MAX_INLINE_BOOTSTRAP = GIB;
const DIGEST_SIZE = 32;
/** More trailers than any blob has; stops a walk over a hostile one. */
const MAX_SECTIONS = 16;

/** Reads exactly [start, end) of a blob, or rejects. */
export type RangeReader = (start: number, end: number) => Promise<Uint8Array>;

/** A bootstrap found in a blob. */
export interface InlineBootstrap {
  bytes: Uint8Array;
  /** the table it was found with; undefined for blobs without one */
  toc: Toc | undefined;
}

/**
 * The table of contents of a blob.
 *
 * @param expected size and digest from the blob table; none: the tail is searched
 * @returns undefined when the blob has none
 */
export async function readToc(
  read: RangeReader,
  blobSize: number,
  expected: Partial<Pick<BlobInfo, 'tocSize' | 'tocDigest'>> = {},
): Promise<Toc | undefined> {
  const range = tocTail(blobSize, expected.tocSize ?? 0);
  if (range.start === range.end) return undefined;
  const toc = parseToc(await read(range.start, range.end), blobSize, expected.tocDigest);
  if (toc === undefined && (expected.tocSize ?? 0) !== 0) {
    throw new FormatError(
      { struct: 'toc', offset: range.start },
      'the blob table names a table of contents, the blob has none',
    );
  }
  return toc;
}

/**
 * Whether a file ends like a blob that carries its bootstrap. Its first bytes do not tell: a blob without data begins
 * with its bootstrap, as a bare one does.
 */
export async function carriesBootstrap(read: RangeReader, size: number): Promise<boolean> {
  const range = tocTail(size);
  if (range.start === range.end) return false;
  const tail = await read(range.start, range.end);
  const toc = parseToc(tail, size);
  if (toc !== undefined) return findSection(toc, Section.bootstrap) !== undefined;
  return trailingBootstrap(tail, size) !== undefined;
}

/**
 * Load the bootstrap out of a blob, with or without a table of contents, raw or compressed.
 *
 * @throws FormatError    `invalid RAFS superblock: ...` when the blob carries none
 * @throws IntegrityError its digest differs from the table
 */
export async function loadInlineBootstrap(read: RangeReader, blobSize: number): Promise<InlineBootstrap> {
  const tail = tocTail(blobSize);
  const bytes = await read(tail.start, tail.end);
  const toc = parseToc(bytes, blobSize);
  const entry = toc === undefined ? undefined : findSection(toc, Section.bootstrap);
  let bootstrap: Uint8Array;
  if (entry !== undefined) {
    if (entry.uncompressedSize > MAX_INLINE_BOOTSTRAP) throw tooLarge(entry.uncompressedSize);
    const stored = await read(entry.compressedOffset, entry.compressedOffset + entry.compressedSize);
    bootstrap = decodeSection(entry, stored, MAX_INLINE_BOOTSTRAP);
  } else {
    const range = trailingBootstrap(bytes, blobSize);
    if (range === undefined) {
      throw superblockError(
        { struct: 'superblock', field: 'magic', offset: 0 },
        `neither a bootstrap nor a blob of ${blobSize} bytes that carries one`,
      );
    }
    if (range.end - range.start > MAX_INLINE_BOOTSTRAP) throw tooLarge(range.end - range.start);
    bootstrap = await read(range.start, range.end);
  }
  if (detectVersion(bootstrap) === undefined) {
    throw superblockError(
      { struct: 'superblock', field: 'magic', offset: 0 },
      `the image.boot section of ${bootstrap.length} bytes is no bootstrap`,
    );
  }
  return { bytes: bootstrap, toc };
}

function tooLarge(size: number): FormatError {
  return new FormatError(
    { struct: 'tocEntry', field: 'uncompressedSize' },
    `bootstrap of ${size} bytes, at most ${MAX_INLINE_BOOTSTRAP} is allowed`,
  );
}

/**
 * Range of the compression information with its header: data first, 4096 bytes of header last.
 *
 * @returns undefined when the blob has none
 */
export function ciRange(
  blob: Pick<BlobInfo, 'ciOffset' | 'ciCompressedSize' | 'ciUncompressedSize'>,
): ByteRange | undefined {
  if (blob.ciCompressedSize === 0 || blob.ciUncompressedSize === 0) return undefined;
  return { start: blob.ciOffset, end: blob.ciOffset + blob.ciCompressedSize + CI_HEADER_SIZE };
}

/**
 * Load the chunk digest array of a blob: 32 bytes a chunk.
 *
 * @returns undefined when the blob has none
 * @throws FormatError    it has another length than the chunks need
 * @throws IntegrityError its digest differs from the table
 */
export async function loadDigestArray(
  read: RangeReader,
  blobSize: number,
  blob: Pick<BlobInfo, 'chunkCount' | 'tocSize' | 'tocDigest'>,
): Promise<Uint8Array | undefined> {
  const toc = await readToc(read, blobSize, blob);
  const entry = toc === undefined ? undefined : findSection(toc, Section.digest);
  if (entry === undefined) return undefined;
  if (entry.uncompressedSize !== DIGEST_SIZE * blob.chunkCount) {
    throw new FormatError(
      { struct: 'tocEntry', field: 'uncompressedSize' },
      `blob.digest has ${entry.uncompressedSize} bytes, ${blob.chunkCount} chunks need ${DIGEST_SIZE * blob.chunkCount}`,
    );
  }
  const stored = await read(entry.compressedOffset, entry.compressedOffset + entry.compressedSize);
  return decodeSection(entry, stored, DIGEST_SIZE * MAX_CHUNKS_PER_BLOB);
}

/** A section found by its trailer. */
export interface TrailedSection extends ByteRange {
  name: string;
}

/**
 * Sections of a blob by walking trailers backwards from its end; the table of contents counts as one.
 * Ends at bytes that are no trailer: compression information of blobs without trailers, or chunk data.
 *
 * @returns last section first
 */
export async function walkTrailers(read: RangeReader, blobSize: number): Promise<TrailedSection[]> {
  const found: TrailedSection[] = [];
  let end = blobSize;
  while (end >= TRAILER_SIZE && found.length < MAX_SECTIONS) {
    const trailer = parseTrailer(await read(end - TRAILER_SIZE, end), 0);
    if (trailer === undefined || trailer.size > end - TRAILER_SIZE) break;
    const start = end - TRAILER_SIZE - trailer.size;
    found.push({ name: trailer.name, start, end: end - TRAILER_SIZE });
    end = start;
  }
  return found;
}
