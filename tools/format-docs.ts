// Writes docs/format/*.md from the struct tables of src/format; `--check` fails when a page is stale.
// Usage: node tools/format-docs.ts [--check]
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { batchContext, ciEntryV1, ciEntryV2, ciHeader, CiFlag } from '../src/format/blobmeta/layout.ts';
import { chunkRecord } from '../src/format/chunk-record.ts';
import { BlobFeature, ChunkFlag, SuperFlag } from '../src/format/flags.ts';
import { blobEntry5, extendedBlob5, inode5, InodeFlag5, superblock5 } from '../src/format/rafs5/layout.ts';
import {
  blobRecord6,
  chunkIndex6,
  deviceSlot6,
  dirent6,
  extendedSuper6,
  FileType6,
  inodeCompact6,
  inodeExtended6,
  InodeLayout6,
  superblock6,
  xattrEntry6,
  xattrHeader6,
} from '../src/format/rafs6/layout.ts';
import type { FieldInfo } from '../src/format/struct.ts';
import { tocEntry, TocFlag } from '../src/format/toc/layout.ts';

interface StructTable {
  readonly name: string;
  readonly size: number;
  readonly source: string;
  readonly doc: string;
  readonly layout: readonly FieldInfo[];
}

interface Part {
  heading: string;
  text: string;
  table?: StructTable;
  /** names of numbers: flags are shown in hex */
  numbers?: {
    readonly title: string;
    readonly values: Readonly<Record<string, number>>;
    readonly hex: boolean;
  };
}

interface Page {
  file: string;
  title: string;
  intro: string;
  parts: Part[];
}

const superFlags = { title: 'SuperFlag', values: SuperFlag, hex: true };
const blobFeatures = { title: 'BlobFeature', values: BlobFeature, hex: true };
const chunkFlags = { title: 'ChunkFlag', values: ChunkFlag, hex: true };

const chunkPart: Part = {
  heading: 'Chunk record',
  text: 'One chunk of a file. A chunk that would not shrink is stored raw and has no `compressed` flag.',
  table: chunkRecord,
  numbers: chunkFlags,
};

const pages: Page[] = [
  {
    file: 'rafs5.md',
    title: 'RAFS v5 bootstrap',
    intro:
      'Superblock, inode table, prefetch table, blob table, extended blob table and inode records follow each other; every ' +
      'section is a multiple of 8 bytes. An inode is found through the inode table: element `n - 1` holds the byte offset of ' +
      'record `n`, divided by 8. Record 1 is the root; the children of a directory have consecutive numbers, in name order.',
    parts: [
      { heading: 'Superblock', text: 'The first 8192 bytes.', table: superblock5, numbers: superFlags },
      {
        heading: 'Blob table element',
        text: 'The blob id follows these bytes. One NUL separates elements; there is none after the last.',
        table: blobEntry5,
      },
      {
        heading: 'Extended blob record',
        text: 'One per blob, in the order of the blob table.',
        table: extendedBlob5,
        numbers: blobFeatures,
      },
      {
        heading: 'Inode record',
        text:
          'Followed by the name, the symlink target, the xattr table (u64 size; then per xattr a u32 length, the name, a NUL and ' +
          'the value) and, for a regular file, its chunk records. Every part is padded to 8 bytes.',
        table: inode5,
        numbers: { title: 'InodeFlag5', values: InodeFlag5, hex: true },
      },
      chunkPart,
    ],
  },
  {
    file: 'rafs6.md',
    title: 'RAFS v6 bootstrap',
    intro:
      'An EROFS image whose regular files are chunk based: the kernel can mount it, with one extra device per blob. What RAFS ' +
      'adds is not looked at by the kernel. An inode is found at `metaBlkaddr * block size + 32 * nid`.',
    parts: [
      { heading: 'EROFS superblock', text: 'At byte 0x400.', table: superblock6 },
      {
        heading: 'RAFS extended superblock',
        text: 'At byte 0x480.',
        table: extendedSuper6,
        numbers: superFlags,
      },
      { heading: 'Device slot', text: 'One per blob, from byte 0x580.', table: deviceSlot6 },
      {
        heading: 'Blob record',
        text: 'One per blob, in the blob table.',
        table: blobRecord6,
        numbers: blobFeatures,
      },
      {
        heading: 'Extended inode',
        text:
          'The only form we write. The xattr area follows, then the chunk indexes of a regular file (at a multiple of 8 bytes from ' +
          'the inode), or the tail of a directory or symlink that is inlined.',
        table: inodeExtended6,
        numbers: { title: 'InodeLayout6, bits 1-3 of the format', values: InodeLayout6, hex: false },
      },
      { heading: 'Compact inode', text: 'Read, never written.', table: inodeCompact6 },
      {
        heading: 'Directory entry',
        text:
          'The entries of a block come first, then their names without terminators. All entries of a directory, `.` and `..` ' +
          'included, are in byte order.',
        table: dirent6,
        numbers: { title: 'FileType6', values: FileType6, hex: false },
      },
      { heading: 'Xattr area head', text: 'Before the xattrs of an inode.', table: xattrHeader6 },
      {
        heading: 'Xattr',
        text: 'The rest of the name and the value follow, padded to 4 bytes.',
        table: xattrEntry6,
      },
      { heading: 'Chunk index', text: 'One per chunk of a regular file.', table: chunkIndex6 },
      chunkPart,
    ],
  },
  {
    file: 'blobmeta.md',
    title: 'Compression information of a blob',
    intro:
      'One entry per chunk, then the batch contexts if there are any; compressed as a whole when that makes it smaller. The ' +
      'header follows. A local `.blob.meta` file holds the plain data, zeros up to a multiple of 4096, and the header.',
    parts: [
      { heading: 'Header', text: 'The last 4096 bytes.', table: ciHeader, numbers: blobFeatures },
      {
        heading: 'Entry, version 1',
        text: 'A chunk is compressed when its two sizes differ.',
        table: ciEntryV1,
      },
      {
        heading: 'Entry, version 2',
        text: 'Used with `chunkInfoV2`: batches and encryption need it.',
        table: ciEntryV2,
        numbers: { title: 'CiFlag', values: CiFlag, hex: true },
      },
      { heading: 'Batch context', text: 'Small chunks that were compressed together.', table: batchContext },
    ],
  },
  {
    file: 'toc.md',
    title: 'Table of contents of a blob',
    intro:
      'The last section of a blob built with `--features blob-toc`: entries, then a 512-byte tar header named `rafs.blob.toc`. ' +
      'It is found from the end of the blob.',
    parts: [
      {
        heading: 'Entry',
        text: 'One per section. The offset of `image.blob` is wrong in old blobs; it is never used.',
        table: tocEntry,
        numbers: { title: 'TocFlag', values: TocFlag, hex: true },
      },
    ],
  },
];

