// `{id}.blob.meta`: plain compression information, padding, header. Kept from an earlier run when its header fits the blob
// table and its bytes the checksum in the chunk map, else fetched from the blob. Source: blob-and-cache.md 4.6, 4.7 and 17.6.
import { closeSync, fstatSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { alignUp } from '../../base/bytes.ts';
import { BackendError, FormatError, messageOf, UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { decompress } from '../../codec/compress.ts';
import { crc32c } from '../../codec/crc32c.ts';
import { BlobFeature } from '../../format/flags.ts';
import type { BlobInfo } from '../../format/image.ts';
import { CI_HEADER_SIZE } from '../../format/blobmeta/layout.ts';
import { ciFileSize, openCiFile, type CiTable } from '../../format/blobmeta/reader.ts';
import { mapFd } from '../../native/mmap.ts';
import type { BlobReader } from '../backend/backend.ts';

/** Attempts to fetch the section, and the first delay between them; it doubles. */
const ATTEMPTS = 4;
const FIRST_DELAY_MS = 100;
/** Chunks of v6 start at block boundaries. */
const CHUNK_ALIGNMENT = 4096;

/** Chunks of generated dictionaries come from many blobs and stand in no order. */
function checkOrder(table: CiTable, blob: BlobInfo): void {
  if ((blob.features & BlobFeature.isChunkdictGenerated) !== 0) return;
  let end = 0;
  for (let index = 0; index < table.count; index++) {
    table.check(index);
    const start = table.uncompressedOffset(index);
    if (start < end) {
      throw new FormatError(
        { struct: `ciEntryV${table.version}`, field: 'uncompressedOffset' },
        `chunk ${index} starts at ${start}, inside the one before it, which ends at ${end}`,
      );
    }
    end = alignUp(start + table.uncompressedSize(index), CHUNK_ALIGNMENT);
  }
}

/** Where the checksum of the file is noted; a chunk map. */
export interface MetaNote {
  metaCrc: number | undefined;
}

/** A table, and what gives its memory back when nobody reads it any more. */
interface MappedMeta {
  ci: CiTable;
  release: () => void;
}

/** The table of a file from an earlier run, or undefined when there is none that fits. @throws FormatError it is damaged */
function openExisting(path: string, blob: BlobInfo, note: MetaNote | undefined): MappedMeta | undefined {
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
    try {
      const table = openCiFile(mapping.bytes, blob);
      if (!('notReady' in table)) {
        checkKept(mapping.bytes, table, blob, note);
        return { ci: table, release: () => mapping.unmap() };
      }
    } catch (error) {
      mapping.unmap();
      throw error;
    }
    mapping.unmap();
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function checkKept(bytes: Uint8Array, table: CiTable, blob: BlobInfo, note: MetaNote | undefined): void {
  const expected = note?.metaCrc;
  const crc = crc32c(bytes);
  if (expected === undefined) checkOrder(table, blob);
  else if (crc !== expected) {
    throw new FormatError(
      { struct: 'blob.meta' },
      `crc ${crc.toString(16)}, expected ${expected.toString(16)}`,
    );
  }
  if (note !== undefined && expected === undefined) note.metaCrc = crc;
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
  if (!('notReady' in table)) {
    checkOrder(table, blob);
    return table;
  }
  throw new FormatError(
    { struct: 'ciHeader', offset: blob.ciOffset + blob.ciCompressedSize },
    `does not fit blob ${blob.id}: ${table.notReady}`,
  );
}

export interface MetaOptions {
  /** file to use and to write; undefined = do not keep it */
  path: string | undefined;
  blob: BlobInfo;
  reader: BlobReader | undefined;
  note: MetaNote | undefined;
  logger: Logger;
  /** true: fetch it, whatever the file has */
  fresh?: boolean;
}

/** What was loaded, and whether it came from the file. */
export interface LoadedMeta extends MappedMeta {
  kept: boolean;
}

function openKept({ path, blob, note, logger, fresh }: MetaOptions): MappedMeta | undefined {
  if (path === undefined || fresh === true) return undefined;
  try {
    return openExisting(path, blob, note);
  } catch (error) {
    if (!(error instanceof FormatError) || error.place.struct === 'blobInfo') throw error;
    logger.warn(`${path} is damaged: ${error.message}; fetching it again`);
    return undefined;
  }
}

/**
 * The compression information of a blob.
 *
 * @throws FormatError EINVAL  the section of the blob is damaged
 * @throws BackendError EIO    it could not be fetched
 */
export async function loadMeta(options: MetaOptions): Promise<LoadedMeta> {
  const { path, blob, reader, note, logger } = options;
  if (blob.ciCompressedSize > blob.ciUncompressedSize) {
    throw new FormatError(
      { struct: 'blobRecord6', field: 'ciCompressedSize' },
      `${blob.ciCompressedSize} stored bytes for ${blob.ciUncompressedSize}`,
    );
  }
  const existing = openKept(options);
  if (existing !== undefined) return { ...existing, kept: true };
  if (reader === undefined) {
    throw new BackendError(
      `blob ${blob.id} is not in the backend and ${path ?? 'no file'} has no compression information of it`,
    );
  }
  const bytes = await fetchWithRetry(reader, blob, logger);
  const table = { ci: openFetched(bytes, blob), release: () => {} };
  if (path === undefined) return { ...table, kept: false };
  try {
    // without a checksum while the file and the note are not both new
    if (note !== undefined) note.metaCrc = undefined;
    persist(path, bytes);
    if (note !== undefined) note.metaCrc = crc32c(bytes);
  } catch (error) {
    logger.warn(`cannot keep ${path}: ${messageOf(error)}`);
    return { ...table, kept: false };
  }
  // mapped, its pages are shared with other daemons
  return { ...(openExisting(path, blob, note) ?? table), kept: false };
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
