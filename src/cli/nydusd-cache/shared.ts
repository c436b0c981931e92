// What the commands of `nydusd cache` have in common.
import { statSync } from 'node:fs';
import { UsageError } from '../../base/errors.ts';
import { listCache, type CachedBlob } from '../../storage/cache/cache-dir.ts';
import type { CommandContext, Options } from '../command.ts';

export const cacheOptions = {
  'work-dir': {
    type: 'string',
    short: 'w',
    required: true,
    value: 'DIR',
    help: 'the cache directory: work_dir of the configuration',
  },
  output: {
    type: 'string',
    short: 'o',
    default: 'table',
    values: ['table', 'json'],
    help: 'how the result is printed',
  },
} as const satisfies Options;

/** The blobs of a cache directory. @throws UsageError exit 1 when it is none */
export function readCacheDir(dir: string): CachedBlob[] {
  if (statSync(dir, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new UsageError(`${dir} is not a directory`, {
      exitCode: 1,
      hint: 'name the work_dir of the cache with --work-dir',
    });
  }
  return listCache(dir);
}

/** The blob whose id begins with a text. @throws UsageError exit 1 when there is none, or several */
export function findBlob(blobs: readonly CachedBlob[], start: string): CachedBlob {
  const found = blobs.filter(({ blobId }) => blobId.startsWith(start));
  const [blob] = found;
  if (blob !== undefined && found.length === 1) return blob;
  const problem = found.length === 0 ? 'no blob begins with' : `${found.length} blobs begin with`;
  throw new UsageError(`${problem} ${start}`, { exitCode: 1, hint: 'see `nydusd cache ls`' });
}

export function print(ctx: CommandContext, output: string, value: unknown, text: () => string): void {
  ctx.stdout.write(output === 'json' ? `${JSON.stringify(value, undefined, 2)}\n` : text());
}
