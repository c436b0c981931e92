// What `convert` checks after parsing, in upstream's order and with its messages; then what this version does not serve.
// Source: nydus-image-and-nydusify.md 8.2.
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import type { CompressorName } from '../../codec/algorithms.ts';
import type { ConvertOptions } from '../../convert/convert.ts';
import type { RetryOptions } from '../../convert/layer-converter.ts';
import { parsePlatforms } from '../../convert/platform.ts';
import { formatReference, parseReference } from '../../registry/reference.ts';
import { parseBatchSize, parseChunkSize } from '../nydus-image/create-checks.ts';
import { readBackend, type BackendChoice } from './backend-flags.ts';
import { convertFlags } from './convert.ts';
import type { Flag, FlagValues } from './flags.ts';

const COMPRESSORS: readonly CompressorName[] = ['none', 'lz4_block', 'zstd'];
const MAX_CACHE_RECORDS = 200;
const MAX_RETRIES = 1000;

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** Where an image is read from or written to: a path on disk, else a registry. */
export interface Place {
  /** full name */
  reference: string;
  /** undefined: the registry of the reference */
  path: string | undefined;
  insecure: boolean;
}

/** Where the build cache is, and how it is kept. */
export interface CachePlan extends Place {
  version: string;
  maxRecords: number;
}

export interface ConvertPlan {
  /** where blobs go instead of into the image */
  backend: BackendChoice | undefined;
  backendForcePush: boolean;
  /** program that builds in place of this one */
  builder: string | undefined;
  cache: CachePlan | undefined;
  /** `path` is that of a bootstrap */
  chunkDict: Place | undefined;
  source: Place;
  target: Place;
  plainHttp: boolean;
  /** from nydus to OCI, with layers compressed like this */
  reverse: 'gzip' | 'zstd' | undefined;
  /** prefetch list still to be read from stdin */
  patternsFromStdin: boolean;
  options: ConvertOptions;
  workDir: string;
  outputJson: string | undefined;
  progress: 'auto' | 'json' | 'none';
}

/** Set and not empty: an empty text is a flag that is not used. */
function given(values: FlagValues, name: string): string | undefined {
  const text = values.text(name);
  return text === '' ? undefined : text;
}

