// Table of contents at the end of a blob. Source: blob-and-cache.md section 6.
import { ascii, bytes, struct, u32, u64n, type Infer } from '../struct.ts';

/** One section of the blob. */
export const tocEntry = struct('tocEntry', {
  size: 128,
  source: 'upstream storage/src/meta/toc.rs, TocEntry',
  fields: {
    flags: u32('TocFlag: compression of the section'),
    reserved1: u32('zero'),
    name: ascii(16, 'section name'),
    digest: bytes(32, 'SHA-256 of the uncompressed content'),
    compressedOffset: u64n('from the start of the blob file'),
    compressedSize: u64n('stored bytes'),
    uncompressedSize: u64n('decoded bytes'),
    reserved2: bytes(48, 'written zero, ignored when read'),
  },
});
export type TocEntry = Infer<typeof tocEntry>;

export const TocFlag = { none: 0x1, zstd: 0x2, lz4Block: 0x4 } as const;

/** Section names; those ending a section as tar header and those in the table. */
export const Section = {
  blob: 'image.blob',
  blobMeta: 'blob.meta',
  blobMetaHeader: 'blob.meta.header',
  digest: 'blob.digest',
  bootstrap: 'image.boot',
  toc: 'rafs.blob.toc',
} as const;
