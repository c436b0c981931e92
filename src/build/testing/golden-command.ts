// Golden `command.txt` files as build options, for the rebuild tests. The real command line is parsed in cli/.
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { CompressorName, DigesterName } from '../../codec/algorithms.ts';
import { silentLogger } from '../../base/log.ts';
import { parsePrefetchList } from '../prefetch-patterns.ts';
import type { BuildContext, CreateOptions, PrefetchPolicy, SourceType, WhiteoutSpec } from '../options.ts';

/** Where the pieces of one rebuild are. */
export interface Places {
  /** fresh directory: outputs */
  work: string;
  /** file or directory for an input as the command names it, such as `$WORK/in/odd` */
  input: (name: string) => string;
}

/** The `create` commands of a case. */
export function createCommands(caseDir: string): { words: string[]; stdin: string | undefined }[] {
  const lines = readFileSync(join(caseDir, 'command.txt'), 'utf8').split('\n');
  const found: { words: string[]; stdin: string | undefined }[] = [];
  lines.forEach((line, i) => {
    if (!line.startsWith('$ nydus-image create ')) return;
    const next = lines[i + 1] ?? '';
    const stdin = next.startsWith('# stdin: ')
      ? (JSON.parse(next.slice('# stdin: '.length)) as string)
      : undefined;
    found.push({ words: line.slice('$ nydus-image create '.length).split(' '), stdin });
  });
  return found;
}

const FLAGS = new Set(['--blob-inline-meta', '--aligned-chunk', '--repeatable', '--encrypt']);

/** Options of a command, with paths in `places`. */
export function optionsOf(
  words: readonly string[],
  stdin: string | undefined,
  places: Places,
): CreateOptions {
  const values = new Map<string, string>();
  let source = '';
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (!word.startsWith('--')) source = word;
    else if (FLAGS.has(word)) values.set(word, '');
    else values.set(word, words[++i] as string);
  }
  const number = (name: string, other: number): number =>
    values.has(name) ? Number(values.get(name)) : other;
  const path = (name: string): string | undefined => {
    const value = values.get(name);
    return value === undefined ? undefined : join(places.work, value.replace(/^bootstrap=/, ''));
  };
  return {
    source: places.input(source),
    type: (values.get('--type') ?? 'dir-rafs') as SourceType,
    version: number('--fs-version', 6) as 5 | 6,
    compressor: values.has('--blob-cache-dir')
      ? 'none'
      : ((values.get('--compressor') ?? 'zstd') as CompressorName),
    digester: (values.get('--digester') ?? 'blake3') as DigesterName,
    chunkSize: number('--chunk-size', 0x100000),
    batchSize: number('--batch-size', 0),
    alignedChunk: values.has('--aligned-chunk'),
    whiteoutSpec: (values.get('--whiteout-spec') ?? 'oci') as WhiteoutSpec,
    prefetchPolicy: (values.get('--prefetch-policy') ?? 'none') as PrefetchPolicy,
    prefetchPatterns: parsePrefetchList(stdin ?? '', () => {}),
    repeatable: values.has('--repeatable'),
    blobToc: values.get('--features') === 'blob-toc',
    inlineMeta: values.has('--blob-inline-meta'),
    blobId: values.get('--blob-id'),
    blobOffset: 0,
    blob: path('--blob'),
    blobDir: path('--blob-dir'),
    blobCacheDir: path('--blob-cache-dir'),
    bootstrap: path('--bootstrap'),
    parentBootstrap: path('--parent-bootstrap'),
    chunkDict: path('--chunk-dict'),
    threads: 0,
  };
}

/** Name of the input tree of a source argument: `$WORK/in/odd` -> `odd`, `$WORK/tar/tiny.tar` -> `tiny.tar`. */
export function inputName(source: string): { kind: 'dir' | 'tar' | 'gz' | 'other'; name: string } {
  const kind = source.includes('/in/')
    ? 'dir'
    : source.includes('/tar/')
      ? 'tar'
      : source.includes('/gz/')
        ? 'gz'
        : 'other';
  return { kind, name: basename(source) };
}

/** A context that reports nothing. */
export function quietContext(signal: AbortSignal = new AbortController().signal): BuildContext {
  return { logger: silentLogger, signal, progress: () => {} };
}
