// `nydus-image chunkdict`: holds `generate`. Source: nydus-image 1.1, 5.5.
import { program, type Command } from '../command.ts';

export const chunkdict: Command = {
  ...program({
    name: 'nydus-image chunkdict',
    summary: 'Make chunk dictionaries',
    options: {},
    subcommands: {
      generate: {
        summary: 'Make a dictionary of the chunks that images share',
        load: async () => (await import('./chunkdict-generate.ts')).generate,
      },
    },
    examples: ['nydus-image chunkdict generate --help'],
    run: (ctx) => {
      ctx.stdout.write('Usage: [OPTIONS] [COMMAND]\n');
      return 0;
    },
  }),
  versioned: false,
};
