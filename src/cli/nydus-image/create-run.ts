// `nydus-image create`: checks, build, result. Source: nydus-image 2.3 to 2.6.
import { dirname } from 'node:path';
import type { BuildResult, CreateOptions } from '../../build/options.ts';
import type { CommandContext } from '../command.ts';
import { CommandFailure, chainOf } from '../report.ts';
import { checkBlobId, checkCreate, missingDirectory } from './create-checks.ts';
import type { CreateValues } from './create.ts';
import { openProgress } from './progress.ts';
import { readPrefetchList } from './prefetch-list.ts';
import { writeResultFile, resultDocument } from './result-file.ts';
import { checkConfigFile, openCommandLog } from './shared.ts';

/** The message that callers see at the end of a build (nydus-image 2.4). */
export function successMessage(result: BuildResult): string {
  const blobs = result.blobs.map((id) => JSON.stringify(id)).join(', ');
  return (
    'successfully built RAFS filesystem: \n' +
    `meta blob path: ${result.bootstrap === '' ? '<none>' : result.bootstrap}\n` +
    `data blob size: 0x${result.blobSize.toString(16)}\n` +
    `data blobs: [${blobs}]`
  );
}

/** What to do when an output cannot be written; undefined when that is not what failed. */
function outputHint(error: unknown, { bootstrap }: CreateOptions): string | undefined {
  for (const each of chainOf(error)) {
    const { code, path = '' } = each as { code?: string; path?: string };
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return 'free space where blobs and bootstrap are written, or name another place with --blob-dir and --bootstrap';
    // the draft of an output stands beside it
    if (code === 'ENOENT' && path.includes('.nydus-build.')) return missingDirectory(dirname(path));
    if (code === 'EISDIR' && path === bootstrap) return `${path} is a directory: name a file`;
  }
  return undefined;
}

/** @returns exit status */
export async function runCreate(ctx: CommandContext, values: CreateValues): Promise<number> {
  const log = openCommandLog(ctx, values);
  try {
    checkBlobId(values['blob-id']);
    const patterns = await readPrefetchList(ctx, values['prefetch-policy'], log);
    const options = checkCreate(values, patterns);
    checkConfigFile(values.config, log);
    const { createImage } = await import('../../build/create.ts');
    const view = await openProgress(ctx);
    let result: BuildResult;
    try {
      result = await createImage(options, { logger: log, signal: ctx.signal, progress: view.update });
    } catch (error) {
      const { DictionaryError } = await import('../../build/chunk-dict.ts');
      if (error instanceof DictionaryError) throw error;
      throw new CommandFailure('build failed', error, outputHint(error, options));
    } finally {
      view.stop();
    }
    if (values['output-json'] !== undefined) {
      // upstream names it for directories only, whether or not it exists (golden result.json)
      const named = result.bootstrap !== '' && options.type === 'dir-rafs';
      const externalBootstrap = named ? `${result.bootstrap}.external` : '';
      writeResultFile(values['output-json'], resultDocument({ ...result, externalBootstrap }));
    }
    log.info(successMessage(result));
    return 0;
  } finally {
    await log.close();
  }
}
