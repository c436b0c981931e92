// `nydus-image inspect`: the option table. Source: nydus-image 4.2.
import { command, type Options, type Values } from '../command.ts';
import { imageOptions, imagePositionals } from './image-options.ts';

const options = {
  ...imageOptions,
  request: {
    type: 'string',
    short: 'R',
    help: 'answer this one command, as JSON where it has a JSON form, instead of asking for commands',
  },
} as const satisfies Options;

/** Values of the table, as the parser hands them over. */
export type InspectValues = Values<typeof options, typeof imagePositionals>;

export const inspect = command({
  name: 'nydus-image inspect',
  summary: 'Look around in a RAFS image, by prompt or by one request',
  description:
    'Commands: stats, ls, cd DIR, stat FILE_NAME, blobs, prefetch, chunk OFFSET, icheck INODE, help, exit.',
  options,
  positionals: imagePositionals,
  examples: ['nydus-image inspect image.boot', 'nydus-image inspect --request blobs image.boot'],
  run: async (ctx, values) => (await import('./inspect-run.ts')).runInspect(ctx, values),
});
