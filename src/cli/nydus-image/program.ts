// The program `nydus-image`: its options and the list of its subcommands. Source: nydus-image 1.1, 1.3.
import { program } from '../command.ts';
import { globalOptions } from './shared.ts';

const LATER = 'it comes with a later version; the same subcommand of nydus 2 reads and writes the same files';

export const nydusImage = program({
  name: 'nydus-image',
  summary: 'Build, merge and examine RAFS images',
  options: globalOptions,
  subcommands: {
    create: {
      summary: 'Build a RAFS image from a directory or a tar archive',
      load: async () => (await import('./create.ts')).create,
    },
    merge: {
      summary: 'Merge the bootstraps of layers into one image',
      load: async () => (await import('./merge.ts')).merge,
    },
    check: {
      summary: 'Validate a bootstrap and report every problem found',
      load: async () => (await import('./check.ts')).check,
    },
    inspect: {
      summary: 'Look around in a RAFS image, by prompt or by one request',
      load: async () => (await import('./inspect.ts')).inspect,
    },
    stat: {
      summary: 'Count files, sizes and chunks of images, and what they share',
      load: async () => (await import('./stat.ts')).stat,
    },
    unpack: {
      summary: 'Write the files of an image as a tar archive',
      load: async () => (await import('./unpack.ts')).unpack,
    },
    chunkdict: {
      summary: 'Make chunk dictionaries',
      load: async () => (await import('./chunkdict.ts')).chunkdict,
    },
  },
  refusedSubcommands: {
    compact: LATER,
    optimize: LATER,
    export: LATER,
  },
  examples: [
    'nydus-image create --type tar-rafs --bootstrap image.boot --blob-dir blobs layer.tar',
    'nydus-image check image.boot',
    'nydus-image create --help',
  ],
  run: (ctx) => {
    ctx.stdout.write('Usage: [OPTIONS] [COMMAND]\n');
    return 0;
  },
});
