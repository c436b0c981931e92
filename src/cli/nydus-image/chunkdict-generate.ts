// `nydus-image chunkdict generate`: the option table. Source: nydus-image 5.5.
import { command, type Options, type Positionals, type Values } from '../command.ts';

const options = {
  database: {
    type: 'string',
    default: 'sqlite:///home/runner/output/database.db',
    help: 'where chunks and blobs of all images are listed: sqlite:// and an absolute path, or sqlite://:memory:',
  },
  bootstrap: { type: 'string', short: 'B', help: 'the dictionary to write' },
  'blob-dir': {
    type: 'string',
    short: 'D',
    help: 'directory to write it to, named by its digest, without --bootstrap',
  },
  'prefetch-policy': {
    type: 'string',
    default: 'none',
    values: ['fs', 'blob', 'none'],
    help: 'accepted: a dictionary has nothing to load early',
  },
  'output-json': { type: 'string', short: 'J', help: 'write a summary to this file' },
  config: { type: 'string', short: 'C', help: 'configuration of nydusd; it is checked, blobs are not read' },
  verbose: { type: 'flag', short: 'v', help: 'list the chunks of the dictionary' },
} as const satisfies Options;

const positionals = {
  SOURCE: {
    required: true,
    repeatable: true,
    help: 'bootstraps, each in a directory called image:tag',
  },
} as const satisfies Positionals;

/** Values of the table, as the parser hands them over. */
export type GenerateValues = Values<typeof options, typeof positionals>;

export const generate = command({
  name: 'nydus-image chunkdict generate',
  summary: 'Make a dictionary of the chunks that images share',
  description:
    'Chunks that versions of an image keep having, and those of several images, go into the dictionary. It refers to the ' +
    'blobs of the images, no data is copied.',
  options,
  positionals,
  examples: [
    'nydus-image chunkdict generate --database sqlite:///tmp/chunks.db -B dict.boot app:1/image.boot app:2/image.boot',
  ],
  run: async (ctx, values) => (await import('./chunkdict-generate-run.ts')).runGenerate(ctx, values),
});
