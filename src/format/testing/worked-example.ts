// The tree of the worked examples as the writers get it. Source: rafs-metadata.md 8.3 and 8.4.
import { ChunkFlag, S_IFDIR, S_IFLNK, S_IFREG } from '../flags.ts';
import {
  plainNode,
  type WriterBlob,
  type WriterChunk,
  type WriterNode,
  type WriterOptions,
  type WriterTree,
} from '../writer-input.ts';

const CHUNK: WriterChunk = {
  digest: Buffer.from('5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03', 'hex'),
  blobIndex: 0,
  flags: ChunkFlag.hasCrc32,
  compressedSize: 6,
  uncompressedSize: 6,
  compressedOffset: 0,
  uncompressedOffset: 0,
  fileOffset: 0,
  index: 0,
  crc32: 0x353dd8be,
};

function node(index: number, name: string, mode: number, more: Partial<WriterNode>): WriterNode {
  return { ...plainNode(name, mode, index), ...more };
}

/** `/`, `/d`, `/s` -> `d/f`, `/d/f` with an xattr, `/d/h` a hard link to it. */
export function exampleTree(): WriterTree {
  const file: Partial<WriterNode> = {
    uid: 1000,
    gid: 1001,
    mtime: 1_700_000_001,
    mtimeNsec: 5,
    size: 6,
    xattrs: new Map([['user.k', Buffer.from('v')]]),
    chunks: [CHUNK],
    ino: 4,
    nlink: 2,
  };
  const f = node(4, 'f', S_IFREG | 0o644, file);
  const h = node(5, 'h', S_IFREG | 0o644, file);
  const d = node(2, 'd', S_IFDIR | 0o755, { mtime: 1_700_000_000, nlink: 2, children: [f, h] });
  const s = node(3, 's', S_IFLNK | 0o777, { mtime: 1_700_000_002, size: 3, target: Buffer.from('d/f') });
  const root = node(1, '', S_IFDIR | 0o755, { nlink: 3, children: [d, s] });
  return {
    nodes: [root, d, s, f, h],
    parents: Uint32Array.of(0, 0, 1, 1, 2, 2),
    childIndexes: Uint32Array.of(0, 2, 4, 0, 0, 0),
    inodes: 4,
  };
}

export const EXAMPLE_OPTIONS: WriterOptions = {
  chunkSize: 0x10_0000,
  compressor: 'none',
  digester: 'sha256',
  explicitUidGid: true,
};

/** The one row of the blob table, for either version. */
export function exampleBlob(version: 5 | 6): WriterBlob {
  const common = {
    chunkCount: 1,
    chunkSize: 0x10_0000,
    compressor: 'none',
    digester: 'sha256',
    tocSize: 0,
    tocDigest: Buffer.alloc(32),
    metaDigest: Buffer.alloc(32),
    metaSize: Buffer.alloc(8),
    cipherIv: Buffer.alloc(8),
    cipher: 0,
    ciCompressor: 0,
    readaheadOffset: 0,
    readaheadSize: 0,
  } as const;
  if (version === 5) {
    return {
      ...common,
      id: '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03',
      features: 0x4000_0000,
      compressedSize: 6,
      uncompressedSize: 6,
      ciOffset: 0,
      ciCompressedSize: 0,
      ciUncompressedSize: 0,
    };
  }
  return {
    ...common,
    id: '350fea00b001c21bc5901eeb0cf2a04ab7a282b23fefce94b5b01c809a0fd779',
    features: 0x4000_0001,
    compressedSize: 4118,
    uncompressedSize: 4096,
    ciOffset: 6,
    ciCompressedSize: 16,
    ciUncompressedSize: 16,
  };
}
