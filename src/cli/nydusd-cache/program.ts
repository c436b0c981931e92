// The command table of `nydusd cache`.
import { UsageError } from '../../base/errors.ts';
import { program } from '../command.ts';

export const cache = {
  ...program({
    name: 'nydusd cache',
    summary: 'Look into a cache directory, and clear it up',
    options: {},
    examples: [
      'nydusd cache ls --work-dir /var/lib/nydus/cache',
      'nydusd cache gc --work-dir /var/lib/nydus/cache --max-size 10GiB',
    ],
    subcommands: {
      ls: { summary: 'List the blobs', load: async () => (await import('./ls.ts')).ls },
      gc: { summary: 'Delete unused blobs', load: async () => (await import('./gc.ts')).gc },
      verify: {
        summary: 'Compare chunks with digests',
        load: async () => (await import('./verify.ts')).verify,
      },
      pin: { summary: 'Keep a blob', load: async () => (await import('./pin.ts')).pin },
      unpin: { summary: 'Let a blob go again', load: async () => (await import('./pin.ts')).unpin },
    },
    run: () => {
      throw new UsageError('nydusd cache needs a subcommand', { hint: 'see nydusd cache --help' });
    },
  }),
  versioned: false,
};
