// `nydusd cache ls`: what is in a cache directory.
import { formatSize } from '../../base/size.ts';
import { whileUnused, type CachedBlob } from '../../storage/cache/cache-dir.ts';
import { command } from '../command.ts';
import { tableText } from '../table.ts';
import { dedupOptions, withRows } from './dedup.ts';
import { cacheOptions, print, readCacheDir } from './shared.ts';

const COLUMNS = [
  { title: 'BLOB' },
  { title: 'SIZE', right: true },
  { title: 'CHUNKS', right: true },
  { title: 'LAST USED' },
  { title: 'STATE' },
];

/** chunks that the dedup database offers to other images */
const SHARED = { title: 'SHARED', right: true };

function isInUse(dir: string, blob: CachedBlob): boolean {
  try {
    return whileUnused(dir, blob, () => true) === undefined;
  } catch {
    return true;
  }
}

export const ls = command({
  name: 'nydusd cache ls',
  summary: 'List the blobs of a cache directory, least recently used first',
  options: { ...cacheOptions, ...dedupOptions },
  examples: [
    'nydusd cache ls --work-dir /var/lib/nydus/cache',
    'nydusd cache ls --work-dir /var/lib/nydus/cache --output json',
  ],
  run: async (ctx, values) => {
    const dir = values['work-dir'];
    const found = readCacheDir(dir);
    const blobs = await withRows(ctx, values['dedup-db'], dir, (rows) =>
      found.map((blob) => ({ ...blob, inUse: isInUse(dir, blob), shared: rows?.count(blob.blobId) })),
    );
    const withShared = values['dedup-db'] !== undefined;
    const rows = blobs.map(({ blobId, bytes, ready, lastUsed, inUse, pins, shared }) => [
      blobId,
      formatSize(bytes),
      String(ready),
      ...(withShared ? [String(shared)] : []),
      new Date(lastUsed).toISOString().replace(/\.\d+Z$/, 'Z'),
      [inUse ? 'in use' : '', pins.includes('user') ? 'pinned' : '', pins.includes('kernel') ? 'kernel' : '']
        .filter((word) => word !== '')
        .join(', '),
    ]);
    const value = blobs.map(({ blobId, bytes, ready, lastUsed, inUse, pins, shared }) => ({
      blob: blobId,
      bytes,
      ready_chunks: ready,
      ...(withShared ? { shared_chunks: shared } : {}),
      last_used: new Date(lastUsed).toISOString(),
      in_use: inUse,
      pins,
    }));
    const total = blobs.reduce((sum, { bytes }) => sum + bytes, 0);
    print(
      ctx,
      values.output,
      value,
      () =>
        `${tableText(withShared ? [...COLUMNS.slice(0, 3), SHARED, ...COLUMNS.slice(3)] : COLUMNS, rows)}${blobs.length} blobs, ${formatSize(total)}\n`,
    );
    return 0;
  },
});