function fieldRows(table: StructTable): string[] {
  return table.layout.map(
    ({ name, offset, size, type, doc }) =>
      `| 0x${offset.toString(16).padStart(2, '0')} | ${size} | ${type} | \`${name}\` | ${doc.replaceAll('|', '\\|')} |`,
  );
}

function partLines({ heading, text, table, numbers }: Part): string[] {
  const lines = [`## ${heading}`, '', text, ''];
  if (table !== undefined) {
    lines.push(`\`${table.name}\`, ${table.size} bytes. Source: ${table.source}.`, '');
    if (table.doc !== '') lines.push(table.doc, '');
    lines.push(
      '| offset | size | type | field | meaning |',
      '|---|---|---|---|---|',
      ...fieldRows(table),
      '',
    );
  }
  if (numbers !== undefined) {
    lines.push(`\`${numbers.title}\`:`, '', '| value | name |', '|---|---|');
    for (const [name, value] of Object.entries(numbers.values)) {
      lines.push(`| ${numbers.hex ? `0x${(value >>> 0).toString(16)}` : value} | ${name} |`);
    }
    lines.push('');
  }
  return lines;
}

/** Text of one page. */
function render(page: Page): string {
  const head = [
    `# ${page.title}`,
    '',
    '<!-- Generated by tools/format-docs.ts from src/format: do not edit. -->',
    '',
    `${page.intro} All numbers are little-endian.`,
    '',
  ];
  return `${[...head, ...page.parts.flatMap(partLines)].join('\n').trimEnd()}\n`;
}

function main(check: boolean): number {
  const dir = fileURLToPath(new URL('../docs/format/', import.meta.url));
  mkdirSync(dir, { recursive: true });
  let stale = 0;
  for (const page of pages) {
    const path = `${dir}${page.file}`;
    const text = render(page);
    let old: string | undefined;
    try {
      old = readFileSync(path, 'utf8');
    } catch {
      old = undefined;
    }
    if (old === text) continue;
    if (check) {
      stale++;
      process.stderr.write(`docs/format/${page.file} is stale: run node tools/format-docs.ts\n`);
    } else writeFileSync(path, text);
  }
  return stale === 0 ? 0 : 1;
}

process.exitCode = main(process.argv.includes('--check'));
