// What a small read of a v5 image fetches besides what it asks for: the rest of the file, then the files that follow.
// v6 images are extended in the blob instead (storage/cache/fetch-plan.ts). Source: blob-and-cache.md 18.8.
import { FormatError } from '../base/errors.ts';
import { S_IFMT, S_IFREG } from '../format/flags.ts';
import { newAttr, newChunkRef, type ChunkRef, type RafsImage } from '../format/image.ts';

/** Room for data in the largest FUSE reply: 1 MiB and a page, less the header. Upstream limits the window to it. */
const REPLY_ROOM = 1024 * 1024 + 4096 - 16;
/** Files looked at besides the one that is read. */
const MAX_FILES = 64;

/** Where a chunk is stored in its blob. */
export type StoredRange = (ref: ChunkRef) => { start: number; end: number };

/**
 * Chunks worth fetching with a read that misses.
 *
 * @param blobIndex blob of the last chunk that is wanted; only chunks of it are added
 * @param lastEnd   end of the stored bytes of that chunk
 * @param batchSize `rafs.batch_size`; 0 = nothing
 */
export function amplify5(
  image: RafsImage,
  ino: number,
  offset: number,
  size: number,
  batchSize: number,
  last: { blobIndex: number; end: number },
  stored: StoredRange,
): ChunkRef[] {
  const limit = Math.min(batchSize, REPLY_ROOM);
  const { chunkSize } = image.super;
  const attr = newAttr();
  image.attr(ino, attr);
  if (size >= limit) return [];
  const base = Math.min(Math.ceil((offset + size) / chunkSize) * chunkSize, attr.size);
  let window = limit - (base - Math.floor(offset / chunkSize) * chunkSize);
  if (window <= 0) return [];
  const gap = Math.floor(limit / 128);
  const out: ChunkRef[] = [];
  let end = last.end;

  const append = (refs: ChunkRef[], bytes: number): void => {
    const first = refs[0];
    if (first === undefined || first.blobIndex !== last.blobIndex) return;
    window -= bytes;
    const start = stored(first).start;
    if (start < end || start - end > gap) return;
    for (const ref of refs) {
      if (ref.blobIndex !== last.blobIndex) break;
      out.push(ref);
      end = stored(ref).end;
    }
  };

  const rest = Math.min(attr.size - base, window);
  if (rest > 0) append(chunksOf(image, ino, base, rest), rest);
  const lastIno = Math.floor(image.bytes.length / 128);
  let files = 0;
  for (let next = ino + 1; window > 0 && files < MAX_FILES && next <= lastIno; next++) {
    const bytes = fileSize(image, next, attr);
    if (bytes === undefined) break;
    if (bytes === 0) continue;
    files++;
    let take = bytes;
    if (bytes >= window) take = window >= chunkSize ? Math.floor(window / chunkSize) * chunkSize : 0;
    if (take === 0) break;
    append(chunksOf(image, next, 0, take), take);
  }
  return out;
}

/** Size of a regular file, 0 for anything else, undefined behind the last inode. */
function fileSize(image: RafsImage, ino: number, attr: ReturnType<typeof newAttr>): number | undefined {
  try {
    image.attr(ino, attr);
  } catch (error) {
    if (error instanceof FormatError) return ino > image.super.inodesCount ? undefined : 0;
    throw error;
  }
  return (attr.mode & S_IFMT) === S_IFREG ? attr.size : 0;
}

/** Chunks of a file that overlap a range which starts at a chunk. */
function chunksOf(image: RafsImage, ino: number, offset: number, size: number): ChunkRef[] {
  const count = image.chunkCount(ino);
  const refs: ChunkRef[] = [];
  for (let position = Math.floor(offset / image.super.chunkSize); position < count; position++) {
    const ref = newChunkRef();
    image.chunk(ino, position, ref);
    if (ref.fileOffset >= offset + size) break;
    refs.push(ref);
  }
  return refs;
}
