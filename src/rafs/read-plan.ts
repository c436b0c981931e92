// From a range of a file to the chunks that hold it. Source: blob-and-cache.md 18.1.
import { FormatError } from '../base/errors.ts';
import { newChunkRef, type ChunkRef, type RafsImage } from '../format/image.ts';

/**
 * Find the chunk that holds a byte of a file.
 *
 * @param count  chunks of the file
 * @param offset below the file size
 * @param out    filled with that chunk
 * @returns its position in the file, or `count` when no chunk holds the byte: a hole
 */
export function findChunk(
  image: RafsImage,
  ino: number,
  count: number,
  offset: number,
  out: ChunkRef,
): number {
  // files are cut at multiples of the chunk size, so the guess is right but for images with holes
  const guess = Math.floor(offset / image.super.chunkSize);
  if (guess < count) {
    image.chunk(ino, guess, out);
    if (out.fileOffset <= offset && offset < out.fileOffset + out.uncompressedSize) return guess;
  }
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    image.chunk(ino, middle, out);
    if (out.fileOffset + out.uncompressedSize <= offset) low = middle + 1;
    else high = middle;
  }
  if (low < count) image.chunk(ino, low, out);
  return low;
}

/**
 * Chunk indexes of a file where they lie together in one blob, as builders write them.
 *
 * @returns undefined for a file without chunks, one that is spread over blobs, or one whose chunks lie apart
 */
export function chunksOfFile(
  image: RafsImage,
  ino: number,
  blobIndex: number,
): { first: number; end: number } | undefined {
  const count = image.chunkCount(ino);
  if (count === 0) return undefined;
  const ref = newChunkRef();
  image.chunk(ino, 0, ref);
  const { blobIndex: blob, chunkIndex: first } = ref;
  image.chunk(ino, count - 1, ref);
  const end = ref.chunkIndex + 1;
  const together = end > first && end - first <= 2 * count;
  return blob === blobIndex && ref.blobIndex === blobIndex && together ? { first, end } : undefined;
}

/** A piece of a file range: part of one chunk. */
export interface ReadPiece {
  ref: ChunkRef;
  /** first byte wanted inside the chunk */
  from: number;
  /** bytes wanted */
  size: number;
  /** where they go, counted from the start of the range */
  at: number;
}

/**
 * The pieces that cover part of a file, in file order. Bytes that no piece covers are zero.
 *
 * @param size bytes wanted; the part past the end of the file is dropped
 * @returns [] at the end of the file
 * @throws FormatError EINVAL  a chunk leaves its blob or the image
 */
export function planRead(
  image: RafsImage,
  ino: number,
  fileSize: number,
  offset: number,
  size: number,
): ReadPiece[] {
  const end = Math.min(offset + size, fileSize);
  const pieces: ReadPiece[] = [];
  if (offset >= end) return pieces;
  const count = image.chunkCount(ino);
  const first = newChunkRef();
  let position = findChunk(image, ino, count, offset, first);
  let at = offset;
  for (; position < count && at < end; position++) {
    const ref = newChunkRef();
    image.chunk(ino, position, ref);
    if (ref.fileOffset >= end) break;
    const from = Math.max(0, at - ref.fileOffset);
    if (from >= ref.uncompressedSize) {
      throw new FormatError(
        { struct: 'chunk' },
        `chunk ${position} of inode ${ino} starts before the one in front of it ends`,
      );
    }
    const start = ref.fileOffset + from;
    const pieceEnd = Math.min(end, ref.fileOffset + ref.uncompressedSize);
    pieces.push({ ref, from, size: pieceEnd - start, at: start - offset });
    at = pieceEnd;
  }
  return pieces;
}
