// The program `nydusify`: its global flags and the list of its commands. Source: nydus-image-and-nydusify.md 8.1, 8.3.
import { program } from '../command.ts';
import { shownOptions, type Flags } from './flags.ts';

const LATER = 'it comes with a later version';

export const globalFlags = {
  debug: { type: 'flag', short: 'D', env: 'DEBUG_LOG_LEVEL', help: 'log everything, to stderr' },
  'log-level': {
    type: 'string',
    short: 'l',
    env: 'LOG_LEVEL',
    default: 'info',
    help: 'least important messages to log: panic, fatal, error, warn, info, debug or trace',
  },
  'log-file': {
    type: 'string',
    env: 'LOG_FILE',
    value: 'FILE',
    help: 'append the log to this file instead of stderr',
  },
} as const satisfies Flags;

export const nydusify = program({
  name: 'nydusify',
  summary: 'Convert container images into nydus images',
  description:
    'Flags stand before arguments, with one dash or two; those of the program stand before the command. A flag that ' +
    'names a variable in brackets takes its value from the environment where the command line has none. Credentials of ' +
    "registries are those of docker login. A private CA is trusted when the system's store has it, or when " +
    'SSL_CERT_FILE or SSL_CERT_DIR names its certificate. HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.',
  options: shownOptions(globalFlags),
  subcommands: {
    convert: {
      summary: 'Convert an OCI or Docker image into a nydus image',
      load: async () => (await import('./convert.ts')).convert,
    },
    check: {
      summary: 'Check a nydus image, and compare it with the image it was made from',
      load: async () => (await import('./check.ts')).check,
    },
    mount: {
      summary: 'Mount a nydus image and keep it mounted until Ctrl-C',
      load: async () => (await import('./mount.ts')).mount,
    },
    view: {
      summary: 'The same as mount',
      load: async () => (await import('./mount.ts')).mount,
    },
    copy: {
      summary: 'Copy an image between registries, layouts and archives',
      load: async () => (await import('./copy.ts')).copy,
    },
    build: {
      summary: 'Build an image from a directory, without a registry',
      load: async () => (await import('./build.ts')).build,
    },
    pack: {
      summary: 'The same as build',
      load: async () => (await import('./build.ts')).build,
    },
    chunkdict: {
      summary: 'Make a chunk dictionary of nydus images',
      load: async () => (await import('./chunkdict.ts')).chunkdict,
    },
    'serve-registry': {
      summary: 'Serve a small OCI registry, for trials and tests',
      load: async () => (await import('./serve-registry.ts')).serveRegistry,
    },
  },
  refusedSubcommands: {
    optimize: LATER,
    commit: LATER,
  },
  examples: [
    'nydusify convert --source app:1 --source-archive app.tar --target app:1-nydus --target-archive ./layout/',
    'nydusify convert --help',
  ],
  run: (ctx) => {
    ctx.stdout.write("Usage: nydusify [global flags] COMMAND [flags]; see 'nydusify --help'\n");
    return 0;
  },
});
