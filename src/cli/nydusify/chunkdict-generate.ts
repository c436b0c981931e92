// `nydusify chunkdict generate`: the table of flags. Source: nydus-image-and-nydusify.md 8.3, 9.7.
import { command } from '../command.ts';
import { backendFlags } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

export const chunkdictGenerateFlags = {
  sources: {
    type: 'string',
    required: true,
    env: 'SOURCES',
    value: 'REFS',
    help: 'nydus images, comma-separated: versions of one image, or several images',
  },
  target: {
    type: 'string',
    env: 'TARGET',
    value: 'REF',
    help: 'push the dictionary as this image; without it the dictionary stays in the work directory',
  },
  'source-insecure': {
    type: 'flag',
    env: 'SOURCE_INSECURE',
    help: 'do not check certificates of the source registries',
  },
  'target-insecure': {
    type: 'flag',
    env: 'TARGET_INSECURE',
    help: 'do not check certificates of the target registry',
  },
  ...backendFlags('', 'where the blobs of the sources are, when they are not in their registries'),
  'work-dir': {
    type: 'string',
    env: 'WORK_DIR',
    default: './output',
    help: 'directory for bootstraps, the database and the dictionary; made for this, it goes when the target has the dictionary',
  },
  'nydus-image': {
    type: 'string',
    env: 'NYDUS_IMAGE',
    default: 'nydus-image',
    value: 'PROGRAM',
    help: 'another builder that makes the dictionary; nydus-image stands for this program itself',
  },
  'all-platforms': { type: 'flag', help: 'take the images of all platforms' },
  platform: {
    type: 'string',
    help: 'platforms to take, comma-separated; linux/<architecture of this machine> when absent',
  },
} as const satisfies Flags;

export const chunkdictGenerate = command({
  name: 'nydusify chunkdict generate',
  summary: 'Make a chunk dictionary of nydus images',
  description:
    'Chunks that versions of an image keep having, and those of several images, go into the dictionary; convert --chunk-dict ' +
    'then does not store them again. The image of a dictionary has the blobs it refers to as layers: what the registry of the ' +
    'target has is not sent, and within one registry blobs are mounted.',
  options: shownOptions(chunkdictGenerateFlags),
  examples: [
    'nydusify chunkdict generate --sources registry.example/app:1-nydus,registry.example/app:2-nydus --target registry.example/app:dict',
    'nydusify convert --source registry.example/app:3 --target-suffix -nydus --chunk-dict bootstrap:registry:registry.example/app:dict',
  ],
  run: async (ctx) =>
    (await import('./chunkdict-generate-run.ts')).runChunkdictGenerate(ctx as NydusifyContext),
});
