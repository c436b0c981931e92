// `nydusify chunkdict`: holds `generate`. Source: nydus-image-and-nydusify.md 8.3.
import { program, type Command } from '../command.ts';

export const chunkdict: Command = {
  ...program({
    name: 'nydusify chunkdict',
    summary: 'Make chunk dictionaries',
    options: {},
    subcommands: {
      generate: {
        summary: 'Make a chunk dictionary of nydus images',
        load: async () => (await import('./chunkdict-generate.ts')).chunkdictGenerate,
      },
    },
    examples: ['nydusify chunkdict generate --help'],
    run: (ctx) => {
      ctx.stdout.write("Usage: nydusify chunkdict COMMAND [flags]; see 'nydusify chunkdict --help'\n");
      return 0;
    },
  }),
  versioned: false,
};
