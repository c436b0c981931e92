// What `create` checks after parsing, in upstream's order and with its messages. Source: nydus-image 2.2, 2.3.
import { statSync } from 'node:fs';
import { UsageError } from '../../base/errors.ts';
import { isPowerOfTwo } from '../../base/bytes.ts';
import { DEFAULT_CHUNK_SIZE, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE } from '../../base/limits.ts';
import type { CreateOptions, SourceType } from '../../build/options.ts';
import { CommandFailure } from '../report.ts';
import type { CreateValues } from './create.ts';
import { parseSize } from './numbers.ts';

/** Bytes of a blob id (nydus-image 2.3). */
const MAX_BLOB_ID = 255;

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** `1`: the id must fit its field. This stands before the prefetch list is read. */
export function checkBlobId(id: string | undefined): void {
  if (id !== undefined && Buffer.byteLength(id) > MAX_BLOB_ID) {
    throw wrong(`blob id is limited to length ${MAX_BLOB_ID}`);
  }
}

/** Chunk size in bytes; checks it. */
export function parseChunkSize(text: string | undefined): number {
  if (text === undefined) return DEFAULT_CHUNK_SIZE;
  const size = parseSize(text, 'invalid chunk size');
  if (size < MIN_CHUNK_SIZE || size > MAX_CHUNK_SIZE || !isPowerOfTwo(size)) {
    throw wrong(`invalid chunk size: ${size}`, 'use a power of two from 0x1000 to 0x1000000');
  }
  return size;
}

/** Batch size in bytes, 0 for none; checks it against version and chunk size. */
export function parseBatchSize(text: string, version: 5 | 6, chunkSize: number): number {
  const size = parseSize(text, 'invalid batch size');
  if (size === 0) return 0;
  if (version === 5) throw wrong('`--batch-size` with non-zero value conflicts with `--fs-version 5`');
  if (size < MIN_CHUNK_SIZE || size > MAX_CHUNK_SIZE || !isPowerOfTwo(size)) {
    throw wrong(`invalid batch size: ${size}`, 'use 0, or a power of two from 0x1000 up to the chunk size');
  }
  if (size > chunkSize) {
    throw wrong(`batch size 0x${size.toString(16)} is bigger than chunk size 0x${chunkSize.toString(16)}`);
  }
  return size;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** The next step where a directory should be. */
export function missingDirectory(path: string): string {
  return statSync(path, { throwIfNoEntry: false }) === undefined
    ? `create it first: mkdir -p ${path}`
    : `${path} is not a directory`;
}

/** The kind of file that a conversion reads from. */
function checkSource(source: string, type: SourceType): void {
  let stat;
  try {
    // a link to a directory is what the user means by its path; a dangling one is missing
    stat = statSync(source);
  } catch (error) {
    throw new CommandFailure(`failed to access path "${source}"`, error);
  }
  if (type === 'dir-rafs') {
    if (!stat.isDirectory())
      throw wrong(
        `specified path must be a directory: "${source}"`,
        'a tar is read with --type tar-rafs, a gzipped one with targz-rafs',
      );
  } else if (!stat.isFile() && !stat.isFIFO() && !stat.isCharacterDevice()) {
    throw wrong(
      `specified path must be a regular/fifo/char_device file: "${source}"`,
      stat.isDirectory() ? 'a directory is read with --type dir-rafs' : undefined,
    );
  }
}

/** `--chunk-dict` as it was given, after a look at its type: `bootstrap=PATH` or just the path. */
export function checkChunkDict(spec: string | undefined): string | undefined {
  const equals = spec?.indexOf('=') ?? -1;
  const type = spec?.slice(0, Math.max(0, equals)) ?? '';
  if (equals >= 0 && type !== 'bootstrap') {
    throw wrong(`invalid chunk dict type ${type}`, 'write --chunk-dict bootstrap=PATH');
  }
  return spec;
}

/**
 * Options of the build that a parsed command line asks for.
 *
 * @param prefetchPatterns what the list on stdin came to
 * @throws UsageError, CommandFailure: exit 1
 */
export function checkCreate(values: CreateValues, prefetchPatterns: string[]): CreateOptions {
  const type: SourceType = values.type === 'directory' ? 'dir-rafs' : values.type;
  const version = values['fs-version'] === '5' ? 5 : 6;
  const chunkSize = parseChunkSize(values['chunk-size']);
  const batchSize = parseBatchSize(values['batch-size'], version, chunkSize);
  const cacheDir = values['blob-cache-dir'];
  const blobDir = values['blob-dir'];
  const inline = values['blob-inline-meta'];
  if (cacheDir !== undefined && !isDirectory(cacheDir))
    throw wrong('directory to store blob cache does not exist', missingDirectory(cacheDir));
  if (cacheDir === undefined && values.blob === undefined) {
    if (blobDir === undefined) {
      throw wrong(
        'both --blob and --blob-dir are missing, please specify one to store the generated data blob file',
      );
    }
    if (!isDirectory(blobDir))
      throw wrong('directory to store blobs does not exist', missingDirectory(blobDir));
  }
  checkSource(values.SOURCE, type);
  const blobToc = values.features === 'blob-toc';
  if (blobToc && version === 5) throw wrong("`--features blob-toc` can't be used with `--version 5` ");
  if (!inline && values.bootstrap === undefined) {
    if (blobDir === undefined) {
      throw wrong(
        'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
      );
    }
    if (!isDirectory(blobDir))
      throw wrong('Directory to store blobs does not exist', missingDirectory(blobDir));
  }
  const bootstrapInDir = !inline && values.bootstrap === undefined;
  return {
    source: values.SOURCE,
    type,
    version,
    // the cache holds plain data, so nothing may be compressed (2.5)
    compressor: cacheDir === undefined ? values.compressor : 'none',
    digester: values.digester,
    chunkSize,
    batchSize,
    alignedChunk: values['aligned-chunk'] || version === 6,
    whiteoutSpec: values['whiteout-spec'],
    prefetchPolicy: values['prefetch-policy'],
    prefetchPatterns,
    repeatable: values.repeatable,
    blobToc,
    inlineMeta: inline,
    blobId: values['blob-id'],
    blobOffset: parseSize(values['blob-offset'], 'invalid blob offset', Number.MAX_SAFE_INTEGER),
    blob: values.blob,
    blobDir: values.blob === undefined || bootstrapInDir ? blobDir : undefined,
    blobCacheDir: cacheDir,
    bootstrap: values.bootstrap,
    parentBootstrap: values['parent-bootstrap'],
    chunkDict: checkChunkDict(values['chunk-dict']),
    threads: 0,
  };
}