/** A directory is meant: it is one, or the path says so. */
export function isDirectoryPath(path: string): boolean {
  return path.endsWith('/') || statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function checkArchives(values: FlagValues): void {
  const source = given(values, 'source-archive');
  if (source !== undefined && statSync(source, { throwIfNoEntry: false }) === undefined)
    throw wrong(`source archive not accessible: ${source}`);
  const target = given(values, 'target-archive');
  if (target === undefined) return;
  const parent = dirname(target.replace(/(?<=.)\/+$/, ''));
  if (statSync(parent, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw wrong(`target archive directory not accessible: ${parent}`);
}

function targetReference(values: FlagValues, source: string): string {
  const target = given(values, 'target');
  const suffix = given(values, 'target-suffix');
  if (target !== undefined && suffix !== undefined) throw wrong('--target conflicts with --target-suffix');
  if (target !== undefined) return formatReference(parseReference(target));
  if (suffix === undefined) throw wrong('--target or --target-suffix is required');
  const reference = parseReference(source);
  if (reference.digest !== undefined) throw wrong(`unsupported digested image reference: ${source}`);
  return formatReference(parseReference(formatReference(reference) + suffix));
}

function checkCache(values: FlagValues, target: string): CachePlan | undefined {
  const cache = given(values, 'build-cache');
  const tag = given(values, 'build-cache-tag');
  if (cache !== undefined && tag !== undefined) throw wrong('--build-cache conflicts with --build-cache-tag');
  if (cache === undefined && tag === undefined) return undefined;
  const records = Number(values.text('build-cache-max-records'));
  if (!(records > 0)) throw wrong('--build-cache-max-records should be greater than 0');
  if (records > MAX_CACHE_RECORDS)
    throw wrong(`--build-cache-max-records should not be greater than ${MAX_CACHE_RECORDS}`);
  const { host, repository } = parseReference(target);
  return {
    reference: formatReference(parseReference(cache ?? `${host}/${repository}:${tag}`)),
    path: undefined,
    insecure: values.on('build-cache-insecure'),
    version: values.text('build-cache-version') ?? '',
    maxRecords: Math.floor(records),
  };
}

function fsVersion(values: FlagValues): 5 | 6 {
  const text = values.text('fs-version');
  if (text !== '5' && text !== '6') throw wrong('--fs-version should be one of [5 6]');
  return text === '5' ? 5 : 6;
}

function checkChunkDict(values: FlagValues): Place | undefined {
  const text = given(values, 'chunk-dict');
  if (text === undefined) return undefined;
  const parts = text.split(':');
  const [format, source] = parts;
  if (parts.length < 3) throw wrong('parse chunk dict arguments: invalid args');
  if (format !== 'bootstrap')
    throw wrong(`parse chunk dict arguments: invalid chunk dict format ${format}, should be [bootstrap]`);
  if (source !== 'registry' && source !== 'local')
    throw wrong(
      `parse chunk dict arguments: invalid chunk dict source ${source}, should be [registry local]`,
    );
  const rest = parts.slice(2).join(':');
  const insecure = values.on('chunk-dict-insecure');
  if (source === 'local') return { reference: '', path: rest, insecure };
  return { reference: formatReference(parseReference(rest)), path: undefined, insecure };
}

/** What only says how something refused is done: alone it has no effect, as upstream has it. */
const WITHOUT_EFFECT_ALONE = new Set(['source-backend-config']);

/** @throws UsageError `--name is not supported yet` */
function checkRefused(values: FlagValues): void {
  for (const [name, flag] of Object.entries(convertFlags as Readonly<Record<string, Flag>>)) {
    if (flag.refused === undefined || WITHOUT_EFFECT_ALONE.has(name)) continue;
    const used =
      flag.type === 'flag' ? values.on(name) : given(values, name) !== undefined && values.isSet(name);
    if (used) throw wrong(`--${name} is not supported yet`, flag.refused);
  }
}

/** Milliseconds of a Go duration: `500ms`, `1m30s`. */
export function parseDuration(text: string): number | undefined {
  const units: Record<string, number> = {
    ns: 1e-6,
    us: 1e-3,
    µs: 1e-3,
    ms: 1,
    s: 1000,
    m: 60_000,
    h: 3_600_000,
  };
  if (text === '0') return 0;
  if (!/^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let total = 0;
  for (const [, number, unit] of text.matchAll(/([0-9.]+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(number) * (units[unit ?? ''] ?? Number.NaN);
  }
  return total;
}

function retries(values: FlagValues): RetryOptions {
  const count = values.text('push-retry-count') ?? '';
  if (!/^[0-9]{1,9}$/.test(count) || Number(count) > MAX_RETRIES)
    throw wrong(`invalid value "${count}" for flag -push-retry-count`, `use a number of 0 to ${MAX_RETRIES}`);
  const delay = values.text('push-retry-delay') ?? '';
  const retryDelayMs = parseDuration(delay);
  if (retryDelayMs === undefined)
    throw wrong(
      `parse push retry delay: time: invalid duration ${JSON.stringify(delay)}`,
      'write 500ms or 5s',
    );
  return { retries: Number(count), retryDelayMs };
}

function prefetchDirectory(path: string | undefined): string[] {
  if (path === undefined) return ['/'];
  if (!path.startsWith('/')) throw wrong(`--prefetch-dir ${path} is no absolute path`);
  return [path.replace(/(?<=.)\/+$/, '')];
}

/** Layers are gzipped unless the command line says otherwise: the default of the flag is about chunks. */
function reverseCompression(values: FlagValues): 'gzip' | 'zstd' {
  return values.isSet('compressor') && values.text('compressor') === 'zstd' ? 'zstd' : 'gzip';
}

/**
 * What a parsed command line asks for.
 *
 * @throws UsageError exit 1
 */
export function checkConvert(values: FlagValues): ConvertPlan {
  checkArchives(values);
  const source = values.text('source') ?? '';
  const target = targetReference(values, source);
  const backend = readBackend(values, '');
  const cache = checkCache(values, target);
  const version = fsVersion(values);
  const prefetchDir = given(values, 'prefetch-dir');
  if (prefetchDir !== undefined && values.on('prefetch-patterns'))
    throw wrong('--prefetch-dir conflicts with --prefetch-patterns');
  const chunkDict = checkChunkDict(values);
  checkRefused(values);
  const compressor = COMPRESSORS.find((name) => name === values.text('compressor'));
  if (compressor === undefined) throw wrong(`--compressor should be one of [${COMPRESSORS.join(' ')}]`);
  const chunkSize = parseChunkSize(values.text('fs-chunk-size'));
  const batchSize = parseBatchSize(values.text('batch-size') ?? '0', version, chunkSize);
  const progress = values.text('progress');
  if (progress !== 'auto' && progress !== 'json' && progress !== 'none')
    throw wrong('--progress should be one of [auto json none]');
  const sourceReference = formatReference(parseReference(source));
  if (backend !== undefined && cache !== undefined)
    throw wrong(
      'a build cache is not supported together with --backend-type',
      'its blobs would have to be in a registry, too: leave one of them out',
    );
  const builder = given(values, 'nydus-image');
  return {
    reverse: values.on('reverse') ? reverseCompression(values) : undefined,
    backend,
    backendForcePush: values.on('backend-force-push'),
    builder: builder === 'nydus-image' ? undefined : builder,
    cache,
    chunkDict,
    source: {
      reference: sourceReference,
      path: given(values, 'source-archive'),
      insecure: values.on('source-insecure'),
    },
    target: {
      reference: target,
      path: given(values, 'target-archive'),
      insecure: values.on('target-insecure'),
    },
    plainHttp: values.on('plain-http'),
    patternsFromStdin: values.on('prefetch-patterns'),
    options: {
      ...retries(values),
      version,
      compressor,
      chunkSize,
      batchSize,
      alignedChunk: values.on('fs-align-chunk') || values.on('backend-aligned-chunk'),
      prefetchPatterns: prefetchDirectory(prefetchDir),
      mergePlatform: values.on('merge-platform'),
      oci: values.on('oci') && !values.on('docker-v2-format'),
      withReferrer: values.on('with-referrer'),
      sourceReference,
      platforms: values.on('all-platforms') ? undefined : parsePlatforms(values.text('platform')),
    },
    workDir: values.text('work-dir') ?? './tmp',
    outputJson: given(values, 'output-json'),
    progress,
  };
}
