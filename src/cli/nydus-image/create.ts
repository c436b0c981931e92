// `nydus-image create`: the option table. Source: nydus-image 2.1 to 2.3.
import { command, type Options, type Positionals, type Values } from '../command.ts';

const NO_ENCRYPTION = 'encryption of chunks comes with a later version; leave it out to build a plain image';
const NO_EXTERNAL =
  'external data comes with a later version; leave it out to keep all files in one data blob';
const NO_TYPE =
  'it comes with a later version; use tar-rafs or targz-rafs, which store the data in a blob of their own';

const options = {
  type: {
    type: 'string',
    short: 't',
    aliases: ['source-type'],
    default: 'dir-rafs',
    values: ['directory', 'dir-rafs', 'tar-rafs', 'targz-rafs'],
    refusedValues: {
      'estargz-rafs': NO_TYPE,
      'estargz-ref': NO_TYPE,
      'estargztoc-ref': NO_TYPE,
      'tar-tarfs': NO_TYPE,
      'targz-ref': NO_TYPE,
      stargz_index: NO_TYPE,
    },
    help: 'kind of source and of result; a tar may be compressed with gzip whatever its type says',
  },
  bootstrap: {
    type: 'string',
    short: 'B',
    requiredUnless: ['blob-dir', 'blob-inline-meta'],
    conflicts: ['blob-inline-meta'],
    group: 'Output',
    help: 'write the metadata to this file',
  },
  'blob-dir': {
    type: 'string',
    short: 'D',
    conflicts: ['blob-cache-dir'],
    group: 'Output',
    help: 'write the data blob into this directory, named by its id; the bootstrap too, without --bootstrap',
  },
  blob: {
    type: 'string',
    short: 'b',
    conflicts: ['blob-cache-dir'],
    group: 'Output',
    help: 'write the data blob to this file or FIFO',
  },
  'external-blob': { type: 'string', refused: NO_EXTERNAL, help: 'data blob of external files' },
  'blob-inline-meta': {
    type: 'flag',
    aliases: ['inline-bootstrap'],
    conflicts: ['blob-cache-dir'],
    group: 'Output',
    help: 'append the metadata to the data blob instead of writing a bootstrap',
  },
  'blob-id': {
    type: 'string',
    conflicts: ['blob-inline-meta'],
    group: 'Output',
    help: 'id of the data blob, instead of the digest of its content',
  },
  'blob-data-size': {
    type: 'string',
    refused: 'it belongs to --type estargztoc-ref, which comes with a later version',
    help: 'size of the data blob',
  },
  'blob-offset': { type: 'string', hidden: true, default: '0', help: 'first byte of chunk data in the blob' },
  'chunk-size': {
    type: 'string',
    group: 'Data',
    help: 'bytes of a chunk, a power of two from 0x1000 to 0x1000000; 0x100000 when absent',
  },
  'batch-size': {
    type: 'string',
    default: '0',
    group: 'Data',
    help: 'put small chunks together and compress them as one, up to this size, which is not above the chunk size',
  },
  compressor: {
    type: 'string',
    default: 'zstd',
    values: ['none', 'lz4_block', 'zstd'],
    conflicts: ['blob-cache-dir'],
    group: 'Data',
    help: 'how chunks are compressed',
  },
  digester: {
    type: 'string',
    default: 'blake3',
    values: ['blake3', 'sha256'],
    group: 'Data',
    help: 'digest of chunks and metadata',
  },
  config: {
    type: 'string',
    short: 'C',
    group: 'Layers',
    help: 'configuration of nydusd that names where the blobs of a parent image are',
  },
  'fs-version': { type: 'string', short: 'v', default: '6', values: ['5', '6'], help: 'version of RAFS' },
  features: {
    type: 'string',
    values: ['blob-toc'],
    group: 'Data',
    help: 'blob-toc appends a table of contents to the data blob; version 6 only',
  },
  'chunk-dict': {
    type: 'string',
    group: 'Layers',
    help: 'do not store chunks that this image has: bootstrap=PATH, or just PATH',
  },
  'parent-bootstrap': { type: 'string', group: 'Layers', help: 'build on top of this image' },
  'aligned-chunk': {
    type: 'flag',
    group: 'Data',
    help: 'align chunks to 4 KiB in the uncompressed blob; always so in version 6',
  },
  repeatable: { type: 'flag', help: 'do not store user and group ids' },
  'disable-check': { type: 'flag', hidden: true, help: 'accepted, without effect' },
  'whiteout-spec': {
    type: 'string',
    default: 'oci',
    values: ['oci', 'overlayfs', 'none'],
    group: 'Layers',
    help: 'how the source marks files that are deleted from lower layers',
  },
  'prefetch-policy': {
    type: 'string',
    default: 'none',
    values: ['fs', 'blob', 'none'],
    help: 'files to load early: their paths are read from standard input, one a line',
  },
  'output-json': {
    type: 'string',
    short: 'J',
    group: 'Output',
    help: 'write a summary of the result to this file',
  },
  encrypt: { type: 'flag', short: 'E', refused: NO_ENCRYPTION, help: 'encrypt the chunks' },
  'blob-cache-dir': {
    type: 'string',
    group: 'Output',
    help: 'write what the cache of nydusd would hold into this directory, instead of a data blob',
  },
  attributes: { type: 'string', refused: NO_EXTERNAL, help: 'attributes of external files' },
} as const satisfies Options;

const positionals = {
  SOURCE: { required: true, help: 'directory or tar archive to build from' },
} as const satisfies Positionals;

/** Values of the table, as the parser hands them over. */
export type CreateValues = Values<typeof options, typeof positionals>;

export const create = command({
  name: 'nydus-image create',
  summary: 'Build a RAFS image from a directory or a tar archive',
  description:
    'Writes a data blob with the chunks of all files and a bootstrap with the metadata. The source of the tar types ' +
    'may be a FIFO and so may the file given by --blob.',
  options,
  positionals,
  examples: [
    'nydus-image create --bootstrap image.boot --blob-dir blobs ./rootfs',
    'nydus-image create --type tar-rafs --blob layer.blob --blob-inline-meta layer.tar',
    "printf '/usr/bin\\n' | nydus-image create --prefetch-policy fs -B image.boot -D blobs ./rootfs",
  ],
  run: async (ctx, values) => (await import('./create-run.ts')).runCreate(ctx, values),
});
