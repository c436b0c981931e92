// A tiny image to try drivers with: one file `probe` of one chunk. Source: rafs-metadata.md 4, blob-and-cache.md 4.
import { crc32c } from '../../codec/crc32c.ts';
import { digestOf } from '../../codec/digest.ts';
import { encodeCiEntryV1, encodeCiHeader } from '../../format/blobmeta/writer.ts';
import { BlobFeature, ChunkFlag, S_IFDIR, S_IFREG } from '../../format/flags.ts';
import { encodeBootstrap6 } from '../../format/rafs6/writer.ts';
import { plainNode, type WriterBlob, type WriterChunk } from '../../format/writer-input.ts';

export const PROBE_FILE = 'probe';
const SIZE = 4096;

export interface ProbeImage {
  bootstrap: Buffer;
  blob: Buffer;
  blobId: string;
  /** content of the file, which is the whole plain data of the blob */
  content: Buffer;
}

/** Make it. @param seed different content for each */
export function probeImage(seed: number): ProbeImage {
  const content = Buffer.alloc(SIZE, `nydusd looks whether this driver works here, ${seed}. `);
  const place = { compressedOffset: 0, uncompressedOffset: 0, compressedSize: SIZE, uncompressedSize: SIZE };
  const chunk: WriterChunk = {
    ...place,
    digest: digestOf('blake3', content),
    blobIndex: 0,
    flags: ChunkFlag.hasCrc32,
    fileOffset: 0,
    index: 0,
    crc32: crc32c(content),
  };
  const ci = encodeCiEntryV1(place);
  const features = BlobFeature.capTarToc | BlobFeature.aligned;
  const header = encodeCiHeader({
    features,
    ciCompressor: 0,
    ciEntries: 1,
    ciOffset: SIZE,
    ciCompressedSize: ci.length,
    ciUncompressedSize: ci.length,
    ctxOffset: 0,
    ctxSize: 0,
    ctxCount: 0,
  });
  const blob = Buffer.concat([content, ci, header]);
  const blobId = digestOf('sha256', blob).toString('hex');
  const row: WriterBlob = {
    id: blobId,
    chunkCount: 1,
    chunkSize: SIZE,
    features,
    compressor: 'none',
    digester: 'blake3',
    compressedSize: blob.length,
    uncompressedSize: SIZE,
    tocSize: 0,
    tocDigest: new Uint8Array(32),
    metaDigest: new Uint8Array(32),
    metaSize: new Uint8Array(8),
    cipherIv: new Uint8Array(8),
    cipher: 0,
    ciCompressor: 0,
    ciOffset: SIZE,
    ciCompressedSize: ci.length,
    ciUncompressedSize: ci.length,
    readaheadOffset: 0,
    readaheadSize: 0,
  };
  const file = { ...plainNode(PROBE_FILE, S_IFREG | 0o444, 2), mtime: 1, size: SIZE, chunks: [chunk] };
  const root = { ...plainNode('', S_IFDIR | 0o755, 1), mtime: 1, nlink: 2, children: [file] };
  const tree = {
    nodes: [root, file],
    parents: Uint32Array.from([0, 0, 1]),
    childIndexes: Uint32Array.from([0, 2, 0]),
    inodes: 2,
  };
  const facts = { chunkSize: SIZE, compressor: 'none', digester: 'blake3', explicitUidGid: true } as const;
  return { bootstrap: Buffer.from(encodeBootstrap6(tree, [row], facts, [])), blob, blobId, content };
}
