// `chunkdict generate`: a bootstrap whose one file is made of the chunks that images share. No data is copied: its blobs
// are theirs. Source: nydus-image-and-nydusify.md 5.5; blob-and-cache.md 16.8.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { BlobFeature, S_IFDIR, S_IFREG } from '../../format/flags.ts';
import { newNode, type TreeBlob, type TreeNode } from '../../tree/node.ts';
import { writeWholeFile } from '../blob-output.ts';
import { writeBootstrap } from '../bootstrap.ts';
import { checkTraits, traitsOf } from '../compatibility.ts';
import { openMergeSource, type MergeSource } from '../merge-source.ts';
import type { BuildResult } from '../options.ts';
import { saveSources } from './database.ts';
import { loadSource } from './rows.ts';
import { selectChunks, type SelectedChunk } from './select.ts';

export interface ChunkdictOptions {
  sources: readonly string[];
  /** `sqlite://` and an absolute path, or `:memory:` */
  database: string;
  /** undefined: named by its digest in `blobDir` */
  bootstrap: string | undefined;
  blobDir: string | undefined;
}

function node(name: string, mode: number): TreeNode {
  return { ...newNode(Buffer.from(name), mode, 0), sourceIno: mode };
}

/** Each chunk has a chunk's place of its own in the file, the rest of it is a hole: the file can be read. */
function treeOf(chunks: readonly SelectedChunk[], chunkSize: number): { root: TreeNode; blobs: TreeBlob[] } {
  const rows = new Map<string, number>();
  const blobs: TreeBlob[] = [];
  const file = node('chunkdict', S_IFREG | 0o644);
  for (const { source, chunk } of chunks) {
    const blob = source.blobs[chunk.blobIndex] as TreeBlob;
    let row = rows.get(blob.id);
    if (row === undefined) {
      row = blobs.push({ ...blob, features: (blob.features | BlobFeature.isChunkdictGenerated) >>> 0 }) - 1;
      rows.set(blob.id, row);
    }
    const fileOffset = file.chunks.length * chunkSize;
    file.chunks.push({ ...chunk, blobIndex: row, fileOffset });
    file.size = fileOffset + chunk.uncompressedSize;
  }
  const root = node('', S_IFDIR | 0o755);
  root.children = [file];
  return { root, blobs };
}

/** @throws UsageError exit 1, in upstream's words; exit 2: chunk sizes or ids do not fit together */
function checkSources(sources: readonly MergeSource[], show: (line: string) => void): void {
  const [first] = sources;
  if (first === undefined) throw new UsageError('no bootstrap was given', { exitCode: 1 });
  if (sources.some(({ image }) => image.super.version !== first.image.super.version)) {
    for (const { path, image } of sources)
      show(`Bootstrap path ${JSON.stringify(path)} has version V${image.super.version}`);
    throw new UsageError('Bootstrap versions are inconsistent, cannot use chunkdict.', { exitCode: 1 });
  }
  const traits = traitsOf(first.image);
  const { version } = first.image.super;
  for (const { image } of sources) {
    const found = traitsOf(image);
    checkTraits(version === 5 ? traits : { ...traits, compressor: found.compressor }, found);
    if (found.digester !== traits.digester)
      throw new UsageError(
        `Bootstraps with digests ${traits.digester} and ${found.digester} have no chunk in common, cannot use chunkdict.`,
        { exitCode: 1 },
      );
  }
}

/**
 * Make a dictionary.
 *
 * @param show  takes lines for standard output
 * @throws UsageError, FormatError  a source or the database cannot be used
 */
export async function generateChunkdict(
  options: ChunkdictOptions,
  logger: Logger,
  show: (line: string) => void,
): Promise<BuildResult> {
  const started = performance.now();
  const opened: MergeSource[] = [];
  for (const path of options.sources) opened.push(await openMergeSource(path));
  checkSources(opened, show);
  const sources = opened.map(({ path, image }) => loadSource(path, image));
  const loaded = performance.now();
  saveSources(options.database, sources);
  const { chunks, alone } = selectChunks(sources);
  if (alone.length > 0)
    logger.info(
      `It is not recommended to use image deduplication for ${alone.join(', ')}: nothing is shared`,
    );
  const { version, chunkSize, compressor, digester, explicitUidGid } = (opened[0] as MergeSource).image.super;
  const { root, blobs } = treeOf(chunks, chunkSize);
  const bytes = writeBootstrap(root, blobs, {
    version,
    chunkSize,
    compressor,
    digester,
    explicitUidGid,
    prefetchPatterns: [],
  });
  const named = createHash('sha256').update(bytes).digest('hex');
  const bootstrap = options.bootstrap ?? join(options.blobDir ?? '', named);
  await writeWholeFile(bootstrap, bytes);
  logger.info(`chunk dictionary of ${chunks.length} chunks in ${blobs.length} blobs`);
  return {
    bootstrap,
    blobs: blobs.map(({ id }) => id),
    version,
    compressor,
    blobSize: 0,
    consumedTime: {
      load_tree_from_bootstrap: (loaded - started) / 1000,
      dump_bootstrap: (performance.now() - loaded) / 1000,
    },
    events: {},
  };
}
