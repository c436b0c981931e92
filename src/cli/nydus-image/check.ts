// `nydus-image check`: the option table. Source: nydus-image 4.1.
import { command, type Options, type Values } from '../command.ts';
import { imageOptions, imagePositionals } from './image-options.ts';

const options = {
  ...imageOptions,
  verbose: { type: 'flag', short: 'v', help: 'list every inode and chunk' },
  'output-json': { type: 'string', short: 'J', help: 'write a summary to this file' },
} as const satisfies Options;

/** Values of the table, as the parser hands them over. */
export type CheckValues = Values<typeof options, typeof imagePositionals>;

export const check = command({
  name: 'nydus-image check',
  summary: 'Validate a bootstrap and report every problem found',
  description:
    'Reads all of the metadata: tree, names, attributes, chunks, tables. Data blobs are not read, but where --config names a ' +
    'backend and asks for digests to be validated: then the tables inside of v6 blobs are compared with the bootstrap.',
  options,
  positionals: imagePositionals,
  examples: ['nydus-image check image.boot', 'nydus-image check --output-json result.json -v image.boot'],
  run: async (ctx, values) => (await import('./check-run.ts')).runCheck(ctx, values),
});
