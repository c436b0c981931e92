// The program `nydusctl`: talks to the API socket of a running nydusd. Source: nydusd.md 17; `top`, `--json` and
// `completion` are ours.
import { program } from '../command.ts';
import { outputFlags } from './output.ts';

export const nydusctl = program({
  name: 'nydusctl',
  summary: 'Look at a running nydusd and change it',
  options: {
    sock: {
      type: 'string',
      short: 'S',
      required: true,
      help: 'the API socket of the daemon, as its --apisock says; stands before the command',
    },
    ...outputFlags,
  },
  subcommands: {
    info: {
      summary: 'Show the daemon, its state and what it has mounted',
      load: async () => (await import('./info.ts')).info,
    },
    set: {
      summary: 'Change a parameter of the daemon',
      load: async () => (await import('./set.ts')).set,
    },
    metrics: {
      summary: 'Show counters of the backend, the cache or the filesystem',
      load: async () => (await import('./metrics.ts')).metrics,
    },
    mount: {
      summary: 'Mount an image or a directory',
      load: async () => (await import('./mount.ts')).mount,
    },
    umount: { summary: 'Unmount it again', load: async () => (await import('./mount.ts')).umount },
    top: {
      summary: 'Watch operations, fetched bytes and cache hits, image by image',
      load: async () => (await import('./top.ts')).top,
    },
    completion: {
      summary: 'Print a shell script that completes the commands of all programs',
      load: async () => (await import('./completion.ts')).completion,
      standalone: true,
    },
  },
  examples: [
    'nydusctl --sock /run/nydusd/api.sock info',
    'nydusctl -S api.sock metrics backend --interval 1',
    'nydusctl -S api.sock mount -s image.boot -c nydusd.json -m /image -t rafs',
    'nydusctl -S api.sock top',
    'source <(nydusctl completion bash)',
  ],
  run: () => 0,
});
