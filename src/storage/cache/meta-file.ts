// `{id}.blob.meta`: plain compression information, padding, header. Kept from an earlier run when its header fits the blob
// table, else fetched from the blob. Source: blob-and-cache.md 4.6, 4.7 and 17.6.
import { closeSync, fstatSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { BackendError, FormatError, messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { decompress } from '../../codec/compress.ts';
import type { BlobInfo } from '../../format/image.ts';
import { CI_HEADER_SIZE } from '../../format/blobmeta/layout.ts';
import { ciFileSize, openCiFile, type CiTable } from '../../format/blobmeta/reader.ts';
import { mapFd } from '../../native/mmap.ts';
import type { BlobReader } from '../backend/backend.ts';

/** Attempts to fetch the section, and the first delay between them; it doubles. */
const ATTEMPTS = 4;
const FIRST_DELAY_MS = 100;

/** A table, and what gives its memory back when nobody reads it any more. */
export interface LoadedMeta {
  ci: CiTable;
  release: () => void;
}

/** The table of a file from an earlier run, or undefined when there is none that fits. */
function openExisting(path: string, blob: BlobInfo): LoadedMeta | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return undefined;
  }
  try {
    const size = ciFileSize(blob);
    if (fstatSync(fd).size !== size) return undefined;
    const mapping = mapFd(fd, size);
    const table = openCiFile(mapping.bytes, blob);
    if (!('notReady' in table)) return { ci: table, release: () => mapping.unmap() };
    mapping.unmap();
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function persist(path: string, bytes: Uint8Array): void {
  const draft = `${path}.${process.pid}.tmp`;
  const fd = openSync(draft, 'w', 0o644);
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at);
    fsyncSync(fd);
    renameSync(draft, path);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
}

async function fetchSection(reader: BlobReader, blob: BlobInfo): Promise<Uint8Array> {
  const size = blob.ciCompressedSize + CI_HEADER_SIZE;
  const section = new Uint8Array(size);
  let done = 0;
  // a store that cuts an answer short is asked for the rest from there
  while (done < size) {
    const part = await reader.read(blob.ciOffset + done, size - done);
    if (part.length === 0) {
      throw new BackendError(
        `blob ${blob.id} ends at ${blob.ciOffset + done}, its compression information at ${blob.ciOffset + size}`,
      );
    }
    section.set(part, done);
    done += part.length;
  }
  return section;
}

/** Lay a stored section out as the file has it. @throws FormatError EINVAL */
export function layOutMeta(section: Uint8Array, blob: BlobInfo): Uint8Array {
  const out = new Uint8Array(ciFileSize(blob));
  const stored = section.subarray(0, section.length - CI_HEADER_SIZE);
  out.set(decompress(blob.ciCompressor, stored, blob.ciUncompressedSize));
  out.set(section.subarray(section.length - CI_HEADER_SIZE), out.length - CI_HEADER_SIZE);
  return out;
}

function openFetched(bytes: Uint8Array, blob: BlobInfo): CiTable {
  const table = openCiFile(bytes, blob);
  if (!('notReady' in table)) return table;
  throw new FormatError(
    { struct: 'ciHeader', offset: blob.ciOffset + blob.ciCompressedSize },
    `does not fit blob ${blob.id}: ${table.notReady}`,
  );
}

/**
 * The compression information of a blob.
 *
 * @param path file to use and to write; undefined = do not keep it
 * @throws FormatError EINVAL  the section of the blob is damaged
 * @throws BackendError EIO    it could not be fetched
 */
export async function loadMeta(
  path: string | undefined,
  blob: BlobInfo,
  reader: BlobReader | undefined,
  logger: Logger,
): Promise<LoadedMeta> {
  if (blob.ciCompressedSize > blob.ciUncompressedSize) {
    throw new FormatError(
      { struct: 'blobRecord6', field: 'ciCompressedSize' },
      `${blob.ciCompressedSize} stored bytes for ${blob.ciUncompressedSize}`,
    );
  }
  const existing = path === undefined ? undefined : openExisting(path, blob);
  if (existing !== undefined) return existing;
  if (reader === undefined) {
    throw new BackendError(
      `blob ${blob.id} is not in the backend and ${path ?? 'no file'} has no compression information of it`,
    );
  }
  const bytes = await fetchWithRetry(reader, blob, logger);
  const table = { ci: openFetched(bytes, blob), release: () => {} };
  if (path === undefined) return table;
  try {
    persist(path, bytes);
  } catch (error) {
    logger.warn(`cannot keep ${path}: ${messageOf(error)}`);
    return table;
  }
  // mapped, its pages are shared with other daemons
  return openExisting(path, blob) ?? table;
}

async function fetchWithRetry(reader: BlobReader, blob: BlobInfo, logger: Logger): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    try {
      const bytes = layOutMeta(await fetchSection(reader, blob), blob);
      openFetched(bytes, blob);
      return bytes;
    } catch (error) {
      // the backend has its own retries, and waits for outages
      const final = error instanceof UsageError || error instanceof BackendError;
      if (attempt >= ATTEMPTS || final) throw error;
      logger.warn(
        `blob ${blob.id}: attempt ${attempt} to load its compression information failed: ${messageOf(error)}`,
      );
      await new Promise((resolve) => void setTimeout(resolve, FIRST_DELAY_MS * 2 ** (attempt - 1)));
    }
  }
}
