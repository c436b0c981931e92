// `nydusify build` and `pack`: the table of flags. Source: nydus-image-and-nydusify.md 8.3, 9.6.
import { command } from '../command.ts';
import type { NydusifyContext } from './context.ts';
import { shownOptions, type Flags } from './flags.ts';

const COMPACT =
  'compaction comes with a later version; leave it out, blobs of the parent are kept as they are';

export const buildFlags = {
  'source-dir': {
    type: 'string',
    aliases: ['target-dir'],
    required: true,
    env: 'SOURCE_DIR',
    value: 'DIR',
    help: 'directory that becomes the image',
  },
  'output-dir': {
    type: 'string',
    short: 'o',
    env: 'OUTPUT_DIR',
    default: './.nydus-build-output',
    value: 'DIR',
    help: 'bootstrap, blob and output.json go here; made when it is missing',
  },
  name: {
    type: 'string',
    aliases: ['meta', 'bootstrap'],
    required: true,
    env: 'BOOTSTRAP,IMAGE_NAME',
    help: 'name of the image: the bootstrap is NAME.meta, or NAME where that has an extension; the blob is NAME.blob',
  },
  'parent-bootstrap': {
    type: 'string',
    env: 'PARENT_BOOTSTRAP',
    value: 'FILE',
    help: 'build on top of this image; the new blob is then named by its digest',
  },
  'chunk-dict': {
    type: 'string',
    env: 'CHUNK_DICT',
    value: 'bootstrap=FILE',
    help: 'do not store chunks that the blobs of this bootstrap have',
  },
  'fs-version': { type: 'string', env: 'FS_VERSION', default: '6', help: 'version of RAFS: 5 or 6' },
  compressor: {
    type: 'string',
    env: 'COMPRESSOR',
    default: 'zstd',
    help: 'compressor of chunks: none, lz4_block or zstd',
  },
  'chunk-size': {
    type: 'string',
    env: 'CHUNK_SIZE',
    default: '0x100000',
    help: 'bytes of a chunk, a power of two from 0x1000 to 0x1000000',
  },
  'backend-push': { type: 'flag', env: 'BACKEND_PUSH', help: 'put bootstrap and blob into a backend too' },
  'backend-type': {
    type: 'string',
    env: 'BACKEND_TYPE',
    default: 'oss',
    help: 'the backend: oss, s3 or localfs',
  },
  'backend-config': {
    type: 'string',
    env: 'BACKEND_CONFIG',
    value: 'JSON',
    help: 'configuration of it, with meta_prefix and blob_prefix beside the usual keys',
  },
  'backend-config-file': {
    type: 'string',
    env: 'BACKEND_CONFIG_FILE',
    value: 'FILE',
    help: 'the same, in a file',
  },
  compact: { type: 'flag', env: 'COMPACT', refused: COMPACT, help: 'rewrite small blobs of the parent' },
  'compact-config-file': {
    type: 'string',
    env: 'COMPACT_CONFIG_FILE',
    refused: COMPACT,
    help: 'configuration of it',
  },
  'nydus-image': {
    type: 'string',
    env: 'NYDUS_IMAGE',
    value: 'PATH',
    help: 'build with this program; without it we do it ourselves',
  },
} as const satisfies Flags;

export const build = command({
  name: 'nydusify build',
  summary: 'Build an image from a directory, without a registry; pack is another name',
  description:
    'The result is a bootstrap and a blob, which nydusd serves from a directory of blobs. With a parent, only what is new is ' +
    'stored.',
  options: shownOptions(buildFlags),
  examples: [
    'nydusify build --source-dir ./tree --name app --output-dir ./out',
    'nydusify build --source-dir ./tree2 --name app2 --output-dir ./out --parent-bootstrap ./out/app.meta',
    `nydusify build --source-dir ./tree --name app --backend-push --backend-type localfs --backend-config '{"dir":"/blobs"}'`,
  ],
  run: async (ctx) => (await import('./build-run.ts')).runBuild(ctx as NydusifyContext),
});
