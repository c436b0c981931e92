// `{id}.blob.toc` and `{id}.blob.digest`: digests of all chunks of a blob, taken from the blob itself.
// Source: blob-and-cache.md 5, 6 and 17.7.
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf, FormatError } from '../../base/errors.ts';
import { MIN_TOC_SIZE } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { digestOf } from '../../codec/digest.ts';
import { BlobFeature } from '../../format/flags.ts';
import type { BlobInfo } from '../../format/image.ts';
import { Section, tocEntry, type TocEntry } from '../../format/toc/layout.ts';
import { decodeSection, findSection, parseToc, tocTail } from '../../format/toc/reader.ts';
import type { BlobReader } from '../backend/backend.ts';
import { isNoDigest } from './record-table.ts';

/** A kept TOC file larger than this is fetched again (17.7). */
const MAX_KEPT_TOC = 4096;
const DIGEST_SIZE = 32;

/** The `blob.digest` entry of a blob tail. @throws FormatError EINVAL, IntegrityError EIO */
function digestEntry(tail: Uint8Array, blobSize: number, blob: BlobInfo): TocEntry {
  const toc = parseToc(
    tail,
    blobSize,
    blob.tocSize === 0 || isNoDigest(blob.tocDigest) ? undefined : blob.tocDigest,
  );
  const entry = toc === undefined ? undefined : findSection(toc, Section.digest);
  if (entry === undefined) throw new FormatError({ struct: 'toc' }, `blob ${blob.id} lists no chunk digests`);
  return entry;
}

function readIfThere(path: string | undefined): Uint8Array | undefined {
  try {
    return path === undefined ? undefined : readFileSync(path);
  } catch {
    return undefined;
  }
}

function keep(path: string | undefined, bytes: Uint8Array, logger: Logger): void {
  if (path === undefined) return;
  const draft = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(draft, bytes);
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    logger.warn(`cannot keep ${path}: ${messageOf(error)}`);
  }
}

async function loadToc(
  path: string | undefined,
  blob: BlobInfo,
  reader: BlobReader,
  logger: Logger,
): Promise<TocEntry> {
  const blobSize = await reader.size();
  const kept = readIfThere(path);
  if (
    kept !== undefined &&
    kept.length > MIN_TOC_SIZE &&
    kept.length <= MAX_KEPT_TOC &&
    kept.length % tocEntry.size === 0
  ) {
    try {
      return digestEntry(kept, blobSize, blob);
    } catch (error) {
      logger.warn(`${path}: ${messageOf(error)}; fetching it again`);
    }
  }
  const { start, end } = tocTail(blobSize, blob.tocSize);
  const size = end - start;
  const tail = await reader.read(start, size);
  if (tail.length !== size)
    throw new FormatError({ struct: 'toc' }, `${tail.length} bytes of ${size} arrived`);
  const entry = digestEntry(tail, blobSize, blob);
  keep(path, tail, logger);
  return entry;
}

/**
 * Digests of all chunks, 32 bytes each.
 *
 * @param base path of the cache files without suffix; undefined = keep nothing
 * @returns undefined when the blob has none, or they cannot be loaded: the bootstrap has digests too
 */
export async function loadDigestArray(
  base: string | undefined,
  blob: BlobInfo,
  reader: BlobReader | undefined,
  logger: Logger,
): Promise<Uint8Array | undefined> {
  if ((blob.features & BlobFeature.inlinedChunkDigest) === 0 || reader === undefined) return undefined;
  const path = base === undefined ? undefined : `${base}.blob.digest`;
  try {
    const entry = await loadToc(base === undefined ? undefined : `${base}.blob.toc`, blob, reader, logger);
    const size = blob.chunkCount * DIGEST_SIZE;
    const kept = readIfThere(path);
    if (kept !== undefined && kept.length === size && digestOf('sha256', kept).equals(entry.digest))
      return kept;
    if (entry.compressedSize > size)
      throw new FormatError(
        { struct: 'blob.digest' },
        `${entry.compressedSize} bytes for ${blob.chunkCount} chunks`,
      );
    const bytes = decodeSection(entry, await reader.read(entry.compressedOffset, entry.compressedSize), size);
    if (bytes.length !== size)
      throw new FormatError({ struct: 'blob.digest' }, `${bytes.length} bytes for ${blob.chunkCount} chunks`);
    keep(path, bytes, logger);
    return bytes;
  } catch (error) {
    logger.warn(`blob ${blob.id}: cannot load its chunk digests: ${messageOf(error)}`);
    return undefined;
  }
}
