// `nydusd cache ls`: what is in a cache directory.
import { formatSize } from '../../base/size.ts';
import { whileUnused, type CachedBlob } from '../../storage/cache/cache-dir.ts';
import { command } from '../command.ts';
import { tableText } from '../table.ts';
import { cacheOptions, print, readCacheDir } from './shared.ts';

const COLUMNS = [
  { title: 'BLOB' },
  { title: 'SIZE', right: true },
  { title: 'CHUNKS', right: true },
  { title: 'LAST USED' },
  { title: 'STATE' },
];

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
  options: cacheOptions,
  examples: [
    'nydusd cache ls --work-dir /var/lib/nydus/cache',
    'nydusd cache ls --work-dir /var/lib/nydus/cache --output json',
  ],
  run: (ctx, values) => {
    const dir = values['work-dir'];
    const blobs = readCacheDir(dir).map((blob) => ({ ...blob, inUse: isInUse(dir, blob) }));
    const rows = blobs.map(({ blobId, bytes, ready, lastUsed, inUse, pins }) => [
      blobId,
      formatSize(bytes),
      String(ready),
      new Date(lastUsed).toISOString().replace(/\.\d+Z$/, 'Z'),
      [inUse ? 'in use' : '', pins.includes('user') ? 'pinned' : '', pins.includes('kernel') ? 'kernel' : '']
        .filter((word) => word !== '')
        .join(', '),
    ]);
    const value = blobs.map(({ blobId, bytes, ready, lastUsed, inUse, pins }) => ({
      blob: blobId,
      bytes,
      ready_chunks: ready,
      last_used: new Date(lastUsed).toISOString(),
      in_use: inUse,
      pins,
    }));
    const total = blobs.reduce((sum, { bytes }) => sum + bytes, 0);
    print(
      ctx,
      values.output,
      value,
      () => `${tableText(COLUMNS, rows)}${blobs.length} blobs, ${formatSize(total)}\n`,
    );
    return 0;
  },
});
