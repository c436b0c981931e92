// Building with nydus-image, and what its result files say.
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Layer } from './layers.ts';
import { megabytes, step } from './table.ts';
import type { Workshop } from './workshop.ts';

/** A finished image. */
export interface Image {
  bootstrap: string;
  blobs: string;
  /** bytes of the files that went in, layers added up */
  sourceBytes: number;
  blobBytes: number;
  bootstrapBytes: number;
  /** chunks that needed no room because the same bytes were there already */
  dedupChunks: number;
  dedupBytes: number;
  chunks: number;
}

interface Result {
  blobs: string[];
  trace: { registered_events: Record<string, number | string> };
}

function run(shop: Workshop, command: string[], args: string[]): Promise<string> {
  const [file = '', ...first] = command;
  return shop.run(file, [...first, ...args]);
}

function number(result: Result, event: string): number {
  return Number(result.trace.registered_events[event] ?? 0);
}

function sizes(dir: string): number {
  return readdirSync(dir).reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
}

/** Chunks in the blobs of an image, from the lines of `check`. Source: nydus-image 4.1. */
async function countChunks(shop: Workshop, command: string[], bootstrap: string): Promise<number> {
  const text = await run(shop, command, ['check', '--bootstrap', bootstrap]);
  return [...text.matchAll(/chunk count: (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
}

/** One RAFS image from layer tars: each built on its own, the first one as chunk dictionary of the others, then merged. */
export async function buildLayers(shop: Workshop, command: string[], layers: Layer[]): Promise<Image> {
  const blobs = shop.path('blobs');
  mkdirSync(blobs);
  const bootstraps: string[] = [];
  const known = new Set<string>();
  const totals = { sourceBytes: 0, dedupChunks: 0, dedupBytes: 0 };
  const dictionary = (): string[] =>
    bootstraps[0] === undefined ? [] : ['--chunk-dict', `bootstrap=${bootstraps[0]}`];
  for (const [at, { name, tar }] of layers.entries()) {
    const done = step(`layer ${at + 1} of ${layers.length}, ${name}`);
    const before = sizes(blobs);
    const [boot, json] = [shop.path(`layer${at}.boot`), shop.path(`layer${at}.json`)];
    const target = ['--blob-dir', blobs, '--bootstrap', boot, '--output-json', json];
    await run(shop, command, [
      'create',
      '--log-level',
      'warn',
      '--type',
      'tar-rafs',
      ...target,
      ...dictionary(),
      tar,
    ]);
    const result = JSON.parse(readFileSync(json, 'utf8')) as Result;
    // merge names a layer's blob by the file name of its bootstrap
    const own = result.blobs.find((id) => !known.has(id)) ?? `nodata${at}`;
    for (const id of result.blobs) known.add(id);
    const named = shop.path(`${own}.boot`);
    renameSync(boot, named);
    bootstraps.push(named);
    totals.sourceBytes += statSync(tar).size;
    totals.dedupChunks += number(result, 'dedup_chunks');
    totals.dedupBytes += number(result, 'dedup_uncompressed_size');
    done(`${megabytes(statSync(tar).size)} of tar, ${megabytes(sizes(blobs) - before)} of new blob`);
  }
  const done = step('merging the layers');
  const bootstrap = shop.path('image.boot');
  await run(shop, command, [
    'merge',
    '--log-level',
    'warn',
    '--bootstrap',
    bootstrap,
    ...dictionary(),
    ...bootstraps,
  ]);
  const chunks = await countChunks(shop, command, bootstrap);
  done(`bootstrap of ${megabytes(statSync(bootstrap).size)}`);
  return {
    ...totals,
    bootstrap,
    blobs,
    chunks,
    blobBytes: sizes(blobs),
    bootstrapBytes: statSync(bootstrap).size,
  };
}

/** A RAFS image from a directory. */
export async function buildDirectory(shop: Workshop, command: string[], source: string): Promise<Image> {
  const done = step(`building ${source}`);
  const blobs = shop.path('blobs');
  mkdirSync(blobs);
  const [bootstrap, json] = [shop.path('image.boot'), shop.path('image.json')];
  const target = ['--blob-dir', blobs, '--bootstrap', bootstrap, '--output-json', json];
  await run(shop, command, ['create', '--log-level', 'warn', '--type', 'dir-rafs', ...target, source]);
  const result = JSON.parse(readFileSync(json, 'utf8')) as Result;
  const chunks = await countChunks(shop, command, bootstrap);
  done(`${megabytes(sizes(blobs))} of blob`);
  return {
    bootstrap,
    blobs,
    chunks,
    sourceBytes: number(result, 'blob_uncompressed_size'),
    dedupChunks: number(result, 'dedup_chunks'),
    dedupBytes: number(result, 'dedup_uncompressed_size'),
    blobBytes: sizes(blobs),
    bootstrapBytes: statSync(bootstrap).size,
  };
}
