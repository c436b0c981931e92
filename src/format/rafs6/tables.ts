// Superblocks, device slots and blob table of a v6 bootstrap, read and checked once when it is opened.
// Source: rafs-metadata.md 4.3-4.7, 4.19.
import { FormatError } from '../../base/errors.ts';
import { isPowerOfTwo, textOf } from '../../base/bytes.ts';
import {
  MAX_BLOBS_V6,
  MAX_BLOB_COMPRESSED,
  MAX_BLOB_UNCOMPRESSED,
  MAX_BOOTSTRAP_V6,
  MAX_CHUNKS_PER_BLOB,
  MAX_CHUNK_SIZE,
  MIN_CHUNK_SIZE,
} from '../../base/limits.ts';
import { COMPRESSORS, DIGESTERS } from '../../codec/algorithms.ts';
import { chunkRecord } from '../chunk-record.ts';
import { batchContext, ciEntryV1, ciEntryV2 } from '../blobmeta/layout.ts';
import { BlobFeature, KNOWN_INCOMPAT_FEATURES, SuperFlag } from '../flags.ts';
import { isPlainBlobId } from '../names.ts';
import {
  checkSuperFlags,
  compressionBits,
  compressorOf,
  digestBits,
  digesterOf,
  superblockError,
} from '../super-flags.ts';
import type { BlobInfo, SuperInfo } from '../image.ts';
import {
  BLOCK_SIZE,
  COMPAT_RAFS6,
  DEVICE_SLOTS_OFFSET,
  EROFS_MAGIC,
  EROFS_SUPER_OFFSET,
  EXTENDED_SUPER_OFFSET,
  INCOMPAT_RAFS6,
  blobRecord6,
  deviceSlot6,
  extendedSuper6,
  superblock6,
  type BlobRecord6,
  type ExtendedSuper6,
  type Superblock6,
} from './layout.ts';

/** Offset of the device slots in units of 128 bytes. */
const DEVT_SLOTOFF = DEVICE_SLOTS_OFFSET / deviceSlot6.size;
/** Value of `blocks` in images before v2.2. */
const OLD_BLOCKS = 4096;

/** Both superblocks of a v6 image. */
export interface Superblocks6 {
  erofs: Superblock6;
  extended: ExtendedSuper6;
}

/**
 * Read and check both superblocks.
 *
 * @throws FormatError `invalid RAFS superblock: ...`
 */
export function readSuperblocks6(view: DataView): Superblocks6 {
  const length = view.byteLength;
  if (length < DEVICE_SLOTS_OFFSET) {
    throw superblockError(
      { struct: 'superblock6', offset: 0 },
      `needs ${DEVICE_SLOTS_OFFSET} bytes, the file has ${length}`,
    );
  }
  const magic = superblock6.field.magic(view, EROFS_SUPER_OFFSET);
  if (magic !== EROFS_MAGIC) {
    throw superblockError(
      { struct: 'superblock6', field: 'magic', offset: EROFS_SUPER_OFFSET },
      `is 0x${magic.toString(16)}, expected 0x${EROFS_MAGIC.toString(16)}`,
    );
  }
  const erofs = superblock6.read(view, EROFS_SUPER_OFFSET);
  checkErofs(erofs, length);
  const extended = extendedSuper6.read(view, EXTENDED_SUPER_OFFSET);
  checkExtended(extended, erofs, length);
  return { erofs, extended };
}

