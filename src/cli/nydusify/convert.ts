// `nydusify convert`: the table of flags. Source: nydus-image-and-nydusify.md 8.2.
import { command } from '../command.ts';
import { backendFlags } from './backend-flags.ts';
import { shownOptions, type Flags } from './flags.ts';
import type { NydusifyContext } from './context.ts';

const MODEL = 'model images come with a later version';

export const convertFlags = {
  source: { type: 'string', required: true, env: 'SOURCE', value: 'REF', help: 'source image' },
  'source-archive': {
    type: 'string',
    env: 'SOURCE_ARCHIVE',
    value: 'PATH',
    help: 'read the source from here instead of a registry: OCI layout as directory or tar, or what docker save writes',
  },
  target: { type: 'string', env: 'TARGET', value: 'REF', help: 'target image' },
  'target-archive': {
    type: 'string',
    env: 'TARGET_ARCHIVE',
    value: 'PATH',
    help: 'write the target here instead of pushing it: an OCI layout, as tar, or as directory when PATH is one or ends in a slash',
  },
  'target-suffix': {
    type: 'string',
    env: 'TARGET_SUFFIX',
    help: 'the target is called like the source, with this at the end of its tag',
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
  'plain-http': { type: 'flag', env: 'PLAIN_HTTP', help: 'talk to registries without TLS' },
  'push-retry-count': {
    type: 'string',
    env: 'PUSH_RETRY_COUNT',
    default: '3',
    help: 'times that a failed upload is tried again',
  },
  'push-retry-delay': {
    type: 'string',
    env: 'PUSH_RETRY_DELAY',
    default: '5s',
    help: 'wait before the first of them, such as 500ms or 5s; it grows',
  },
  platform: {
    type: 'string',
    help: 'platforms to convert, comma-separated; linux/<architecture of this machine> when absent',
  },
  'all-platforms': { type: 'flag', help: 'convert the images of all platforms' },
  oci: { type: 'flag', env: 'OCI', help: 'write OCI media types, also for a Docker source' },
  'docker-v2-format': {
    type: 'flag',
    hidden: true,
    help: 'follow the media types of the source, whatever --oci says',
  },
  'with-referrer': {
    type: 'flag',
    env: 'WITH_REFERRER',
    help: 'name the source manifest as subject of the converted one',
  },
  'fs-version': { type: 'string', env: 'FS_VERSION', default: '6', help: 'version of RAFS: 5 or 6' },
  compressor: {
    type: 'string',
    env: 'COMPRESSOR',
    default: 'zstd',
    help: 'compressor of chunks: none, lz4_block or zstd',
  },
  'fs-chunk-size': {
    type: 'string',
    aliases: ['chunk-size'],
    env: 'FS_CHUNK_SIZE',
    default: '0x100000',
    help: 'bytes of a chunk, a power of two from 0x1000 to 0x1000000',
  },
  'batch-size': {
    type: 'string',
    env: 'BATCH_SIZE',
    default: '0',
    help: 'put small chunks together and compress them as one, up to this size; version 6 only',
  },
  'fs-align-chunk': {
    type: 'flag',
    env: 'FS_ALIGN_CHUNK',
    help: 'align chunks to 4 KiB; always so in version 6',
  },
  'backend-aligned-chunk': {
    type: 'flag',
    hidden: true,
    env: 'BACKEND_ALIGNED_CHUNK',
    help: 'old name of fs-align-chunk',
  },
  'prefetch-dir': {
    type: 'string',
    env: 'PREFETCH_DIR',
    value: 'PATH',
    help: 'load this directory early; / when nothing is said',
  },
  'prefetch-patterns': {
    type: 'flag',
    env: 'PREFETCH_PATTERNS',
    help: 'read from standard input which paths to load early, one a line',
  },
  'work-dir': { type: 'string', env: 'WORK_DIR', default: './tmp', help: 'directory for intermediate files' },
  'output-json': {
    type: 'string',
    env: 'OUTPUT_JSON',
    value: 'FILE',
    help: 'write sizes and times to this file',
  },
  progress: {
    type: 'string',
    default: 'auto',
    help: 'auto shows bars on a terminal and lines elsewhere, json writes one event a line to standard output, none nothing',
  },
  'merge-platform': {
    type: 'flag',
    aliases: ['multi-platform'],
    env: 'MERGE_PLATFORM',
    help: 'write one index of source and target images',
  },
  'oci-ref': {
    type: 'flag',
    env: 'OCI_REF',
    refused: 'images that keep the data in the source layers come with a later version',
    help: 'keep the data in the source layers',
  },
  reverse: {
    type: 'flag',
    env: 'REVERSE',
    help: 'turn a nydus image back into an OCI image; layers are gzipped, or zstd with --compressor zstd',
  },
  ...backendFlags('', 'where the blobs go instead of into the image'),
  'backend-force-push': {
    type: 'flag',
    env: 'BACKEND_FORCE_PUSH',
    help: 'put blobs there also when they are there already',
  },
  'source-backend-type': { type: 'string', refused: MODEL, help: 'kind of model source' },
  'source-backend-config': { type: 'string', refused: MODEL, help: 'configuration of it' },
  'build-cache': {
    type: 'string',
    env: 'BUILD_CACHE',
    help: 'image that keeps converted layers: those it has are not converted again',
  },
  'build-cache-tag': {
    type: 'string',
    env: 'BUILD_CACHE_TAG',
    help: 'the same, by its tag in the repository of the target',
  },
  'build-cache-version': {
    type: 'string',
    env: 'BUILD_CACHE_VERSION',
    default: 'v1',
    help: 'version written to it; another one than v1 takes records of that version only',
  },
  'build-cache-insecure': {
    type: 'flag',
    env: 'BUILD_CACHE_INSECURE',
    help: 'do not check certificates of its registry',
  },
  'build-cache-max-records': {
    type: 'string',
    env: 'BUILD_CACHE_MAX_RECORDS',
    default: '200',
    help: 'layers that it keeps, 1 to 200',
  },
  'chunk-dict': {
    type: 'string',
    env: 'CHUNK_DICT',
    value: 'SOURCE',
    help: 'chunks that are not stored again: bootstrap:registry:REF or bootstrap:local:PATH',
  },
  'chunk-dict-insecure': {
    type: 'flag',
    env: 'CHUNK_DICT_INSECURE',
    help: 'do not check certificates of its registry',
  },
  'nydus-image': {
    type: 'string',
    env: 'NYDUS_IMAGE',
    default: 'nydus-image',
    value: 'PROGRAM',
    help: 'another builder, run for each layer and each merge; nydus-image stands for this program itself',
  },
} as const satisfies Flags;

export const convert = command({
  name: 'nydusify convert',
  summary: 'Convert an OCI or Docker image into a nydus image',
  description:
    'Every layer becomes one data blob, and a last layer holds the metadata of the whole tree. Layers may be plain tar, ' +
    'gzip or zstd. The same source and flags give the same digests.',
  options: shownOptions(convertFlags),
  examples: [
    'nydusify convert --source registry.example/app:1 --target registry.example/app:1-nydus',
    'nydusify convert --source app:1 --source-archive app.tar --target app:1-nydus --target-archive ./layout/',
    'nydusify convert --source app:1 --target-suffix -nydus --all-platforms --progress json',
  ],
  run: async (ctx) => (await import('./convert-run.ts')).runConvert(ctx as NydusifyContext),
});
