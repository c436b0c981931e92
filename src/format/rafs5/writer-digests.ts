// Inode digests of a v5 bootstrap, computed bottom-up. Source: rafs-metadata.md 3.9.
import { digestOf } from '../../codec/digest.ts';
import type { DigesterName } from '../../codec/algorithms.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../flags.ts';
import type { WriterTree } from '../writer-input.ts';

const DIGEST_SIZE = 32;

/** 32 bytes for each entry, addressed by index (slot 0 unused). */
export function inodeDigests(tree: WriterTree, digester: DigesterName): Buffer {
  const { nodes, childIndexes } = tree;
  const digests = Buffer.alloc((nodes.length + 1) * DIGEST_SIZE);
  const empty = digestOf(digester, Buffer.alloc(0));
  let scratch = Buffer.alloc(DIGEST_SIZE * 64);
  // children have larger indexes than their directory: from the back, they are ready when it needs them
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i];
    if (node === undefined) continue;
    const at = node.index * DIGEST_SIZE;
    switch (node.mode & S_IFMT) {
      case S_IFDIR: {
        const first = (childIndexes[node.index] as number) * DIGEST_SIZE;
        const count = node.children?.length ?? 0;
        digests.set(
          count === 0 ? empty : digestOf(digester, digests.subarray(first, first + count * DIGEST_SIZE)),
          at,
        );
        break;
      }
      case S_IFREG: {
        const { chunks } = node;
        if (chunks.length * DIGEST_SIZE > scratch.length) scratch = Buffer.alloc(chunks.length * DIGEST_SIZE);
        chunks.forEach((chunk, k) => scratch.set(chunk.digest, k * DIGEST_SIZE));
        digests.set(
          chunks.length === 0 ? empty : digestOf(digester, scratch.subarray(0, chunks.length * DIGEST_SIZE)),
          at,
        );
        break;
      }
      case S_IFLNK:
        digests.set(digestOf(digester, node.target ?? Buffer.alloc(0)), at);
        break;
      default:
        digests.set(empty, at);
    }
  }
  return digests;
}
