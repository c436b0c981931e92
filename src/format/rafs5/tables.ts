// Superblock and blob tables of a v5 bootstrap, read and checked once when it is opened. Source: rafs-metadata.md 3.2-3.6, 3.13.
import { FormatError } from '../../base/errors.ts';
import { isPowerOfTwo, textOf } from '../../base/bytes.ts';
import {
  MAX_BLOBS_V5,
  MAX_BOOTSTRAP_V5,
  MAX_CHUNKS_PER_BLOB,
  MAX_CHUNK_SIZE,
  MIN_CHUNK_SIZE,
} from '../../base/limits.ts';
import { SuperFlag } from '../flags.ts';
import { isPlainBlobId } from '../names.ts';
import { checkSuperFlags, compressorOf, digesterOf, superblockError } from '../super-flags.ts';
import type { BlobInfo, SuperInfo } from '../image.ts';
import {
  RAFS5_MAGIC,
  RAFS5_VERSION,
  SUPERBLOCK5_SIZE,
  blobEntry5,
  extendedBlob5,
  superblock5,
  type Superblock5,
} from './layout.ts';

interface Range {
  name: string;
  start: number;
  end: number;
}

/**
 * Read and check the superblock.
 *
 * @throws FormatError `invalid RAFS superblock: ...`
 */
export function readSuperblock5(view: DataView): Superblock5 {
  const length = view.byteLength;
  if (length < SUPERBLOCK5_SIZE) {
    throw superblockError(
      { struct: 'superblock5', offset: 0 },
      `needs ${SUPERBLOCK5_SIZE} bytes, the file has ${length}`,
    );
  }
  const fail = (field: keyof Superblock5, problem: string) => {
    const offset = superblock5.layout.find((info) => info.name === field)?.offset ?? 0;
    return superblockError({ struct: 'superblock5', field, offset }, problem);
  };
  const magic = superblock5.field.magic(view, 0);
  if (magic !== RAFS5_MAGIC)
    throw fail('magic', `is 0x${magic.toString(16)}, expected 0x${RAFS5_MAGIC.toString(16)}`);
  const version = superblock5.field.fsVersion(view, 0);
  if (version !== RAFS5_VERSION) throw fail('fsVersion', `is 0x${version.toString(16)}, expected 0x500`);
  const sb = superblock5.read(view, 0);
  if (sb.sbSize !== SUPERBLOCK5_SIZE) throw fail('sbSize', `is ${sb.sbSize}, expected ${SUPERBLOCK5_SIZE}`);
  if (length === SUPERBLOCK5_SIZE || length % 8 !== 0 || length > MAX_BOOTSTRAP_V5) {
    throw superblockError(
      { struct: 'superblock5' },
      `the file has ${length} bytes, expected a multiple of 8 above ${SUPERBLOCK5_SIZE} up to ${MAX_BOOTSTRAP_V5}`,
    );
  }
  if (!isPowerOfTwo(sb.blockSize) || sb.blockSize < MIN_CHUNK_SIZE || sb.blockSize > MAX_CHUNK_SIZE) {
    throw fail(
      'blockSize',
      `is ${sb.blockSize}, expected a power of two from ${MIN_CHUNK_SIZE} to ${MAX_CHUNK_SIZE}`,
    );
  }
  checkSuperFlags({ struct: 'superblock5', field: 'flags', offset: 0x10 }, sb.flags);
  if (sb.inodeTableEntries === 0) throw fail('inodeTableEntries', 'is 0, an image has at least its root');
  if (sb.inodesCount > sb.inodeTableEntries) {
    throw fail('inodesCount', `is ${sb.inodesCount}, the inode table has ${sb.inodeTableEntries} entries`);
  }
  const taken: Range[] = [];
  const section = (name: keyof Superblock5, start: number, size: number) => {
    if (start % 8 !== 0) throw fail(name, `is ${start}, expected a multiple of 8`);
    if (start < SUPERBLOCK5_SIZE || start + size > length || start >= length) {
      throw fail(name, `bytes ${start} to ${start + size} are outside ${SUPERBLOCK5_SIZE} to ${length}`);
    }
    for (const other of taken) {
      if (start < other.end && other.start < start + size)
        throw fail(name, `its section overlaps ${other.name}`);
    }
    taken.push({ name, start, end: start + size });
  };
  section('inodeTableOffset', sb.inodeTableOffset, 4 * sb.inodeTableEntries);
  section('blobTableOffset', sb.blobTableOffset, sb.blobTableSize);
  if (sb.extendedBlobTableEntries > 0) {
    section(
      'extendedBlobTableOffset',
      sb.extendedBlobTableOffset,
      extendedBlob5.size * sb.extendedBlobTableEntries,
    );
  }
  if (sb.prefetchTableEntries > 0)
    section('prefetchTableOffset', sb.prefetchTableOffset, 4 * sb.prefetchTableEntries);
  return sb;
}

