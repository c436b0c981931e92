// `nydusd cache gc`: deletes unused blobs until a cache directory is small enough.
import { UsageError } from '../../base/errors.ts';
import { formatSize, parseSize } from '../../base/size.ts';
import { evictBlobs } from '../../storage/cache/evict.ts';
import { command } from '../command.ts';
import { tableText } from '../table.ts';
import { dedupOptions, withRows } from './dedup.ts';
import { cacheOptions, print, readCacheDir } from './shared.ts';

const COLUMNS = [{ title: 'BLOB' }, { title: 'SIZE', right: true }, { title: 'RESULT' }];

export const gc = command({
  name: 'nydusd cache gc',
  summary: 'Delete the blobs used least recently until a cache directory is small enough',
  description:
    'Blobs that a daemon uses, that are pinned or that the kernel has mounted stay. With --dedup-db the chunks of what is deleted are forgotten there first, and so are files that somebody else has deleted. A daemon whose configuration has `max_size` does this by itself, and takes cold chunks out of the blobs it serves as well.',
  options: {
    ...cacheOptions,
    ...dedupOptions,
    'max-size': {
      type: 'string',
      required: true,
      value: 'SIZE',
      help: 'bytes that may stay, or text like 10GiB; 0 deletes all that may go',
    },
    'dry-run': { type: 'flag', short: 'n', help: 'only say what would be done' },
  },
  examples: [
    'nydusd cache gc --work-dir /var/lib/nydus/cache --max-size 10GiB',
    'nydusd cache gc --work-dir /var/lib/nydus/cache --max-size 0 --dry-run --output json',
  ],
  run: async (ctx, values) => {
    const maxBytes = parseSize(values['max-size']);
    if (maxBytes === undefined) {
      throw new UsageError(`--max-size ${values['max-size']} is no size`, {
        exitCode: 1,
        hint: 'write a number of bytes, or 500MiB, 10GiB',
      });
    }
    readCacheDir(values['work-dir']);
    const dir = values['work-dir'];
    const result = await withRows(ctx, values['dedup-db'], dir, (rows) => {
      const deleting = (blobId: string): void => rows?.forget(blobId);
      const done = evictBlobs(dir, { maxBytes, dryRun: values['dry-run'], deleting });
      if (!values['dry-run']) rows?.prune();
      return done;
    });
    const done = values['dry-run'] ? 'would be deleted' : 'deleted';
    const rows = [
      ...result.evicted.map(({ blobId, bytes }) => [blobId, formatSize(bytes), done]),
      ...result.kept.map(({ blobId, bytes, reason }) => [blobId, formatSize(bytes), `stays: ${reason}`]),
    ];
    print(ctx, values.output, { ...result, dryRun: values['dry-run'] }, () => {
      const table = rows.length === 0 ? '' : tableText(COLUMNS, rows);
      return `${table}${formatSize(result.before)} before, ${formatSize(result.after)} after\n`;
    });
    return result.after <= maxBytes ? 0 : 1;
  },
});
