// Builds a small image in memory for tests and benchmarks of the read path: one directory of files, one blob.
// Not the builder: chunks are stored in file order without deduplication.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CompressorName } from '../../src/codec/algorithms.ts';
import { COMPRESSORS } from '../../src/codec/algorithms.ts';
import { compress } from '../../src/codec/compress.ts';
import { crc32c } from '../../src/codec/crc32c.ts';
import { digestOf } from '../../src/codec/digest.ts';
import { encodeCiEntryV1, encodeCiHeader } from '../../src/format/blobmeta/writer.ts';
import { BlobFeature, ChunkFlag, S_IFDIR, S_IFREG } from '../../src/format/flags.ts';
import { encodeBootstrap5 } from '../../src/format/rafs5/writer.ts';
import { encodeBootstrap6 } from '../../src/format/rafs6/writer.ts';
import type { WriterBlob, WriterChunk, WriterNode } from '../../src/format/writer-input.ts';

export interface MadeImage {
  bootstrap: string;
  blobDir: string;
  blobId: string;
  blobPath: string;
  /** stored range of each chunk, by chunk index */
  chunks: { offset: number; size: number; plainOffset: number; plainSize: number }[];
}

export interface MadeFile {
  name: string;
  data: Uint8Array;
}

/** Bytes that compress to about half and differ from seed to seed. */
export function sampleData(size: number, seed: number): Buffer {
  const out = Buffer.alloc(size);
  let state = (seed * 2654435761 + 1) >>> 0;
  for (let at = 0; at < size; at++) {
    if (at % 2 === 0) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      out[at] = state >>> 24;
    } else out[at] = 0x61 + ((at >> 4) % 7);
  }
  return out;
}

/** Write bootstrap and blob below `dir`. */
export function makeImage(
  dir: string,
  files: readonly MadeFile[],
  options: { version: 5 | 6; compressor: CompressorName; chunkSize?: number },
): MadeImage {
  const { version, compressor } = options;
  const chunkSize = options.chunkSize ?? 0x10000;
  const stored: Uint8Array[] = [];
  const chunks: MadeImage['chunks'] = [];
  let compressedOffset = 0;
  let uncompressedOffset = 0;
  const entries: Buffer[] = [];
  const nodes: WriterNode[] = [...files]
    .sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
    .map((file, at) => {
      const list: WriterChunk[] = [];
      for (let from = 0; from < file.data.length; from += chunkSize) {
        const plain = file.data.subarray(from, from + chunkSize);
        const packed = compress(compressor, plain);
        const bytes = packed ?? plain;
        const index = chunks.length;
        const place = {
          compressedOffset,
          uncompressedOffset,
          compressedSize: bytes.length,
          uncompressedSize: plain.length,
        };
        list.push({
          ...place,
          digest: digestOf('blake3', plain),
          blobIndex: 0,
          flags: (packed === undefined ? 0 : ChunkFlag.compressed) | ChunkFlag.hasCrc32,
          fileOffset: from,
          index,
          crc32: crc32c(plain),
        });
        chunks.push({
          offset: compressedOffset,
          size: bytes.length,
          plainOffset: uncompressedOffset,
          plainSize: plain.length,
        });
        if (version === 6) entries.push(encodeCiEntryV1(place));
        stored.push(bytes);
        compressedOffset += bytes.length;
        uncompressedOffset += version === 6 ? Math.ceil(plain.length / 4096) * 4096 : plain.length;
      }
      return fileNode(Buffer.from(file.name), file.data.length, list, at + 2);
    });
  const root: WriterNode = {
    ...fileNode(Buffer.alloc(0), 0, [], 1),
    mode: S_IFDIR | 0o755,
    nlink: 2,
    children: nodes,
  };
  const ci = Buffer.concat(entries);
  const features = BlobFeature.capTarToc | (version === 6 ? BlobFeature.aligned : 0);
  const ciFacts = {
    features,
    ciCompressor: 0,
    ciEntries: chunks.length,
    ciOffset: version === 6 ? compressedOffset : 0,
    ciCompressedSize: ci.length,
    ciUncompressedSize: ci.length,
    ctxOffset: 0,
    ctxSize: 0,
    ctxCount: 0,
  };
  const blobBytes = Buffer.concat(version === 6 ? [...stored, ci, encodeCiHeader(ciFacts)] : stored);
  const blobId = digestOf('sha256', blobBytes).toString('hex');
  const blob: WriterBlob = {
    id: blobId,
    chunkCount: chunks.length,
    chunkSize,
    features,
    compressor,
    digester: 'blake3',
    compressedSize: blobBytes.length,
    uncompressedSize: uncompressedOffset,
    tocSize: 0,
    tocDigest: new Uint8Array(32),
    metaDigest: new Uint8Array(32),
    metaSize: new Uint8Array(8),
    cipherIv: new Uint8Array(8),
    cipher: 0,
    ciCompressor: COMPRESSORS.indexOf('none'),
    ciOffset: ciFacts.ciOffset,
    ciCompressedSize: ci.length,
    ciUncompressedSize: ci.length,
    readaheadOffset: 0,
    readaheadSize: 0,
  };
  const all = [root, ...nodes];
  const tree = {
    nodes: all,
    parents: Uint32Array.from([0, 0, ...nodes.map(() => 1)]),
    childIndexes: Uint32Array.from([0, 2, ...nodes.map(() => 0)]),
    inodes: all.length,
  };
  const encode = version === 6 ? encodeBootstrap6 : encodeBootstrap5;
  const facts = { chunkSize, compressor, digester: 'blake3', explicitUidGid: true } as const;
  const blobDir = join(dir, 'blobs');
  mkdirSync(blobDir, { recursive: true });
  const bootstrap = join(dir, 'bootstrap');
  writeFileSync(bootstrap, encode(tree, [blob], facts, []));
  const blobPath = join(blobDir, blobId);
  writeFileSync(blobPath, blobBytes);
  return { bootstrap, blobDir, blobId, blobPath, chunks };
}

function fileNode(name: Buffer, size: number, chunks: WriterChunk[], index: number): WriterNode {
  return {
    name,
    mode: S_IFREG | 0o644,
    uid: 0,
    gid: 0,
    mtime: 1,
    mtimeNsec: 0,
    size,
    rdev: 0,
    chunks,
    index,
    ino: index,
    nlink: 1,
  };
}
