// The 80-byte chunk record: v5 per-file chunk lists and the v6 chunk table. Source: rafs-metadata.md 2.5.
import { bytes, struct, u32, u64n, type Infer } from './struct.ts';

/** One chunk of a file. */
export const chunkRecord = struct('chunkRecord', {
  size: 80,
  source: 'upstream rafs/src/metadata/layout/v5.rs, RafsV5ChunkInfo',
  fields: {
    digest: bytes(32, 'digest of the uncompressed chunk; zero in tarfs mode and for external chunks'),
    blobIndex: u32('row of the blob table, from 0'),
    flags: u32('ChunkFlag'),
    compressedSize: u32('bytes occupied in the blob; 0 for a batched chunk'),
    uncompressedSize: u32('bytes of file data'),
    compressedOffset: u64n('position in the chunk data of the blob; 0 for a batched chunk'),
    uncompressedOffset: u64n('position in the uncompressed blob address space'),
    fileOffset: u64n('position inside the file'),
    index: u32('chunk number inside the blob, from 0'),
    crc32: u32('CRC-32C of the uncompressed data when ChunkFlag.hasCrc32 is set, else 0'),
  },
});
export type ChunkRecord = Infer<typeof chunkRecord>;
