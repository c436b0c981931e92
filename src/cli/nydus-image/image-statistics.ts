// Numbers about images and the chunks they share. Source: nydus-image 4.3, golden cli/mistakes.jsonl.
import { alignUp, toHex } from '../../base/bytes.ts';
import type { ChunkRecord } from '../../format/chunk-record.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/flags.ts';
import type { RafsImage } from '../../format/image.ts';
import { chunksOf, walkFacts } from './inode-facts.ts';

/** Chunk sizes that are tried: 4 KiB to 1 MiB. */
const CHUNK_SIZE_STEPS = 9;
const SMALLEST_CHUNK_BITS = 12;
/** File sizes by bit length; the last counts everything longer. */
const FILE_SIZE_STEPS = 45;
/** Rows of the table of shared chunks. */
export const SHARE_STEPS = 20;

/** Keys are those of the JSON form. Sizes in bytes. */
export interface ImageStatistics {
  dirs: number;
  /** names of regular files, every hard link counted */
  files: number;
  symlinks: number;
  /** distinct chunks */
  chunks: number;
  /** hard links counted once, as in the two tables below */
  file_size: number;
  comp_size: number;
  /** what the cache of a daemon would hold: chunks and the padding between them */
  uncomp_size: number;
  padding_size: number;
  chunk_sizes: number[];
  file_sizes: number[];
  /** chunks that an image before this one has: what sharing saves */
  dedup_chunks: number;
  dedup_comp_size: number;
  dedup_uncomp_size: number;
  own_chunks: number;
  own_comp_size: number;
  own_uncomp_size: number;
  /** target only: chunks that the base images have */
  ref_chunks: number;
  ref_comp_size: number;
  ref_uncomp_size: number;
}

/** The chunks of a set of images: how many images have each. */
export type ChunkShares = Map<string, { images: number; compressedSize: number; uncompressedSize: number }>;

export function emptyStatistics(): ImageStatistics {
  return {
    dirs: 0,
    files: 0,
    symlinks: 0,
    chunks: 0,
    file_size: 0,
    comp_size: 0,
    uncomp_size: 0,
    padding_size: 0,
    chunk_sizes: new Array<number>(CHUNK_SIZE_STEPS).fill(0),
    file_sizes: new Array<number>(FILE_SIZE_STEPS).fill(0),
    dedup_chunks: 0,
    dedup_comp_size: 0,
    dedup_uncomp_size: 0,
    own_chunks: 0,
    own_comp_size: 0,
    own_uncomp_size: 0,
    ref_chunks: 0,
    ref_comp_size: 0,
    ref_uncomp_size: 0,
  };
}

/** Bits of a size: 0 for 0, 13 for 8000. */
export function bitLength(size: number): number {
  return size === 0 ? 0 : Math.floor(Math.log2(size)) + 1;
}

function countFile(stats: ImageStatistics, size: number): void {
  stats.file_size += size;
  const bits = Math.min(bitLength(size), FILE_SIZE_STEPS - 1);
  stats.file_sizes[bits] = (stats.file_sizes[bits] ?? 0) + 1;
  for (let step = 0; step < CHUNK_SIZE_STEPS; step++) {
    const chunks = Math.ceil(size / 2 ** (SMALLEST_CHUNK_BITS + step));
    stats.chunk_sizes[step] = (stats.chunk_sizes[step] ?? 0) + chunks;
  }
}

/** Count the tree of an image. @returns its distinct chunks by digest */
function countTree(image: RafsImage, stats: ImageStatistics): Map<string, ChunkRecord> {
  const chunks = new Map<string, ChunkRecord>();
  const linked = new Set<number>();
  for (const facts of walkFacts(image)) {
    switch (facts.mode & S_IFMT) {
      case S_IFDIR:
        stats.dirs += 1;
        break;
      case S_IFLNK:
        stats.symlinks += 1;
        break;
      case S_IFREG:
        stats.files += 1;
        if (facts.nlink > 1) {
          if (linked.has(facts.ino)) break;
          linked.add(facts.ino);
        }
        countFile(stats, facts.size);
        for (const chunk of chunksOf(image, facts)) chunks.set(toHex(chunk.digest), chunk);
        break;
    }
  }
  return chunks;
}

