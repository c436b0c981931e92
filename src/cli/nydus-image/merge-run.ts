// `nydus-image merge`: checks, merge, result. Source: nydus-image 3.1 to 3.3.
import { statSync } from 'node:fs';
import { UsageError } from '../../base/errors.ts';
import { MAX_LAYERS } from '../../base/limits.ts';
import type { BuildResult, MergeOptions } from '../../build/options.ts';
import type { CommandContext } from '../command.ts';
import { chainOf } from '../report.ts';
import { checkChunkDict, missingDirectory } from './create-checks.ts';
import { successMessage } from './create-run.ts';
import type { MergeValues } from './merge.ts';
import { parseSize } from './numbers.ts';
import { readPrefetchList } from './prefetch-list.ts';
import { resultDocument, writeResultFile } from './result-file.ts';
import { checkConfigFile, openCommandLog } from './shared.ts';

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

function listOf(text: string | undefined, sources: number, what: string): string[] | undefined {
  if (text === undefined) return undefined;
  const items = text.split(',').map((item) => item.trim());
  if (items.length !== sources) {
    throw wrong(`number of ${what} entries ${items.length} doesn't match number of sources ${sources}`);
  }
  return items;
}

function sizesOf(
  text: string | undefined,
  sources: number,
  what: string,
  option: string,
): number[] | undefined {
  const items = listOf(text, sources, what);
  return items?.map((item) =>
    parseSize(item, `invalid number in --${option} option:`, Number.MAX_SAFE_INTEGER),
  );
}

/** Options of the merge that a parsed command line asks for. */
export function checkMerge(values: MergeValues, prefetchPatterns: string[]): MergeOptions {
  const sources = values.SOURCE;
  if (sources.length > MAX_LAYERS)
    throw wrong(`too many layers ${sources.length}, the limit is ${MAX_LAYERS}`);
  const count = sources.length;
  const blobDir = values['blob-dir'];
  if (values.bootstrap === undefined) {
    if (blobDir === undefined) {
      throw wrong(
        'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
      );
    }
    if (statSync(blobDir, { throwIfNoEntry: false })?.isDirectory() !== true) {
      throw wrong('Directory to store blobs does not exist', missingDirectory(blobDir));
    }
  }
  return {
    sources,
    bootstrap: values.bootstrap,
    blobDir,
    parentBootstrap: values['parent-bootstrap'],
    chunkDict: checkChunkDict(values['chunk-dict']),
    prefetchPolicy: values['prefetch-policy'],
    prefetchPatterns,
    blobDigests: listOf(values['blob-digests'], count, 'blob digest'),
    originalBlobIds: listOf(values['original-blob-ids'], count, 'original blob id'),
    blobSizes: sizesOf(values['blob-sizes'], count, 'blob size', 'blob-sizes'),
    blobTocDigests: listOf(values['blob-toc-digests'], count, 'toc digest'),
    blobTocSizes: sizesOf(values['blob-toc-sizes'], count, 'toc size', 'blob-toc-sizes'),
    trustIds: values.config !== undefined,
  };
}

/** The refusal of layers that do not fit together: callers retry without cache and dictionary when they see exit 2. */
function inconsistency(error: unknown): string | undefined {
  const found = chainOf(error).find(
    (e) => e instanceof Error && e.message.startsWith('Inconsistent RAFS Filesystem'),
  );
  return found instanceof Error ? found.message : undefined;
}

/** @returns exit status; 2 when the sources are inconsistent (nydus-image 1.2) */
export async function runMerge(ctx: CommandContext, values: MergeValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    const patterns = await readPrefetchList(ctx, values['prefetch-policy'], log);
    checkConfigFile(values.config, log);
    const options = checkMerge(values, patterns);
    const { mergeImages } = await import('../../build/merge.ts');
    let result: BuildResult;
    try {
      result = await mergeImages(options, { logger: log, signal: ctx.signal, progress: () => {} });
    } catch (error) {
      const text = inconsistency(error);
      if (text === undefined) throw error;
      log.error(`message:${text}`);
      return 2;
    }
    if (values['output-json'] !== undefined) writeResultFile(values['output-json'], resultDocument(result));
    log.info(successMessage(result));
    return 0;
  } finally {
    await log.close();
  }
}
