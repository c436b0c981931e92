// The blobs in a cache directory: how big they are, how complete, when they were used last, and who uses them now.
// Source: blob-and-cache.md 17.1, 17.11.
import { closeSync, openSync, readdirSync, readSync, rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { viewOf } from '../../base/bytes.ts';
import { leaseFile } from '../../native/file-lock.ts';
import { isSafeBlobId } from '../backend/localfs.ts';
import { countReady } from './chunk-map.ts';
import { isKnownDataFile } from './known-files.ts';
import { chunkMapHeader, MAP_ALL_READY, MAP_HEADER_SIZE, MapNote } from './map-header.ts';
import { PIN_SUFFIXES, pinsOf, type PinKind } from './pins.ts';

/** Files of a blob, in the order in which they are deleted: the map before the data it speaks of. */
const SUFFIXES = [
  '.blob.data.chunk_map',
  '.blob.data',
  '.blob.raw',
  '.blob.meta',
  '.blob.digest',
  '.blob.toc',
  ...Object.values(PIN_SUFFIXES),
] as const;
const MAP_SUFFIX = SUFFIXES[0];
/** st_blocks counts these */
const SECTOR = 512;

export interface CachedBlob {
  blobId: string;
  /** names of its files, map first */
  files: string[];
  /** bytes they have on the disk */
  bytes: number;
  /** chunks, and those that are ready; 0 without a readable map */
  chunks: number;
  ready: number;
  /** milliseconds since 1970 */
  lastUsed: number;
  pins: PinKind[];
}

interface MapFacts {
  chunks: number;
  ready: number;
  lastUsedMs: number;
}

function readMap(path: string, size: number): MapFacts {
  const none = { chunks: 0, ready: 0, lastUsedMs: 0 };
  if (size <= MAP_HEADER_SIZE) return none;
  const bytes = Buffer.alloc(size);
  const fd = openSync(path, 'r');
  try {
    if (readSync(fd, bytes, 0, size, 0) !== size) return none;
  } finally {
    closeSync(fd);
  }
  // the file does not say how many chunks there are, only how many bytes of bits
  const chunks = (size - MAP_HEADER_SIZE) * 8;
  const all = chunkMapHeader.field.allReady(viewOf(bytes), 0) === MAP_ALL_READY;
  const ready = all ? chunks : countReady(bytes.subarray(MAP_HEADER_SIZE), chunks);
  return { chunks, ready, lastUsedMs: new MapNote(bytes).lastUsed * 1000 };
}

function readBlob(workDir: string, blobId: string, files: string[]): CachedBlob {
  const blob: CachedBlob = {
    blobId,
    files,
    bytes: 0,
    chunks: 0,
    ready: 0,
    lastUsed: 0,
    pins: pinsOf(workDir, blobId),
  };
  for (const file of files) {
    const path = join(workDir, file);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) continue;
    blob.bytes += stat.blocks * SECTOR;
    blob.lastUsed = Math.max(blob.lastUsed, stat.mtimeMs);
    if (!file.endsWith(MAP_SUFFIX)) continue;
    const { chunks, ready, lastUsedMs } = readMap(path, stat.size);
    blob.chunks = chunks;
    blob.ready = ready;
    blob.lastUsed = Math.max(blob.lastUsed, lastUsedMs);
  }
  return blob;
}

/** The blobs of a cache directory, least recently used first. @throws an error of node:fs when it cannot be read */
export function listCache(workDir: string): CachedBlob[] {
  const byId = new Map<string, string[]>();
  for (const name of readdirSync(workDir)) {
    const suffix = SUFFIXES.find((each) => name.endsWith(each));
    const blobId = suffix === undefined ? '' : name.slice(0, -suffix.length);
    if (blobId === '' || !isSafeBlobId(blobId)) continue;
    byId.set(blobId, [...(byId.get(blobId) ?? []), name]);
  }
  const rank = (name: string): number => SUFFIXES.findIndex((suffix) => name.endsWith(suffix));
  return [...byId]
    .map(([blobId, files]) =>
      readBlob(
        workDir,
        blobId,
        files.sort((a, b) => rank(a) - rank(b)),
      ),
    )
    .filter(({ files }) => files.some((file) => !file.endsWith('pin')))
    .sort((a, b) => a.lastUsed - b.lastUsed || (a.blobId < b.blobId ? -1 : 1));
}

/**
 * Do something with a blob that nobody uses, and nobody begins to use meanwhile: upstream's daemons take no locks, so each file is
 * leased. (Looking for it in /proc of all processes hangs with any of them that hangs in exec.)
 *
 * @returns undefined when it is in use, or that cannot be known: not every filesystem has leases, NFS for one
 */
export function whileUnused<T>(workDir: string, blob: CachedBlob, action: () => T): T | undefined {
  const paths = blob.files
    .filter((file) => !file.endsWith('pin'))
    .map((file) => join(resolve(workDir), file));
  if (paths.some(isKnownDataFile)) return undefined;
  const fds: number[] = [];
  try {
    for (const path of paths) {
      const fd = openSync(path, 'r+');
      fds.push(fd);
      if (leaseFile(fd) !== 0) return undefined;
    }
    return action();
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Delete the files of a blob, the map first; pins stay. Call inside `whileUnused`. */
export function deleteBlob(workDir: string, blob: CachedBlob): void {
  for (const file of blob.files) if (!file.endsWith('pin')) rmSync(join(workDir, file), { force: true });
}
