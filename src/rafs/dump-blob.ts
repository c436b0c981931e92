// A data blob as text: its sections, found from the end, with the structures inside. Source: blob-and-cache.md 3.1, 4, 6.
import { viewOf } from '../base/bytes.ts';
import { FormatError } from '../base/errors.ts';
import { COMPRESSORS } from '../codec/algorithms.ts';
import { decompress } from '../codec/compress.ts';
import { BlobFeature } from '../format/flags.ts';
import {
  CI_HEADER_SIZE,
  CI_MAGIC,
  batchContext,
  ciEntryV1,
  ciEntryV2,
  ciHeader,
  type CiHeader,
} from '../format/blobmeta/layout.ts';
import { MAX_CI_SIZE } from '../format/rafs6/tables.ts';
import { TRAILER_SIZE } from '../format/tar/trailer.ts';
import { Section, tocEntry } from '../format/toc/layout.ts';
import { walkTrailers, type RangeReader, type TrailedSection } from './open-inline.ts';
import { at, structLines } from './dump-text.ts';

/** A section of a blob, or its trailer. */
export interface BlobSection {
  start: number;
  /** exclusive */
  end: number;
  /** section name, or `trailer of NAME` */
  title: string;
}

/**
 * Sections of a blob in file order; together they are the whole blob.
 * A blob without trailers is chunk data, followed by compression information when its last 4096 bytes are a CI header.
 */
export async function blobSections(read: RangeReader, size: number): Promise<BlobSection[]> {
  const trailed: TrailedSection[] = await walkTrailers(read, size);
  const sections: BlobSection[] = [];
  for (const { name, start, end } of trailed) {
    sections.push(
      { start: end, end: end + TRAILER_SIZE, title: `trailer of ${name}` },
      { start, end, title: name },
    );
  }
  let start = trailed.at(-1)?.start ?? size;
  if (trailed.length === 0 && size >= CI_HEADER_SIZE) {
    const header = await read(size - CI_HEADER_SIZE, size);
    const view = viewOf(header);
    if (ciHeader.field.magic(view, 0) === CI_MAGIC && ciHeader.field.magic2(view, 0) === CI_MAGIC) {
      const offset = ciHeader.field.ciOffset(view, 0);
      if (offset <= size - CI_HEADER_SIZE) {
        sections.push({ start: offset, end: size, title: Section.blobMeta });
        start = offset;
      }
    }
  }
  if (start > 0) sections.push({ start: 0, end: start, title: 'chunk data' });
  return sections.reverse();
}

/** Lines of the dump, without line ends. Chunk data and the embedded bootstrap are named, not shown. */
export async function* dumpBlob(read: RangeReader, size: number): AsyncGenerator<string> {
  for (const section of await blobSections(read, size)) {
    yield `${at(section.start)}-${at(section.end)} ${section.title}, ${section.end - section.start} bytes`;
    if (section.title === Section.blobMeta)
      yield* ciLines(await read(section.start, section.end), section.start);
    if (section.title === Section.toc) yield* tocLines(await read(section.start, section.end), section.start);
    if (section.title === Section.digest)
      yield* digestLines(await read(section.start, section.end), section.start);
  }
}

function* tocLines(bytes: Uint8Array, start: number): Generator<string> {
  for (let base = 0; base + tocEntry.size <= bytes.length; base += tocEntry.size) {
    yield* structLines(bytes, tocEntry, base, start + base);
  }
}

function* digestLines(bytes: Uint8Array, start: number): Generator<string> {
  for (let base = 0; base < bytes.length; base += 32) {
    yield `  ${at(start + base)} chunk ${base / 32}: ${Buffer.from(bytes.subarray(base, base + 32)).toString('hex')}`;
  }
}

function* ciLines(section: Uint8Array, start: number): Generator<string> {
  const split = section.length - CI_HEADER_SIZE;
  if (split < 0) return;
  if (ciHeader.field.magic(viewOf(section), split) !== CI_MAGIC) {
    yield `  ${at(start + split)} no header of compression information: encrypted, or damaged`;
    return;
  }
  yield* structLines(section, ciHeader, split, start + split);
  const header = ciHeader.read(viewOf(section), split);
  const plain = plainCi(section.subarray(0, split), header);
  const table = (header.features & BlobFeature.chunkInfoV2) === 0 ? ciEntryV1 : ciEntryV2;
  yield `  plain compression information, ${plain.length} bytes; offsets below count from its start`;
  for (let i = 0; i < header.ciEntries && table.size * (i + 1) <= plain.length; i++) {
    yield `  chunk ${i}`;
    yield* structLines(plain, table, table.size * i).map((line) => `  ${line}`);
  }
  if ((header.features & BlobFeature.batch) === 0) return;
  for (
    let i = 0;
    i < header.ctxCount && header.ctxOffset + batchContext.size * (i + 1) <= plain.length;
    i++
  ) {
    yield `  batch ${i}`;
    yield* structLines(plain, batchContext, header.ctxOffset + batchContext.size * i).map(
      (line) => `  ${line}`,
    );
  }
}

function plainCi(stored: Uint8Array, header: CiHeader): Uint8Array {
  const compressor = COMPRESSORS[header.ciCompressor];
  if (compressor === undefined || header.ciUncompressedSize > MAX_CI_SIZE) {
    throw new FormatError(
      { struct: 'ciHeader', field: 'ciUncompressedSize' },
      `is ${header.ciUncompressedSize} with codec ${header.ciCompressor}, at most ${MAX_CI_SIZE} is allowed`,
    );
  }
  return decompress(compressor, stored, header.ciUncompressedSize);
}
