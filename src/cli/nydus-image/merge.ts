// `nydus-image merge`: the option table. Source: nydus-image 3.1.
import { command, type Options, type Positionals, type Values } from '../command.ts';

const options = {
  'parent-bootstrap': { type: 'string', help: 'put this merged image below all sources' },
  bootstrap: { type: 'string', short: 'B', help: 'write the merged bootstrap to this file' },
  'blob-dir': {
    type: 'string',
    short: 'D',
    help: 'write the merged bootstrap into this directory, named by its digest; also where blobs are looked for',
  },
  'chunk-dict': {
    type: 'string',
    help: 'the dictionary that the layers were built with: bootstrap=PATH, or PATH',
  },
  'prefetch-policy': {
    type: 'string',
    default: 'none',
    values: ['fs', 'blob', 'none'],
    help: 'files to load early: their paths are read from standard input, one a line',
  },
  'output-json': { type: 'string', short: 'J', help: 'write a summary of the result to this file' },
  'blob-digests': { type: 'string', group: 'Per source', help: 'digests of the blobs, comma-separated hex' },
  'original-blob-ids': { type: 'string', group: 'Per source', help: 'ids of the blobs, comma-separated' },
  'blob-sizes': { type: 'string', group: 'Per source', help: 'sizes of the blobs in bytes, comma-separated' },
  'blob-toc-digests': {
    type: 'string',
    group: 'Per source',
    help: 'digests of the tables of contents, comma-separated hex',
  },
  'blob-toc-sizes': {
    type: 'string',
    group: 'Per source',
    help: 'sizes of the tables of contents in bytes, comma-separated',
  },
  config: {
    type: 'string',
    short: 'C',
    help: 'configuration of nydusd that names where blobs are; blob ids in the sources are then kept',
  },
} as const satisfies Options;

const positionals = {
  SOURCE: {
    required: true,
    repeatable: true,
    help: 'bootstraps, or data blobs with metadata inside, lowest layer first',
  },
} as const satisfies Positionals;

/** Values of the table, as the parser hands them over. */
export type MergeValues = Values<typeof options, typeof positionals>;

export const merge = command({
  name: 'nydus-image merge',
  summary: 'Merge the bootstraps of layers into one image',
  description:
    'Whiteout files of a layer remove what lower layers hold, and do not appear in the result. No blob is read or ' +
    'written. Exit status 2 means that the layers do not fit together.',
  options,
  positionals,
  examples: [
    'nydus-image merge --bootstrap image.boot layer1.boot layer2.boot',
    'nydus-image merge -B image.boot --original-blob-ids ID1,ID2 --output-json result.json a.boot b.boot',
  ],
  run: async (ctx, values) => (await import('./merge-run.ts')).runMerge(ctx, values),
});
