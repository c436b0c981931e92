// Parts of a v5 bootstrap for a dump. Source: rafs-metadata.md 3.1-3.7.
import { viewOf } from '../base/bytes.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { S_IFLNK, S_IFMT } from '../format/flags.ts';
import {
  INODE5_SIZE,
  InodeFlag5,
  SUPERBLOCK5_SIZE,
  extendedBlob5,
  inode5,
  superblock5,
} from '../format/rafs5/layout.ts';
import type { Rafs5Image } from '../format/rafs5/reader.ts';
import { at, structLines, visible, type Region } from './dump-text.ts';

/** Regions of a v5 image. */
export function regions5(image: Rafs5Image): Region[] {
  const regions = tables(image);
  for (let index = 1; index <= image.entries; index++) regions.push(record(image, index));
  return regions;
}

function tables(image: Rafs5Image): Region[] {
  const { bytes, superblock: sb } = image;
  const view = viewOf(bytes);
  const words = (start: number, count: number) =>
    Array.from(
      { length: count },
      (_, i) => `  ${at(start + 4 * i)} ${i + 1}: ${view.getUint32(start + 4 * i, true)}`,
    );
  const regions: Region[] = [
    { start: 0, end: SUPERBLOCK5_SIZE, title: 'superblock', lines: () => structLines(bytes, superblock5, 0) },
    {
      start: sb.inodeTableOffset,
      end: sb.inodeTableOffset + 4 * sb.inodeTableEntries,
      title: `inode table, ${sb.inodeTableEntries} entries, record offsets / 8`,
      lines: () => words(sb.inodeTableOffset, sb.inodeTableEntries),
    },
  ];
  if (sb.prefetchTableEntries > 0) {
    regions.push({
      start: sb.prefetchTableOffset,
      end: sb.prefetchTableOffset + 4 * sb.prefetchTableEntries,
      title: `prefetch table, ${sb.prefetchTableEntries} inode numbers`,
      lines: () => words(sb.prefetchTableOffset, sb.prefetchTableEntries),
    });
  }
  if (sb.blobTableSize > 0) {
    regions.push({
      start: sb.blobTableOffset,
      end: sb.blobTableOffset + sb.blobTableSize,
      title: `blob table, ${image.blobs.length} blobs`,
      lines: () =>
        image.blobs.map((b) => `  ${b.index}: ${b.id} readahead ${b.readaheadOffset}/${b.readaheadSize}`),
    });
  }
  for (let i = 0; i < sb.extendedBlobTableEntries; i++) {
    const start = sb.extendedBlobTableOffset + extendedBlob5.size * i;
    regions.push({
      start,
      end: start + extendedBlob5.size,
      title: `extended blob ${i}`,
      lines: () => structLines(bytes, extendedBlob5, start),
    });
  }
  return regions;
}

function record(image: Rafs5Image, index: number): Region {
  const { offset, end } = image.entry(index);
  const view = viewOf(image.bytes);
  const name = image.bytes.subarray(
    offset + INODE5_SIZE,
    offset + INODE5_SIZE + inode5.field.nameSize(view, offset),
  );
  return {
    start: offset,
    end,
    title: `inode record ${index} "${visible(name)}"`,
    lines: () => recordLines(image, index),
  };
}

function recordLines(image: Rafs5Image, index: number): string[] {
  const { bytes } = image;
  const { offset, chunksOffset, end } = image.entry(index);
  const header = inode5.read(viewOf(bytes), offset);
  const lines = structLines(bytes, inode5, offset);
  const targetStart = offset + INODE5_SIZE + 8 * Math.ceil(header.nameSize / 8);
  if ((header.mode & S_IFMT) === S_IFLNK) {
    lines.push(
      `  ${at(targetStart)} target "${visible(bytes.subarray(targetStart, targetStart + header.symlinkSize))}"`,
    );
  }
  if ((header.flags & InodeFlag5.xattr) !== 0) lines.push(...xattrLines(image, header.ino));
  for (let start = chunksOffset; start < end; start += chunkRecord.size) {
    lines.push(`  ${at(start)} chunk ${(start - chunksOffset) / chunkRecord.size}`);
    lines.push(...structLines(bytes, chunkRecord, start).map((line) => `  ${line}`));
  }
  return lines;
}

function xattrLines(image: Rafs5Image, ino: number): string[] {
  return [...image.xattrs(ino)].map(
    ({ name, value }) => `  ${at(offsetIn(image, value))} xattr ${visible(name)} = "${visible(value)}"`,
  );
}

/** Offset of a view of the image's bytes. */
function offsetIn(image: Rafs5Image, view: Uint8Array): number {
  return view.byteOffset - image.bytes.byteOffset;
}
