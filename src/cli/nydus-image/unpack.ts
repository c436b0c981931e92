// `nydus-image unpack`: the option table. Source: nydus-image 1.4, 5.3.
import { command, type Options, type Values } from '../command.ts';
import { backendOptions } from './backend-options.ts';
import { imagePositionals } from './image-options.ts';

const options = {
  bootstrap: { type: 'string', short: 'B', help: 'the bootstrap, in the older form' },
  ...backendOptions,
  blob: {
    type: 'string',
    short: 'b',
    conflicts: ['blob-dir', 'backend-type'],
    help: 'file with the data of every blob',
  },
  'blob-dir': {
    type: 'string',
    short: 'D',
    conflicts: ['blob', 'backend-type'],
    help: 'directory with the data blobs',
  },
  output: {
    type: 'string',
    required: true,
    help: 'the tar to write: a file, a FIFO, or /dev/stdout',
  },
} as const satisfies Options;

/** Values of the table, as the parser hands them over. */
export type UnpackValues = Values<typeof options, typeof imagePositionals>;

export const unpack = command({
  name: 'nydus-image unpack',
  summary: 'Write the files of an image as a tar archive',
  description:
    'Every chunk is verified before it is written. A file gets its name when it is complete. Whiteouts are written as ' +
    'the entries they are. Sockets are left out, a tar cannot hold them.',
  options,
  positionals: imagePositionals,
  examples: [
    'nydus-image unpack image.boot --blob-dir blobs --output image.tar',
    'nydus-image unpack -B layer.boot --blob layer.blob --output /dev/stdout | tar -tv',
  ],
  run: async (ctx, values) => (await import('./unpack-run.ts')).runUnpack(ctx, values),
});
