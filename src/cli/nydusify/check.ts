// `nydusify check`: the table of flags. Source: nydus-image-and-nydusify.md 8.3, 9.4.
import { command } from '../command.ts';
import { backendFlags } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

export const checkFlags = {
  source: { type: 'string', env: 'SOURCE', value: 'REF', help: 'image that the target was converted from' },
  'source-archive': {
    type: 'string',
    value: 'PATH',
    help: 'read the source from here instead of a registry: OCI layout as directory or tar, or what docker save writes',
  },
  target: { type: 'string', required: true, env: 'TARGET', value: 'REF', help: 'image to check' },
  'target-archive': {
    type: 'string',
    value: 'PATH',
    help: 'read the target from here instead of a registry: OCI layout as directory or tar',
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
  ...backendFlags('target-', 'where the blobs of the target are, when they are not in its registry'),
  'multi-platform': { type: 'flag', env: 'MULTI_PLATFORM', hidden: true, help: 'accepted, without effect' },
  platform: {
    type: 'string',
    help: 'image to look at in an index; linux/<architecture of this machine> when absent',
  },
  'work-dir': {
    type: 'string',
    env: 'WORK_DIR',
    default: './output',
    help: 'write manifests, configs and bootstraps here, for a look at them; what an earlier check wrote is removed',
  },
  'nydus-image': {
    type: 'string',
    env: 'NYDUS_IMAGE',
    value: 'PATH',
    help: 'check the bootstrap with this program; without it we do it ourselves',
  },
  nydusd: {
    type: 'string',
    env: 'NYDUSD',
    default: 'nydusd',
    value: 'PATH',
    help: 'daemon that mounts; the one that came with this program comes before the one in PATH',
  },
  output: { type: 'string', default: 'text', help: 'text, or json: one document on standard output' },
} as const satisfies Flags;

export const check = command({
  name: 'nydusify check',
  summary: 'Check a nydus image, and compare it with the image it was made from',
  description:
    'Three rules: the manifest and config are as they must be; the bootstrap is whole, and its blobs are layers; and, with ' +
    '--source, both images are mounted and compared file by file: names, types, modes, owners, devices, link targets, ' +
    'extended attributes and content. All differences are listed. Comparing needs root. Exit status 0: all is well.',
  options: shownOptions(checkFlags),
  examples: [
    'nydusify check --target localhost:5000/app:1-nydus',
    'nydusify check --source registry.example/app:1 --target registry.example/app:1-nydus --output json',
  ],
  run: async (ctx) => (await import('./check-run.ts')).runCheckImages(ctx as NydusifyContext),
});