function checkErofs(sb: Superblock6, length: number): void {
  const fail = (field: keyof Superblock6, problem: string) => {
    const offset = EROFS_SUPER_OFFSET + (superblock6.layout.find((info) => info.name === field)?.offset ?? 0);
    return superblockError({ struct: 'superblock6', field, offset }, problem);
  };
  if (sb.blkszbits !== 12 && sb.blkszbits !== 9)
    throw fail('blkszbits', `is ${sb.blkszbits}, expected 12 or 9`);
  const blockSize = 2 ** sb.blkszbits;
  if (length < BLOCK_SIZE || length % blockSize !== 0 || length > MAX_BOOTSTRAP_V6) {
    throw superblockError(
      { struct: 'superblock6' },
      `the file has ${length} bytes, expected a multiple of ${blockSize} from ${BLOCK_SIZE} to ${MAX_BOOTSTRAP_V6}`,
    );
  }
  if (sb.checksum !== 0) throw fail('checksum', `is 0x${sb.checksum.toString(16)}, expected 0`);
  if (sb.extslots !== 0) throw fail('extslots', `is ${sb.extslots}, expected 0`);
  if (sb.inos === 0) throw fail('inos', 'is 0, an image has at least its root');
  if (sb.union !== 0) throw fail('union', `is ${sb.union}, expected 0`);
  if (sb.xattrBlkaddr !== 0)
    throw fail('xattrBlkaddr', `is ${sb.xattrBlkaddr}, shared xattrs are not supported`);
  if (sb.metaBlkaddr * blockSize > length) {
    throw fail(
      'metaBlkaddr',
      `is block ${sb.metaBlkaddr} of ${blockSize} bytes, the file has ${length} bytes`,
    );
  }
  if (sb.extraDevices > MAX_BLOBS_V6)
    throw fail('extraDevices', `is ${sb.extraDevices}, an image has at most ${MAX_BLOBS_V6} blobs`);
  if (sb.extraDevices === 0 && sb.blocks !== 0 && sb.blocks !== OLD_BLOCKS) {
    throw fail('blocks', `is ${sb.blocks} without any device, expected 0`);
  }
  if (sb.devtSlotoff !== DEVT_SLOTOFF)
    throw fail('devtSlotoff', `is ${sb.devtSlotoff}, expected ${DEVT_SLOTOFF}`);
  if (sb.featureIncompat !== INCOMPAT_RAFS6) {
    throw fail(
      'featureIncompat',
      `is 0x${sb.featureIncompat.toString(16)}, expected 0x${INCOMPAT_RAFS6.toString(16)}`,
    );
  }
  if ((sb.featureCompat & COMPAT_RAFS6) === 0) {
    throw fail(
      'featureCompat',
      `is 0x${sb.featureCompat.toString(16)}: EROFS, but without the RAFS bit 0x40000000`,
    );
  }
}

function checkExtended(sb: ExtendedSuper6, erofs: Superblock6, length: number): void {
  const fail = (field: keyof ExtendedSuper6, problem: string) => {
    const offset =
      EXTENDED_SUPER_OFFSET + (extendedSuper6.layout.find((info) => info.name === field)?.offset ?? 0);
    return superblockError({ struct: 'extendedSuper6', field, offset }, problem);
  };
  const flags = checkSuperFlags(
    { struct: 'extendedSuper6', field: 'flags', offset: EXTENDED_SUPER_OFFSET },
    sb.flags,
  );
  if (compressionBits(flags) !== 1)
    throw fail('flags', `0x${flags.toString(16)} has ${compressionBits(flags)} compression bits, expected 1`);
  if (digestBits(flags) !== 1)
    throw fail('flags', `0x${flags.toString(16)} has ${digestBits(flags)} digest bits, expected 1`);
  if (!isPowerOfTwo(sb.chunkSize) || sb.chunkSize < MIN_CHUNK_SIZE || sb.chunkSize > MAX_CHUNK_SIZE) {
    throw fail(
      'chunkSize',
      `is ${sb.chunkSize}, expected a power of two from ${MIN_CHUNK_SIZE} to ${MAX_CHUNK_SIZE}`,
    );
  }
  const blobEnd = sb.blobTableOffset + sb.blobTableSize;
  const chunkEnd = sb.chunkTableOffset + sb.chunkTableSize;
  if (sb.blobTableOffset % BLOCK_SIZE !== 0 || sb.blobTableOffset < BLOCK_SIZE || blobEnd > length) {
    throw fail(
      'blobTableOffset',
      `bytes ${sb.blobTableOffset} to ${blobEnd}, expected a block start inside ${BLOCK_SIZE} to ${length}`,
    );
  }
  if (sb.blobTableSize % blobRecord6.size !== 0) {
    throw fail('blobTableSize', `is ${sb.blobTableSize}, expected a multiple of ${blobRecord6.size}`);
  }
  const blobs = sb.blobTableSize / blobRecord6.size;
  if (blobs !== erofs.extraDevices)
    throw fail('blobTableSize', `has ${blobs} rows, the image has ${erofs.extraDevices} devices`);
  const slotsEnd = DEVICE_SLOTS_OFFSET + deviceSlot6.size * erofs.extraDevices;
  if (slotsEnd > sb.blobTableOffset) {
    throw fail('blobTableOffset', `is ${sb.blobTableOffset}, the device slots end at ${slotsEnd}`);
  }
  if (sb.chunkTableSize > 0) {
    if (sb.chunkTableOffset % BLOCK_SIZE !== 0 || sb.chunkTableOffset < BLOCK_SIZE || chunkEnd > length) {
      throw fail(
        'chunkTableOffset',
        `bytes ${sb.chunkTableOffset} to ${chunkEnd}, expected a block start inside ${BLOCK_SIZE} to ${length}`,
      );
    }
    if (sb.chunkTableSize % chunkRecord.size !== 0) {
      throw fail('chunkTableSize', `is ${sb.chunkTableSize}, expected a multiple of ${chunkRecord.size}`);
    }
    if (sb.chunkTableOffset < blobEnd && sb.blobTableOffset < chunkEnd) {
      throw fail('chunkTableOffset', 'the chunk table overlaps the blob table');
    }
  }
  // old images have a size without an offset: no table
  if (sb.prefetchTableSize > 0 && sb.prefetchTableOffset !== 0) {
    const start = sb.prefetchTableOffset;
    const end = start + sb.prefetchTableSize;
    if (start < BLOCK_SIZE || start % 8 !== 0 || end > length || sb.prefetchTableSize % 4 !== 0) {
      throw fail(
        'prefetchTableOffset',
        `bytes ${start} to ${end}, expected whole entries inside ${BLOCK_SIZE} to ${length}`,
      );
    }
    if (start < blobEnd && sb.blobTableOffset < end)
      throw fail('prefetchTableOffset', 'the prefetch table overlaps the blob table');
    if (sb.chunkTableSize > 0 && start < chunkEnd && sb.chunkTableOffset < end) {
      throw fail('prefetchTableOffset', 'the prefetch table overlaps the chunk table');
    }
  }
}

