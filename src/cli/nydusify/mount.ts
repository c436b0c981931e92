// `nydusify mount` and `view`: the table of flags. Source: nydus-image-and-nydusify.md 8.3, 9.3.
import { command } from '../command.ts';
import { backendFlags } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

export const mountFlags = {
  target: { type: 'string', required: true, env: 'TARGET', value: 'REF', help: 'nydus image to mount' },
  'target-archive': {
    type: 'string',
    value: 'PATH',
    help: 'read the image from here instead of a registry: OCI layout as directory or tar',
  },
  'target-insecure': {
    type: 'flag',
    env: 'TARGET_INSECURE',
    help: 'do not check certificates of the registry',
  },
  ...backendFlags('', 'where the blobs are, when they are not in the registry of the image'),
  prefetch: { type: 'flag', env: 'PREFETCH', help: 'load the whole image in the background' },
  'mount-path': {
    type: 'string',
    env: 'MOUNT_PATH',
    default: './image-fs',
    value: 'DIR',
    help: 'mount here; made when it is missing',
  },
  platform: {
    type: 'string',
    help: 'image to take out of an index; linux/<architecture of this machine> when absent',
  },
  'work-dir': {
    type: 'string',
    env: 'WORK_DIR',
    default: './tmp',
    help: 'directory for bootstrap and cache',
  },
  nydusd: {
    type: 'string',
    env: 'NYDUSD',
    default: 'nydusd',
    value: 'PATH',
    help: 'daemon that mounts; the one that came with this program comes before the one in PATH',
  },
} as const satisfies Flags;

export const mount = command({
  name: 'nydusify mount',
  summary: 'Mount a nydus image and keep it mounted until Ctrl-C; view is another name',
  description:
    'Only the bootstrap is downloaded before the image is there; data comes when it is read. The first line of output is ' +
    'the directory. SIGINT or SIGTERM unmounts and removes what was written.',
  options: shownOptions(mountFlags),
  examples: [
    'nydusify mount --target localhost:5000/app:1-nydus',
    `nydusify mount --target app:1-nydus --backend-type localfs --backend-config '{"dir":"/blobs"}' --mount-path /mnt/app`,
  ],
  run: async (ctx) => (await import('./mount-run.ts')).runMount(ctx as NydusifyContext),
});
