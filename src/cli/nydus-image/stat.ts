// `nydus-image stat`: the option table. Source: nydus-image 4.3.
import { command, type Options, type Values } from '../command.ts';

const options = {
  bootstrap: { type: 'string', short: 'B', help: 'the image to count' },
  'blob-dir': {
    type: 'string',
    short: 'D',
    help: 'count all images in this directory together, and what they share: every file without an extension',
  },
  target: { type: 'string', short: 'T', help: 'another image: which of its chunks do the counted ones have' },
  config: { type: 'string', short: 'C', help: 'configuration of nydusd that names where blobs are' },
  digester: {
    type: 'string',
    default: 'blake3',
    values: ['blake3', 'sha256'],
    help: 'accepted as upstream accepts it; the images say which digest they have',
  },
  'output-json': {
    type: 'string',
    short: 'J',
    help: 'write the numbers to this file instead of showing them',
  },
} as const satisfies Options;

/** Values of the table, as the parser hands them over. */
export type StatValues = Values<typeof options>;

export const stat = command({
  name: 'nydus-image stat',
  summary: 'Count files, sizes and chunks of images, and what they share',
  options,
  examples: [
    'nydus-image stat --bootstrap image.boot',
    'nydus-image stat --blob-dir bootstraps --target new',
  ],
  run: async (ctx, values) => (await import('./stat-run.ts')).runStat(ctx, values),
});
