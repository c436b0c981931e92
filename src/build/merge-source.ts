// One source of a merge: a bare bootstrap, or a blob that carries its bootstrap at the end. The given file is read
// directly, no backend is needed. Source: nydus-image-and-nydusify.md 3.1, blob-and-cache.md 6.5 and 6.6.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { FormatError, messageOf, UsageError } from '../base/errors.ts';
import { viewOf } from '../base/bytes.ts';
import { MAX_BOOTSTRAP_V5, MAX_BOOTSTRAP_V6, MAX_TOC_SIZE } from '../base/limits.ts';
import { decompress } from '../codec/compress.ts';
import { detectVersion, openImage } from '../format/detect.ts';
import type { RafsImage } from '../format/image.ts';
import { superblockError } from '../format/super-flags.ts';
import { parseTarHeader, TAR_BLOCK } from '../format/tar/archive-header.ts';
import { Section, TocFlag, tocEntry } from '../format/toc/layout.ts';

export interface MergeSource {
  path: string;
  image: RafsImage;
}

/** Bytes that tell a bootstrap from a blob. */
const HEAD_SIZE = 8192;
/** Largest bootstrap taken into memory. */
const MAX_BOOTSTRAP = Math.min(Math.max(MAX_BOOTSTRAP_V5, MAX_BOOTSTRAP_V6), 0xffff_ffff);

function readAt(fd: number, offset: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let filled = 0;
  while (filled < size) {
    const count = readSync(fd, bytes, filled, size - filled, offset + filled);
    if (count === 0) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}

function notAnImage(path: string, problem: string): FormatError {
  return superblockError({ struct: 'superblock' }, `"${path}": ${problem}`);
}

/** Section trailer in the last 512 bytes, undefined when there is none (blob-and-cache 1.5). */
function readTrailer(fd: number, size: number): { name: string; size: number } | undefined {
  if (size < TAR_BLOCK) return undefined;
  try {
    const { name, size: sectionSize } = parseTarHeader(
      readAt(fd, size - TAR_BLOCK, TAR_BLOCK),
      size - TAR_BLOCK,
    );
    return { name: name.toString('latin1'), size: sectionSize };
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The bootstrap at the end of a blob: through the table of contents or, without one, in front of its trailer. */
function readInline(fd: number, size: number, path: string): Buffer | undefined {
  const trailer = readTrailer(fd, size);
  if (trailer === undefined || (trailer.name !== Section.bootstrap && trailer.name !== Section.toc))
    return undefined;
  const start = size - TAR_BLOCK - trailer.size;
  if (start < 0) throw notAnImage(path, `the last section has ${trailer.size} bytes, the file ${size}`);
  if (trailer.name === Section.bootstrap) {
    checkSize(trailer.size, path);
    return readAt(fd, start, trailer.size);
  }
  if (trailer.size > MAX_TOC_SIZE)
    throw notAnImage(path, `table of contents of ${trailer.size} bytes, limit ${MAX_TOC_SIZE}`);
  const toc = viewOf(readAt(fd, start, trailer.size));
  for (let at = 0; at + tocEntry.size <= toc.byteLength; at += tocEntry.size) {
    const entry = tocEntry.read(toc, at);
    if (entry.name !== Section.bootstrap) continue;
    checkSize(entry.uncompressedSize, path);
    if (entry.compressedSize > size || entry.compressedOffset + entry.compressedSize > size) {
      throw notAnImage(
        path,
        `bootstrap at ${entry.compressedOffset} of ${entry.compressedSize} bytes, the file has ${size}`,
      );
    }
    const stored = readAt(fd, entry.compressedOffset, entry.compressedSize);
    return Buffer.from(
      decompress(entry.flags === TocFlag.zstd ? 'zstd' : 'none', stored, entry.uncompressedSize),
    );
  }
  throw notAnImage(path, 'its table of contents lists no bootstrap');
}

function checkSize(size: number, path: string): void {
  if (size > MAX_BOOTSTRAP)
    throw superblockError(
      { struct: 'superblock' },
      `"${path}": bootstrap of ${size} bytes, limit ${MAX_BOOTSTRAP}`,
    );
}

/**
 * Open a source.
 *
 * @throws UsageError exit 1  the file cannot be read
 * @throws FormatError `invalid RAFS superblock`
 */
export function openMergeSource(path: string): MergeSource {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    const absent = (error as { code?: unknown }).code === 'ENOENT';
    throw new UsageError(absent ? `No such file or directory (os error 2): "${path}"` : messageOf(error), {
      exitCode: 1,
      cause: error,
    });
  }
  try {
    const size = fstatSync(fd).size;
    // The trailer first: a blob without data begins with its bootstrap.
    const inline = readInline(fd, size, path);
    if (inline !== undefined) return { path, image: openImage(inline) };
    if (detectVersion(readAt(fd, 0, Math.min(size, HEAD_SIZE))) === undefined) {
      throw notAnImage(path, 'neither a bootstrap nor a blob that carries one');
    }
    checkSize(size, path);
    return { path, image: openImage(readAt(fd, 0, size)) };
  } finally {
    closeSync(fd);
  }
}
