// Images with everything set to zero that follows from compressed bytes: sizes, offsets, flags, ids, digests over stored
// bytes. Two builds of one input have the same normal form whatever versions their codecs have.
import { viewOf } from '../../base/bytes.ts';
import { COMPRESSORS, type CompressorName } from '../../codec/algorithms.ts';
import { decompress } from '../../codec/compress.ts';
import { digestOf } from '../../codec/digest.ts';
import { CI_HEADER_SIZE, ciHeader } from '../../format/blobmeta/layout.ts';
import { openCi } from '../../format/blobmeta/reader.ts';
import { chunkRecord } from '../../format/chunk-record.ts';
import { openImage } from '../../format/detect.ts';
import { BlobFeature, ChunkFlag, S_IFMT, S_IFREG } from '../../format/flags.ts';
import type { BlobInfo, RafsImage } from '../../format/image.ts';
import { blobEntry5, extendedBlob5, INODE5_SIZE, inode5, superblock5 } from '../../format/rafs5/layout.ts';
import {
  blobRecord6,
  DEVICE_SLOTS_OFFSET,
  deviceSlot6,
  EXTENDED_SUPER_OFFSET,
  extendedSuper6,
} from '../../format/rafs6/layout.ts';
import { Section } from '../../format/toc/layout.ts';
import { parseToc, decodeSection, findSection, trailingBootstrap, tocTail } from '../../format/toc/reader.ts';

function maskChunk(view: DataView, at: number): void {
  chunkRecord.put.compressedSize(view, at, 0);
  chunkRecord.put.compressedOffset(view, at, 0);
  chunkRecord.put.flags(view, at, (chunkRecord.field.flags(view, at) & ~ChunkFlag.compressed) >>> 0);
}

function normalBootstrap6(view: DataView, blobs: readonly BlobInfo[]): void {
  const table = extendedSuper6.field.blobTableOffset(view, EXTENDED_SUPER_OFFSET);
  blobs.forEach((blob, i) => {
    const row = table + i * blobRecord6.size;
    if (blob.id.length === 64) {
      deviceSlot6.put.tag(view, DEVICE_SLOTS_OFFSET + i * deviceSlot6.size, '');
      blobRecord6.put.blobId(view, row, Buffer.alloc(64));
    }
    blobRecord6.put.compressedSize(view, row, 0);
    blobRecord6.put.ciOffset(view, row, 0);
    blobRecord6.put.ciCompressedSize(view, row, 0);
    blobRecord6.put.ciCompressor(view, row, 0);
    blobRecord6.put.tocDigest(view, row, Buffer.alloc(32));
  });
  const chunks = extendedSuper6.field.chunkTableOffset(view, EXTENDED_SUPER_OFFSET);
  const size = extendedSuper6.field.chunkTableSize(view, EXTENDED_SUPER_OFFSET);
  for (let at = chunks; at < chunks + size; at += chunkRecord.size) maskChunk(view, at);
}

function normalBootstrap5(bytes: Buffer, view: DataView, blobs: readonly BlobInfo[]): void {
  let at = superblock5.field.blobTableOffset(view, 0);
  const extended = superblock5.field.extendedBlobTableOffset(view, 0);
  blobs.forEach((blob, i) => {
    blobEntry5.put.readaheadSize(view, at, blob.readaheadSize === 0 ? 0 : 1);
    const id = at + blobEntry5.size;
    const length = Buffer.byteLength(blob.id);
    if (length === 64) bytes.fill(0, id, id + length);
    at = id + length + 1;
    extendedBlob5.put.compressedSize(view, extended + i * extendedBlob5.size, 0);
  });
  const table = superblock5.field.inodeTableOffset(view, 0);
  for (let i = 0; i < superblock5.field.inodeTableEntries(view, 0); i++) {
    const record = view.getUint32(table + 4 * i, true) * 8;
    const inode = inode5.read(view, record);
    if ((inode.mode & S_IFMT) !== S_IFREG) continue;
    let chunk =
      record + INODE5_SIZE + Math.ceil(inode.nameSize / 8) * 8 + Math.ceil(inode.symlinkSize / 8) * 8;
    if ((inode.flags & 4) !== 0) chunk += 8 + Math.ceil(view.getUint32(chunk, true) / 8) * 8;
    for (let k = 0; k < inode.childCount; k++) maskChunk(view, chunk + k * chunkRecord.size);
  }
}

