// Parts of a v6 bootstrap for a dump. Source: rafs-metadata.md 4.2-4.14.
import { viewOf } from '../base/bytes.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../format/flags.ts';
import { FileType6 } from '../format/rafs6/layout.ts';
import {
  DEVICE_SLOTS_OFFSET,
  EROFS_SUPER_OFFSET,
  EXTENDED_SUPER_OFFSET,
  InodeLayout6,
  blobRecord6,
  chunkIndex6,
  deviceSlot6,
  dirent6,
  extendedSuper6,
  inodeCompact6,
  inodeExtended6,
  superblock6,
} from '../format/rafs6/layout.ts';
import type { Rafs6Image } from '../format/rafs6/reader.ts';
import { at, structLines, visible, type Region } from './dump-text.ts';
import { newAttr, newChunkRef } from '../format/image.ts';
import { walkTree } from './walk.ts';

/** Regions of a v6 image. Each inode is listed once, under its first path. */
export function regions6(image: Rafs6Image): Region[] {
  const regions = tables(image);
  const seen = new Set<number>();
  for (const entry of walkTree(image)) {
    if (seen.has(entry.ino)) continue;
    seen.add(entry.ino);
    regions.push(...inodeRegions(image, entry.ino, entry.path));
  }
  return regions;
}

function tables(image: Rafs6Image): Region[] {
  const { bytes } = image;
  const view = viewOf(bytes);
  const { extended: sb } = image.superblocks;
  const regions: Region[] = [
    {
      start: EROFS_SUPER_OFFSET,
      end: EROFS_SUPER_OFFSET + superblock6.size,
      title: 'EROFS superblock',
      lines: () => structLines(bytes, superblock6, EROFS_SUPER_OFFSET),
    },
    {
      start: EXTENDED_SUPER_OFFSET,
      end: EXTENDED_SUPER_OFFSET + extendedSuper6.size,
      title: 'RAFS extended superblock',
      lines: () => structLines(bytes, extendedSuper6, EXTENDED_SUPER_OFFSET),
    },
  ];
  const array = (title: string, table: Parameters<typeof structLines>[1], start: number, count: number) => {
    for (let i = 0; i < count; i++) {
      const base = start + table.size * i;
      regions.push({
        start: base,
        end: base + table.size,
        title: `${title} ${i}`,
        lines: () => structLines(bytes, table, base),
      });
    }
  };
  array('device slot', deviceSlot6, DEVICE_SLOTS_OFFSET, image.blobs.length);
  array('blob record', blobRecord6, sb.blobTableOffset, image.blobs.length);
  array('chunk record', chunkRecord, sb.chunkTableOffset, sb.chunkTableSize / chunkRecord.size);
  if (sb.prefetchTableSize > 0 && sb.prefetchTableOffset !== 0) {
    const start = sb.prefetchTableOffset;
    regions.push({
      start,
      end: start + sb.prefetchTableSize,
      title: `prefetch table, ${sb.prefetchTableSize / 4} nids`,
      lines: () =>
        Array.from(
          { length: sb.prefetchTableSize / 4 },
          (_, i) => `  ${at(start + 4 * i)} ${view.getUint32(start + 4 * i, true)}`,
        ),
    });
  }
  return regions;
}

function inodeRegions(image: Rafs6Image, nid: number, path: Buffer): Region[] {
  const { offset, end, layout } = image.inode(nid);
  const attr = newAttr();
  image.attr(nid, attr);
  const type = attr.mode & S_IFMT;
  const title = `nid ${nid} "${visible(path)}"`;
  const regions: Region[] = [
    { start: offset, end, title: `inode ${title}`, lines: () => inodeLines(image, nid, type) },
  ];
  if (type !== S_IFDIR && type !== S_IFLNK) return regions;
  const blockSize = image.super.blockSize;
  const inlined = layout === InodeLayout6.flatInline;
  const whole = inlined ? (Math.ceil(attr.size / blockSize) - 1) * blockSize : attr.size;
  if (whole > 0) {
    const start = inodeExtended6.field.u(viewOf(image.bytes), offset) * blockSize;
    regions.push({ start, end: start + whole, title: `data of ${title}`, lines: () => [] });
  }
  return regions;
}

function inodeLines(image: Rafs6Image, nid: number, type: number): string[] {
  const { bytes } = image;
  const { offset, extended, end } = image.inode(nid);
  const lines = structLines(bytes, extended ? inodeExtended6 : inodeCompact6, offset);
  for (const { name, value } of image.xattrs(nid)) {
    lines.push(`  ${at(value.byteOffset - bytes.byteOffset)} xattr ${visible(name)} = "${visible(value)}"`);
  }
  if (type === S_IFLNK) lines.push(`  target "${visible(image.readlink(nid))}"`);
  if (type === S_IFREG) {
    const count = image.chunkCount(nid);
    const ref = newChunkRef();
    for (let i = 0; i < count; i++) {
      const entry = end - chunkIndex6.size * (count - i);
      image.chunk(nid, i, ref);
      lines.push(
        `  ${at(entry)} chunk ${i}: blob ${ref.blobIndex} chunk ${ref.chunkIndex} at ${ref.uncompressedOffset}, ${ref.uncompressedSize} bytes`,
      );
    }
  }
  if (type === S_IFDIR) {
    image.readdir(nid, 0, (child, name, fileType) => {
      const kind = Object.entries(FileType6).find(([, number]) => number === fileType)?.[0] ?? 'unknown';
      lines.push(`  entry of ${dirent6.size} bytes: ${child} ${kind} "${visible(name)}"`);
      return true;
    });
  }
  return lines;
}
