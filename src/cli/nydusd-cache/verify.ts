// `nydusd cache verify`: reads what is cached of images and compares it with their digests.
import { readFileSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { sealOf } from '../../rafs/open-blobs.ts';
import { openBootstrap } from '../../rafs/open.ts';
import { verifyCache, type VerifiedBlob } from '../../rafs/verify-cache.ts';
import type { Seal } from '../../storage/cache/decode.ts';
import { parseConfig } from '../../storage/config-parse.ts';
import { command } from '../command.ts';
import { tableText } from '../table.ts';
import { dedupOptions, withRows } from './dedup.ts';
import { cacheOptions, print, readCacheDir } from './shared.ts';

const COLUMNS = [
  { title: 'BLOB' },
  { title: 'CHECKED', right: true },
  { title: 'DAMAGED', right: true },
  { title: 'RESULT' },
];

/** How a daemon with this configuration encrypts its cache. The key is not an option: others would see it in the list of processes. */
function sealFrom(path: string | undefined): Seal | undefined {
  if (path === undefined) return undefined;
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read the configuration ${path}: ${messageOf(error)}`, { exitCode: 1 });
  }
  const { cache } = parseConfig(text).config;
  return cache === null ? undefined : sealOf(cache);
}

function resultText({ damaged, problem }: VerifiedBlob): string {
  if (problem !== undefined) return problem;
  return damaged === 0 ? 'good' : 'damaged chunks are fetched again';
}

export const verify = command({
  name: 'nydusd cache verify',
  summary: 'Compare what is cached of images with their digests',
  description:
    'Chunks that are damaged are forgotten, so that they are fetched again; with --dedup-db they are no longer offered to other images either. A daemon that has the blob open at the moment knows nothing of that until it is started again.',
  options: {
    ...cacheOptions,
    ...dedupOptions,
    bootstrap: {
      type: 'string',
      short: 'B',
      required: true,
      repeatable: true,
      value: 'FILE',
      help: 'bootstrap of an image, which has the digests; may be given several times',
    },
    config: {
      type: 'string',
      short: 'C',
      value: 'FILE',
      help: 'configuration of the daemon, for the key of an encrypted cache',
    },
  },
  examples: ['nydusd cache verify --work-dir /var/lib/nydus/cache --bootstrap ./bootstrap'],
  run: async (ctx, values) => {
    const dir = values['work-dir'];
    const cached = readCacheDir(dir);
    const warn = (message: string): void => void ctx.stderr.write(`${message}\n`);
    const logger = { error: warn, warn, info: warn, debug: () => {}, trace: () => {} };
    const results = new Map<string, VerifiedBlob>();
    const seal = sealFrom(values.config);
    await withRows(ctx, values['dedup-db'], dir, async (rows) => {
      const refute = (blobId: string, ids: readonly string[]): void => rows?.refute(blobId, ids);
      for (const path of values.bootstrap) {
        const bootstrap = openBootstrap(path);
        try {
          for (const blob of await verifyCache(bootstrap, dir, cached, { logger, seal, refute }))
            results.set(blob.blobId, blob);
        } finally {
          bootstrap.close();
        }
      }
    });
    const list = [...results.values()];
    const rows = list.map((blob) => [
      blob.blobId,
      String(blob.checked),
      String(blob.damaged),
      resultText(blob),
    ]);
    const value = list.map(({ blobId, ...rest }) => ({ blob: blobId, ...rest }));
    print(ctx, values.output, value, () => tableText(COLUMNS, rows));
    return list.some(({ damaged, problem }) => damaged > 0 || problem !== undefined) ? 1 : 0;
  },
});
