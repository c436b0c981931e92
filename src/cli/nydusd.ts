// The command table of `nydusd`. Everything a run needs is loaded when it runs: --version and --help stay quick.
import { command, program, type CommandContext, type Values } from './command.ts';
import { fuseOptions } from './nydusd-options.ts';
import { runProgram, type ProgramIo } from './run.ts';
import { expectMappedFiles } from '../base/garbage-collector.ts';
import { startSpareWorker } from '../serve/fuse/spare-thread.ts';

async function serve(ctx: CommandContext, values: Values<typeof fuseOptions>): Promise<number> {
  expectMappedFiles();
  if ((values.driver ?? 'fuse') === 'fuse') startSpareWorker();
  const { serveFuse } = await import('./nydusd-serve.ts');
  return serveFuse(ctx, values);
}

const EXAMPLES = [
  'nydusd --bootstrap ./bootstrap --config ./config.json --mountpoint /mnt/image --apisock ./api.sock',
  'nydusd fuse --bootstrap ./bootstrap --localfs-dir ./blobs --mountpoint /mnt/image',
] as const;

export const fuse = command({
  name: 'nydusd fuse',
  summary: 'Serve a RAFS image through FUSE',
  options: fuseOptions,
  examples: EXAMPLES,
  run: serve,
});

export const nydusd = program({
  name: 'nydusd',
  summary: 'Serve RAFS images to the kernel',
  options: fuseOptions,
  examples: EXAMPLES,
  subcommands: {
    cache: {
      summary: 'Look into a cache directory, and clear it up',
      load: async () => (await import('./nydusd-cache/program.ts')).cache,
      standalone: true,
    },
    fuse: { summary: fuse.summary, load: async () => fuse },
    doctor: {
      summary: 'Show what works on this host, what does not, and what to do',
      load: async () => (await import('./nydusd-doctor.ts')).doctor,
      standalone: true,
    },
  },
  refusedSubcommands: {
    singleton: 'the shared blob cache comes with a later release',
    virtiofs: 'virtio-fs comes with a later release',
    nbd: 'block devices over NBD come with a later release',
    uffd: 'block devices over userfaultfd come with a later release',
  },
  argsConflictWithSubcommands: true,
  run: serve,
});

/**
 * Run `nydusd`.
 *
 * @param argv arguments after the program's name
 * @returns exit status: 0 the daemon ended in order, 1 it failed, 2 the command line is wrong
 */
export function main(argv: readonly string[], io: ProgramIo): Promise<number> {
  return runProgram(nydusd, argv, io);
}
