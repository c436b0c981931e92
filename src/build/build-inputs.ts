// The other images a build starts from: a parent whose tree it is laid over, a dictionary whose chunks it may refer to.
// Source: rafs-metadata.md 6.3 and 6.5, blob-and-cache.md 16.
import { UsageError } from '../base/errors.ts';
import { openBootstrap, type OpenedBootstrap } from '../rafs/open.ts';
import type { TreeBlob, TreeNode } from '../tree/node.ts';
import type { BuildTrace } from './build-trace.ts';
import {
  chunkDictionary,
  openBuildDictionary,
  parseChunkDictArgument,
  type ChunkDictionary,
} from './chunk-dict.ts';
import { checkTraits, traitsOf } from './compatibility.ts';
import { importBlob } from './import-blob.ts';
import { loadImage } from './load-image.ts';
import type { CreateOptions } from './options.ts';

/** A parent image, read; `opened` must be closed, its bytes may be mapped. */
export interface ParentImage {
  opened: OpenedBootstrap;
  root: TreeNode;
  blobs: TreeBlob[];
}

export interface BuildInputs {
  parent: ParentImage | undefined;
  dictionary: ChunkDictionary | undefined;
}

/** Stored sizes of a batch blob have 24 bits (blob-and-cache 4.3): chunk sizes below 2^24 fit whatever they hold. */
const MAX_BATCH_CHUNK_SIZE = 8 * 1024 * 1024;

/**
 * Open them, and refuse what does not go together before anything is written.
 *
 * @throws UsageError   in upstream's words
 * @throws FormatError  an image breaks its format
 */
export async function openInputs(options: CreateOptions, trace: BuildTrace): Promise<BuildInputs> {
  const { version, chunkSize, batchSize, digester, compressor, repeatable, parentBootstrap, chunkDict } =
    options;
  if (batchSize > 0 && chunkSize > MAX_BATCH_CHUNK_SIZE) {
    throw new UsageError(
      `chunks of ${chunkSize} bytes do not go with batches: a chunk that does not shrink has no place in the compression information, limit ${MAX_BATCH_CHUNK_SIZE}`,
      { exitCode: 1, hint: 'use a smaller --chunk-size, or --batch-size 0' },
    );
  }
  const traits = { version, chunkSize, digester, compressor, explicitUidGid: !repeatable, tarfs: false };
  let dictionary: ChunkDictionary | undefined;
  if (chunkDict !== undefined) {
    const path = parseChunkDictArgument(chunkDict);
    dictionary = await trace.measure('import_chunk_dict', () => {
      const image = openBuildDictionary(path, traits);
      return chunkDictionary(image, path, digester);
    });
  }
  if (parentBootstrap === undefined) return { parent: undefined, dictionary };
  const opened = openBootstrap(parentBootstrap);
  try {
    checkTraits(traits, traitsOf(opened.image));
    const { root, blobs } = await trace.measure('load_tree_from_bootstrap', () => loadImage(opened.image, 0));
    const imported = blobs.map((blob) => importBlob(blob, parentBootstrap));
    return { parent: { opened, root, blobs: imported }, dictionary };
  } catch (error) {
    opened.close();
    throw error;
  }
}
