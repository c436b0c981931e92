// `nydusify copy`: the table of flags. Source: nydus-image-and-nydusify.md 8.3, 9.5.
import { command } from '../command.ts';
import { backendFlags } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

export const copyFlags = {
  source: {
    type: 'string',
    required: true,
    env: 'SOURCE',
    value: 'REF',
    help: 'source image; file://PATH is an OCI layout as tar, plain or compressed, or as directory',
  },
  target: {
    type: 'string',
    env: 'TARGET',
    value: 'REF',
    help: 'target image; file://PATH is a tar, or a directory when PATH is one or ends in a slash',
  },
  'source-insecure': {
    type: 'flag',
    env: 'SOURCE_INSECURE',
    help: 'do not check certificates of the source registry',
  },
  'target-insecure': {
    type: 'flag',
    env: 'TARGET_INSECURE',
    help: 'do not check certificates of the target registry',
  },
  ...backendFlags('source-', 'where the blobs of the source are, when they are not in its registry'),
  'all-platforms': { type: 'flag', help: 'copy the images of all platforms, and the index as it is' },
  platform: {
    type: 'string',
    help: 'platforms to copy, comma-separated; linux/<architecture of this machine> when absent',
  },
  'push-chunk-size': {
    type: 'string',
    default: '0MB',
    value: 'SIZE',
    help: 'upload larger blobs in pieces of this size, such as 64MB; 0 uploads each in one request',
  },
  'work-dir': { type: 'string', env: 'WORK_DIR', default: './tmp', help: 'directory for intermediate files' },
  'nydus-image': {
    type: 'string',
    env: 'NYDUS_IMAGE',
    value: 'PATH',
    hidden: true,
    help: 'not needed: bootstraps are read by this program itself',
  },
} as const satisfies Flags;

export const copy = command({
  name: 'nydusify copy',
  summary: 'Copy an image between registries, layouts and archives',
  description:
    'Nothing is converted or compressed again, so all digests stay. What the target has already is not sent, and within one ' +
    'registry blobs are mounted instead of copied. An image of a single platform is copied whatever it is for, unless ' +
    '--platform says otherwise.',
  options: shownOptions(copyFlags),
  examples: [
    'nydusify copy --source registry.example/app:1 --target localhost:5000/app:1',
    'nydusify copy --source registry.example/app:1 --target file:///tmp/app.tar --all-platforms',
    `nydusify copy --source app:1-nydus --source-backend-type localfs --source-backend-config '{"dir":"/blobs"}' --target localhost:5000/app:1-nydus`,
  ],
  run: async (ctx) => (await import('./copy-run.ts')).runCopy(ctx as NydusifyContext),
});