/** Normal form of a bootstrap. */
export function normalBootstrap(bootstrap: Uint8Array): Buffer {
  const bytes = Buffer.from(bootstrap);
  const image = openImage(Buffer.from(bootstrap));
  const view = viewOf(bytes);
  if (image.super.version === 6) normalBootstrap6(view, image.blobs);
  else normalBootstrap5(bytes, view, image.blobs);
  return bytes;
}

/** Bootstrap inside a blob, decoded; undefined when there is none. */
export function embeddedBootstrap(blob: Uint8Array): Uint8Array | undefined {
  const range = tocTail(blob.length);
  const tail = blob.subarray(range.start, range.end);
  const toc = parseToc(tail, blob.length);
  const entry = toc === undefined ? undefined : findSection(toc, Section.bootstrap);
  if (entry !== undefined) {
    return decodeSection(
      entry,
      blob.subarray(entry.compressedOffset, entry.compressedOffset + entry.compressedSize),
      1 << 30,
    );
  }
  const trailing = trailingBootstrap(tail, blob.length);
  return trailing === undefined ? undefined : blob.subarray(trailing.start, trailing.end);
}

/** What a blob holds, without what follows from compressed bytes: one line a fact. */
export function blobFacts(blob: Uint8Array, image: RafsImage): string[] {
  const facts: string[] = [];
  const info = image.blobs.find((row) => (row.features & BlobFeature.external) === 0);
  if (info !== undefined && info.ciUncompressedSize > 0) facts.push(...ciFacts(blob, info));
  const tail = tocTail(blob.length);
  const toc = parseToc(blob.subarray(tail.start, tail.end), blob.length);
  for (const entry of toc?.entries ?? []) {
    // digests of plain sections stand, those over stored bytes or over the header do not
    const plain = entry.name === Section.digest;
    facts.push(
      `toc ${entry.name} ${entry.uncompressedSize} ${plain ? Buffer.from(entry.digest).toString('hex') : ''}`,
    );
  }
  return facts;
}

function ciFacts(blob: Uint8Array, info: BlobInfo): string[] {
  const facts: string[] = [];
  const end = info.ciOffset + info.ciCompressedSize;
  const data = blob.subarray(info.ciOffset, end);
  const plain = decompress(info.ciCompressor, data, info.ciUncompressedSize);
  const header = ciHeader.read(viewOf(blob), end);
  facts.push(
    `header ${end + CI_HEADER_SIZE <= blob.length} ${header.magic} ${header.magic2} ${header.features} ${header.ciEntries} ${header.ciUncompressedSize} ${header.ctxOffset} ${header.ctxSize} ${header.ctxCount} ${COMPRESSORS[header.ciCompressor] === info.ciCompressor} ${header.ciOffset === info.ciOffset} ${header.ciCompressedSize === info.ciCompressedSize}`,
  );
  const table = openCi(plain, header, info);
  for (let i = 0; i < table.count; i++) {
    const batch = table.isBatch(i);
    const context = batch ? table.batchIndex(i) : 0;
    const stored = batch ? table.batchCompressedSize(context) : table.compressedSize(i);
    const size = batch ? table.batchUncompressedSize(context) : table.uncompressedSize(i);
    const start = table.compressedOffset(i);
    const bytes = inflate(info.compressor, blob.subarray(start, start + stored), size);
    const from = batch ? table.batchOffset(i) : 0;
    const chunk = bytes.subarray(from, from + table.uncompressedSize(i));
    const digest = digestOf(info.digester, chunk).toString('hex');
    facts.push(
      `chunk ${i} ${table.uncompressedOffset(i)} ${chunk.length} batch ${batch} ${context} ${from} ${digest}`,
    );
  }
  return facts;
}

function inflate(compressor: CompressorName, stored: Uint8Array, size: number): Uint8Array {
  return stored.length === size ? stored : decompress(compressor, stored, size);
}