/** The superblocks in the words both versions share. */
export function superInfo6(sb: Superblocks6): SuperInfo {
  const flags = sb.extended.flags % 0x1_0000_0000;
  return {
    version: 6,
    flags,
    chunkSize: sb.extended.chunkSize,
    compressor: compressorOf(flags),
    digester: digesterOf(flags),
    explicitUidGid: (flags & SuperFlag.explicitUidGid) !== 0,
    hasXattr: (flags & SuperFlag.hasXattr) !== 0,
    inodesCount: sb.erofs.inos,
    blockSize: 2 ** sb.erofs.blkszbits,
  };
}

/**
 * Read blob table and device slots.
 *
 * @param dictionary do not compare the compression information size with the chunk count
 * @throws FormatError a record breaks a rule of rafs-metadata 4.19
 */
export function readBlobs6(view: DataView, sb: Superblocks6, dictionary: boolean): BlobInfo[] {
  const count = sb.extended.blobTableSize / blobRecord6.size;
  const blobs: BlobInfo[] = [];
  const seen = new Set<string>();
  for (let index = 0; index < count; index++) {
    const base = sb.extended.blobTableOffset + blobRecord6.size * index;
    const record = blobRecord6.read(view, base);
    checkRecord(record, index, base, sb, dictionary);
    const slotBase = DEVICE_SLOTS_OFFSET + deviceSlot6.size * index;
    const slot = deviceSlot6.read(view, slotBase);
    const id = textOf(record.blobId);
    const tag = textOf(new Uint8Array(view.buffer, view.byteOffset + slotBase, 64));
    if (tag !== id) {
      throw new FormatError(
        { struct: 'deviceSlot6', field: 'tag', offset: slotBase },
        `is ${tag}, blob ${index} is ${id}`,
      );
    }
    if (slot.blocks === 0)
      throw new FormatError({ struct: 'deviceSlot6', field: 'blocks', offset: slotBase }, 'is 0');
    if (seen.has(id))
      throw new FormatError({ struct: 'deviceSlot6', field: 'tag', offset: slotBase }, `${id} occurs twice`);
    seen.add(id);
    blobs.push(infoOf(record, id, slot.mappedBlkaddr));
  }
  return blobs;
}

function infoOf(record: BlobRecord6, id: string, mappedBlkaddr: number): BlobInfo {
  // the field is a key half for encrypted blobs, so it may be no size at all
  const size = new DataView(record.metaSize.buffer, record.metaSize.byteOffset, 8);
  const metaSize =
    (record.features & BlobFeature.encrypted) === 0
      ? size.getUint32(4, true) * 2 ** 32 + size.getUint32(0, true)
      : 0;
  return {
    index: record.blobIndex,
    id,
    chunkCount: record.chunkCount,
    chunkSize: record.chunkSize,
    features: record.features,
    compressor: COMPRESSORS[record.compressor] ?? 'none',
    digester: DIGESTERS[record.digester] ?? 'blake3',
    compressedSize: record.compressedSize,
    uncompressedSize: record.uncompressedSize,
    tocSize: record.tocSize,
    tocDigest: record.tocDigest.slice(),
    metaDigest: record.metaDigest.slice(),
    metaSize,
    cipher: record.cipher,
    cipherIv: Buffer.concat([record.metaSize, record.cipherIv]),
    ciCompressor: COMPRESSORS[record.ciCompressor] ?? 'none',
    ciOffset: record.ciOffset,
    ciCompressedSize: record.ciCompressedSize,
    ciUncompressedSize: record.ciUncompressedSize,
    readaheadOffset: 0,
    readaheadSize: 0,
    mappedBlkaddr,
  };
}

