// Checks of one chunk record, shared by the v5 chunk lists and the v6 chunk table. Source: rafs-metadata.md 2.5.
import { alignUp } from '../base/bytes.ts';
import { BlobFeature, ChunkFlag } from '../format/flags.ts';
import type { ChunkRecord } from '../format/chunk-record.ts';
import type { BlobInfo, RafsImage } from '../format/image.ts';

const KNOWN_FLAGS =
  ChunkFlag.compressed | ChunkFlag.hole | ChunkFlag.encrypted | ChunkFlag.batch | ChunkFlag.hasCrc32;
/** Kinds of blobs whose compressed ranges are no plain places of chunks. */
const UNUSUAL =
  BlobFeature.zran | BlobFeature.batch | BlobFeature.external | BlobFeature.separate | BlobFeature.encrypted;

/**
 * What is wrong with a chunk record.
 *
 * @param counted false when the blob table does not know how many chunks its blobs have (very old v5 images)
 */
export function chunkProblem(image: RafsImage, record: ChunkRecord, counted: boolean): string | undefined {
  const blob = image.blobs[record.blobIndex];
  if (blob === undefined)
    return `its blob is ${record.blobIndex}, the blob table has ${image.blobs.length} rows`;
  if (counted && record.index >= blob.chunkCount) {
    return `it is chunk ${record.index} of blob ${record.blobIndex}, which has ${blob.chunkCount} chunks`;
  }
  const { uncompressedSize: size, compressedSize: stored } = record;
  if (size === 0 || size > image.super.chunkSize)
    return `it has ${size} bytes, expected 1 to ${image.super.chunkSize}`;
  if ((record.flags & ~KNOWN_FLAGS) !== 0)
    return `its flags 0x${record.flags.toString(16)} have unknown bits`;
  if ((record.flags & ChunkFlag.hasCrc32) === 0 && record.crc32 !== 0) return 'it has a CRC without the flag';
  return rangeProblem(blob, record, counted, size, stored);
}

function rangeProblem(
  blob: BlobInfo,
  record: ChunkRecord,
  counted: boolean,
  size: number,
  stored: number,
): string | undefined {
  const end = record.uncompressedOffset + size;
  if (counted && end > alignUp(blob.uncompressedSize, 4096)) {
    return `it ends at ${end} of blob ${blob.index}, which has ${blob.uncompressedSize} plain bytes`;
  }
  if ((blob.features & UNUSUAL) !== 0) return undefined;
  const storedEnd = record.compressedOffset + stored;
  if (counted && storedEnd > blob.compressedSize) {
    return `its stored bytes end at ${storedEnd} of blob ${blob.index}, which has ${blob.compressedSize}`;
  }
  if ((record.flags & ChunkFlag.compressed) === 0 && stored !== size) {
    return `it is not compressed, but has ${stored} stored bytes for ${size}`;
  }
  return undefined;
}