/** Bytes up to the next 4 KiB, where the next chunk of a v6 blob begins. */
function paddingOf(size: number): number {
  return alignUp(size, 4096) - size;
}

function countChunk(stats: ImageStatistics, chunk: ChunkRecord, kind: 'own' | 'dedup' | 'ref'): void {
  stats.chunks += 1;
  stats.comp_size += chunk.compressedSize;
  stats.padding_size += paddingOf(chunk.uncompressedSize);
  stats.uncomp_size += chunk.uncompressedSize + paddingOf(chunk.uncompressedSize);
  stats[`${kind}_chunks`] += 1;
  stats[`${kind}_comp_size`] += chunk.compressedSize;
  stats[`${kind}_uncomp_size`] += chunk.uncompressedSize;
}

/** Add an image to the base set. */
export function addBase(stats: ImageStatistics, shares: ChunkShares, image: RafsImage): void {
  for (const [digest, chunk] of countTree(image, stats)) {
    const known = shares.get(digest);
    countChunk(stats, chunk, known === undefined ? 'own' : 'dedup');
    if (known !== undefined) known.images += 1;
    else {
      const { compressedSize, uncompressedSize } = chunk;
      shares.set(digest, { images: 1, compressedSize, uncompressedSize });
    }
  }
}

/** Count the target: its chunks are the base set's (`ref`) or its own. */
export function addTarget(stats: ImageStatistics, shares: ChunkShares, image: RafsImage): void {
  for (const [digest, chunk] of countTree(image, stats))
    countChunk(stats, chunk, shares.has(digest) ? 'ref' : 'own');
}

/** Text of one image's numbers. */
export function statisticsText(s: ImageStatistics): string {
  const head = [
    ['Directories:', s.dirs],
    ['Files:', s.files],
    ['Symlinks:', s.symlinks],
    ['Chunks:', s.chunks],
    ['File Size:', s.file_size],
    ['Padding Size:', s.padding_size],
    ['Uncompressed Size:', s.uncomp_size],
    ['Compressed Size:', s.comp_size],
  ] as const;
  const tail = [
    ['Raw Content Size', s.uncomp_size - s.padding_size],
    ['Comp Content Size', s.comp_size],
    ['Raw Chunk Count', s.chunks],
    ['Dedup Comp Size', s.dedup_comp_size],
    ['Dedup Uncomp Size', s.dedup_uncomp_size],
    ['Dedup Chunk Count', s.dedup_chunks],
    ['Owned Comp Size', s.own_comp_size],
    ['Owned Uncomp Size', s.own_uncomp_size],
    ['Owned Chunk Count', s.own_chunks],
    ['Referenced Comp Size', s.ref_comp_size],
    ['Referenced Uncomp Size', s.ref_uncomp_size],
    ['Referenced Chunk Count', s.ref_chunks],
  ] as const;
  return [
    '',
    ...head.map(([name, value]) => name.padEnd(24) + String(value)),
    '',
    'File Size Bits:\t\tFile Count:',
    ...s.file_sizes.map((count, bits) => `${bits}:\t\t\t${count}`),
    '',
    'Chunk Size Bits:\tChunk Count:',
    ...s.chunk_sizes.map((count, step) => `${step + SMALLEST_CHUNK_BITS}:\t\t\t${count}`),
    '',
    ...tail.map(([name, value]) => `${name}:\t${value}`),
    '',
  ].join('\n');
}

/** Table of how many chunks at least N images share. */
export function sharesText(shares: ChunkShares): string {
  const rows = ['Images at least:\tChunk Count:\tComp Size:\tUncomp Size:'];
  for (let least = 1; least <= SHARE_STEPS; least++) {
    let [count, comp, uncomp] = [0, 0, 0];
    for (const chunk of shares.values()) {
      if (chunk.images < least) continue;
      count += 1;
      comp += chunk.compressedSize;
      uncomp += chunk.uncompressedSize;
    }
    rows.push(`${least}:\t\t\t${count}\t\t${comp}\t\t${uncomp}`);
  }
  return `\n${rows.join('\n')}\n`;
}