/** The superblock in the words both versions share. */
export function superInfo5(sb: Superblock5): SuperInfo {
  const flags = sb.flags % 0x1_0000_0000;
  return {
    version: 5,
    flags,
    chunkSize: sb.blockSize,
    compressor: compressorOf(flags),
    digester: digesterOf(flags),
    explicitUidGid: (flags & SuperFlag.explicitUidGid) !== 0,
    hasXattr: (flags & SuperFlag.hasXattr) !== 0,
    inodesCount: sb.inodesCount,
    blockSize: 4096,
  };
}

/**
 * Read the blob table and the extended blob table.
 *
 * @throws FormatError too many blobs, an id that is no file name, or fewer extended records than blobs
 */
export function readBlobs5(view: DataView, sb: Superblock5, info: SuperInfo): BlobInfo[] {
  const blobs: BlobInfo[] = [];
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const end = sb.blobTableOffset + sb.blobTableSize;
  let at = sb.blobTableOffset;
  while (end - at > blobEntry5.size) {
    const place = { struct: 'blobEntry5', offset: at };
    const idStart = at + blobEntry5.size;
    const nul = bytes.subarray(idStart, end).indexOf(0);
    const idEnd = nul < 0 ? end : idStart + nul;
    const id = textOf(bytes.subarray(idStart, idEnd));
    const index = blobs.length;
    if (index >= MAX_BLOBS_V5)
      throw new FormatError(place, `is blob number ${index + 1}, an image has at most ${MAX_BLOBS_V5}`);
    if (!isPlainBlobId(id)) throw new FormatError(place, `its id ${JSON.stringify(id)} is not a file name`);
    blobs.push({
      index,
      id,
      chunkCount: 0,
      chunkSize: info.chunkSize,
      features: 0,
      compressor: info.compressor,
      digester: info.digester,
      compressedSize: 0,
      uncompressedSize: 0,
      tocSize: 0,
      tocDigest: new Uint8Array(0),
      metaDigest: new Uint8Array(0),
      metaSize: 0,
      cipher: 0,
      cipherIv: new Uint8Array(0),
      ciCompressor: 'none',
      ciOffset: 0,
      ciCompressedSize: 0,
      ciUncompressedSize: 0,
      readaheadOffset: blobEntry5.field.readaheadOffset(view, at),
      readaheadSize: blobEntry5.field.readaheadSize(view, at),
      mappedBlkaddr: 0,
    });
    at = nul < 0 ? end : idEnd + 1;
  }
  readExtended(view, sb, blobs);
  return blobs;
}

function readExtended(view: DataView, sb: Superblock5, blobs: BlobInfo[]): void {
  const entries = sb.extendedBlobTableEntries;
  if (entries === 0) return;
  if (entries < blobs.length) {
    throw new FormatError(
      { struct: 'superblock5', field: 'extendedBlobTableEntries' },
      `is ${entries}, the blob table has ${blobs.length} rows`,
    );
  }
  for (const blob of blobs) {
    const base = sb.extendedBlobTableOffset + extendedBlob5.size * blob.index;
    const record = extendedBlob5.read(view, base);
    if (record.chunkCount > MAX_CHUNKS_PER_BLOB) {
      throw new FormatError(
        { struct: 'extendedBlob5', field: 'chunkCount', offset: base },
        `is ${record.chunkCount}, a blob has at most ${MAX_CHUNKS_PER_BLOB} chunks`,
      );
    }
    blob.chunkCount = record.chunkCount;
    blob.features = record.features;
    blob.uncompressedSize = record.uncompressedSize;
    blob.compressedSize = record.compressedSize;
  }
}
