// Encodes the table of contents at the end of a blob. Source: blob-and-cache.md 6.1-6.4.
import { digestOf } from '../../codec/digest.ts';
import { encodeTrailer } from '../tar/trailer.ts';
import { Section, TocFlag, tocEntry } from './layout.ts';

/** One section as its entry describes it. */
export interface TocSection {
  name: string;
  compressor: 'none' | 'zstd' | 'lz4_block';
  /** SHA-256; of what, see blob-and-cache 6.3 */
  digest: Uint8Array;
  compressedOffset: number;
  compressedSize: number;
  uncompressedSize: number;
}

const FLAGS = { none: TocFlag.none, zstd: TocFlag.zstd, lz4_block: TocFlag.lz4Block } as const;

/** One entry as 128 bytes. */
export function encodeTocEntry(section: TocSection): Buffer {
  return tocEntry.encode({
    flags: FLAGS[section.compressor],
    name: section.name,
    digest: section.digest,
    compressedOffset: section.compressedOffset,
    compressedSize: section.compressedSize,
    uncompressedSize: section.uncompressedSize,
  });
}

/** The whole table with its trailer, and what the blob table says about it. */
export function encodeToc(sections: readonly TocSection[]): { bytes: Buffer; digest: Buffer; size: number } {
  const entries = Buffer.concat(sections.map(encodeTocEntry));
  const bytes = Buffer.concat([entries, encodeTrailer(Section.toc, entries.length)]);
  return { bytes, digest: digestOf('sha256', bytes), size: bytes.length };
}
