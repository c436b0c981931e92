// Compression information (CI) of a blob: entries, contexts and a 4096-byte header. Source: blob-and-cache.md 4 and 8.2.
import { bytes, struct, u32, u64n, type Infer } from '../struct.ts';

export const CI_MAGIC = 0xb10b_b10b;
export const CI_HEADER_SIZE = 4096;

/** Header that follows the CI data in a blob and ends a local `.blob.meta` file. */
export const ciHeader = struct('ciHeader', {
  size: CI_HEADER_SIZE,
  source: 'upstream storage/src/meta/mod.rs, BlobCompressionContextHeader',
  fields: {
    magic: u32('0xB10BB10B'),
    features: u32('BlobFeature'),
    ciCompressor: u32('codec of the CI data; 0 when stored raw'),
    ciEntries: u32('number of chunk entries'),
    ciOffset: u64n('file offset of the CI data in the blob that holds it'),
    ciCompressedSize: u64n('stored length of the CI data'),
    ciUncompressedSize: u64n('length of the plain CI data'),
    ctxOffset: u64n('offset of the zran or batch contexts in the plain CI data, else 0'),
    ctxSize: u64n('bytes of contexts, else 0'),
    ctxCount: u32('number of contexts, else 0'),
    reserved: bytes(4032, 'zero'),
    magic2: u32('0xB10BB10B'),
  },
});
export type CiHeader = Infer<typeof ciHeader>;

/** V1 entry: two packed 64-bit words, seen as halves. Bit layout: blob-and-cache 4.2. */
export const ciEntryV1 = struct('ciEntryV1', {
  size: 16,
  source: 'upstream storage/src/meta/chunk_info_v1.rs, BlobChunkInfoV1Ondisk',
  fields: {
    uncompressedLow: u32(
      'bits 31-12: uncompressed offset bits 31-12; bits 11-8: (uncompressed size - 1) bits 23-20',
    ),
    uncompressedHigh: u32(
      'bits 31-12: (uncompressed size - 1) bits 19-0; bits 11-0: uncompressed offset bits 43-32',
    ),
    compressedLow: u32('compressed offset bits 31-0'),
    compressedHigh: u32(
      'bits 31-12: (compressed size - 1) bits 19-0; bits 11-8: its bits 23-20; bits 7-0: compressed offset bits 39-32',
    ),
  },
});

/** V2 entry: three packed 64-bit words, seen as halves. Bit layout: blob-and-cache 4.3. */
export const ciEntryV2 = struct('ciEntryV2', {
  size: 24,
  source: 'upstream storage/src/meta/chunk_info_v2.rs, BlobChunkInfoV2Ondisk',
  fields: {
    uncompressedBlock: u32('uncompressed offset in 4096-byte blocks'),
    uncompressedSizeFlags: u32('bits 31-24: CiFlag; bits 23-0: uncompressed size - 1'),
    compressedOffsetLow: u32('compressed offset bits 31-0'),
    compressedSizeOffset: u32('bits 31-8: compressed size; bits 7-0: compressed offset bits 39-32'),
    dataLow: u32('CRC-32C, or offset of the chunk in its context'),
    dataHigh: u32('context index, or 0'),
  },
});

export const CiFlag = { compressed: 0x1, zran: 0x2, batch: 0x4, encrypted: 0x8, hasCrc32: 0x10 } as const;

/** One batch of small chunks that were compressed together. */
export const batchContext = struct('batchContext', {
  size: 40,
  source: 'upstream storage/src/meta/batch.rs, BatchInflateContext',
  fields: {
    compressedSize: u32('stored size of the whole batch'),
    uncompressedSize: u32('plain size of the batch'),
    reserved: bytes(32, 'zero'),
  },
});
