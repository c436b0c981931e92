// `nydusd cache pin` and `unpin`: blobs that the garbage collection must leave alone.
import { pinBlob, unpinBlob } from '../../storage/cache/pins.ts';
import { command } from '../command.ts';
import { cacheOptions, findBlob, print, readCacheDir } from './shared.ts';

const BLOB = { required: true, help: 'id of a blob, or how it begins' } as const;

export const pin = command({
  name: 'nydusd cache pin',
  summary: 'Keep a blob in the cache, however long it is not used',
  options: cacheOptions,
  positionals: { BLOB },
  examples: ['nydusd cache pin --work-dir /var/lib/nydus/cache 3f9a07c1'],
  run: (ctx, values) => {
    const dir = values['work-dir'];
    const { blobId } = findBlob(readCacheDir(dir), values.BLOB);
    pinBlob(dir, blobId, 'user');
    print(ctx, values.output, { blob: blobId, pinned: true }, () => `${blobId} is pinned\n`);
    return 0;
  },
});

export const unpin = command({
  name: 'nydusd cache unpin',
  summary: 'Let the garbage collection have a blob again',
  options: {
    ...cacheOptions,
    kernel: {
      type: 'flag',
      help: 'also the pin of a kernel mount whose daemon has ended; only when nothing is mounted from it',
    },
  },
  positionals: { BLOB },
  examples: ['nydusd cache unpin --work-dir /var/lib/nydus/cache 3f9a07c1'],
  run: (ctx, values) => {
    const dir = values['work-dir'];
    const { blobId } = findBlob(readCacheDir(dir), values.BLOB);
    const was = unpinBlob(dir, blobId, 'user');
    const wasKernel = values.kernel && unpinBlob(dir, blobId, 'kernel');
    print(ctx, values.output, { blob: blobId, pinned: false }, () =>
      was || wasKernel ? `${blobId} is no longer pinned\n` : `${blobId} was not pinned\n`,
    );
    return 0;
  },
});