function checkRecord(
  record: BlobRecord6,
  index: number,
  base: number,
  sb: Superblocks6,
  dictionary: boolean,
): void {
  const fail = (field: keyof BlobRecord6, problem: string) => {
    const offset = base + (blobRecord6.layout.find((info) => info.name === field)?.offset ?? 0);
    return new FormatError({ struct: 'blobRecord6', field, offset }, problem);
  };
  const id = textOf(record.blobId);
  if (!isPlainBlobId(id)) throw fail('blobId', `${JSON.stringify(id)} is not a file name`);
  if (!isUtf8(record.blobId)) throw fail('blobId', 'is not UTF-8');
  if (record.blobIndex !== index) throw fail('blobIndex', `is ${record.blobIndex} in row ${index}`);
  const chunkSize = sb.extended.chunkSize;
  if (record.chunkSize !== chunkSize)
    throw fail('chunkSize', `is ${record.chunkSize}, the image has ${chunkSize}`);
  if (record.chunkCount > MAX_CHUNKS_PER_BLOB) {
    throw fail('chunkCount', `is ${record.chunkCount}, a blob has at most ${MAX_CHUNKS_PER_BLOB} chunks`);
  }
  if (COMPRESSORS[record.compressor] === undefined)
    throw fail('compressor', `unknown algorithm ${record.compressor}`);
  if (COMPRESSORS[record.ciCompressor] === undefined)
    throw fail('ciCompressor', `unknown algorithm ${record.ciCompressor}`);
  if (DIGESTERS[record.digester] === undefined)
    throw fail('digester', `unknown algorithm ${record.digester}`);
  if (record.cipher > 1) throw fail('cipher', `is ${record.cipher}, only 0 and 1 can be read`);
  if (record.uncompressedSize > MAX_BLOB_UNCOMPRESSED) {
    throw fail(
      'uncompressedSize',
      `is ${record.uncompressedSize}, at most ${MAX_BLOB_UNCOMPRESSED} is allowed`,
    );
  }
  if (record.compressedSize > MAX_BLOB_COMPRESSED) {
    throw fail('compressedSize', `is ${record.compressedSize}, at most ${MAX_BLOB_COMPRESSED} is allowed`);
  }
  const features = record.features;
  const tarfs = (features & BlobFeature.tarfs) !== 0;
  if ((features & 0xffff & ~KNOWN_INCOMPAT_FEATURES) !== 0 || (features & 0x8000_0000) !== 0) {
    throw fail('features', `0x${features.toString(16)} has unknown incompatible bits`);
  }
  const tarfsMode = ((sb.extended.flags % 0x1_0000_0000) & SuperFlag.tarfsMode) !== 0;
  if (tarfsMode === ((features & BlobFeature.aligned) !== 0)) {
    throw fail('features', `0x${features.toString(16)}: chunks are aligned exactly outside tarfs`);
  }
  if (record.ciCompressedSize > record.ciUncompressedSize) {
    throw fail(
      'ciCompressedSize',
      `is ${record.ciCompressedSize}, more than the plain ${record.ciUncompressedSize}`,
    );
  }
  if (record.ciOffset + record.ciCompressedSize > Number.MAX_SAFE_INTEGER)
    throw fail('ciOffset', `is ${record.ciOffset}`);
  checkCiSize(record, tarfs || dictionary, fail);
}

function checkCiSize(
  record: BlobRecord6,
  lenient: boolean,
  fail: (field: keyof BlobRecord6, problem: string) => FormatError,
): void {
  const { features, chunkCount, ciUncompressedSize } = record;
  const v2 = (features & BlobFeature.chunkInfoV2) !== 0;
  const extra = (features & (BlobFeature.batch | BlobFeature.zran | BlobFeature.encrypted)) !== 0;
  if (extra && !v2) throw fail('features', `0x${features.toString(16)} needs entries of version 2`);
  const entries = (v2 ? ciEntryV2.size : ciEntryV1.size) * chunkCount;
  if (ciUncompressedSize > MAX_CI_SIZE)
    throw fail('ciUncompressedSize', `is ${ciUncompressedSize}, at most ${MAX_CI_SIZE} is allowed`);
  if (lenient) return;
  const fits = v2 && extra ? ciUncompressedSize >= entries : ciUncompressedSize === entries;
  if (!fits)
    throw fail(
      'ciUncompressedSize',
      `is ${ciUncompressedSize}, ${chunkCount} chunks have ${entries} bytes of entries`,
    );
}

/** Plain compression information: every chunk of the largest blob with a context of its own, and zran dictionaries. */
export const MAX_CI_SIZE = MAX_CHUNKS_PER_BLOB * (ciEntryV2.size + batchContext.size);

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}
