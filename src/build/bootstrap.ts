// From a finished tree and its blob table to the bytes of a bootstrap, either version. Used by create and merge.
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';
import { encodeBootstrap5 } from '../format/rafs5/writer.ts';
import { encodeBootstrap6 } from '../format/rafs6/writer.ts';
import type { TreeBlob, TreeNode } from '../tree/node.ts';
import { numberTree, type NumberedTree } from './numbering.ts';
import { prefetchTable } from './prefetch-table.ts';

export interface BootstrapOptions {
  version: 5 | 6;
  chunkSize: number;
  compressor: CompressorName;
  digester: DigesterName;
  /** false for repeatable builds: ids are not stored */
  explicitUidGid: boolean;
  /** v6: set HAS_XATTR even without xattrs, as merged images have it */
  alwaysHasXattr?: boolean;
  /** v6: some blob is encrypted */
  encrypted?: boolean;
  /** absolute paths of the *fs* prefetch policy, filtered; [] for every other policy */
  prefetchPatterns: readonly string[];
}

/**
 * The bytes of a bootstrap. Numbers the tree (index, ino, nlink of every node) unless `numbered` is given.
 *
 * @param blobs blob table in order; `blobIndex` of the chunks points into it
 * @throws UsageError  a count or size is beyond what the format holds
 */
export function writeBootstrap(
  root: TreeNode,
  blobs: readonly TreeBlob[],
  options: BootstrapOptions,
  numbered: NumberedTree = numberTree(root),
): Buffer {
  const prefetch = prefetchTable(root, options.prefetchPatterns);
  return options.version === 5
    ? encodeBootstrap5(numbered, blobs, options, prefetch)
    : encodeBootstrap6(numbered, blobs, options, prefetch);
}
