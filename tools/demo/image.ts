// Building with nydus-image, and what its result files say.
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { megabytes, step } from './table.ts';
import type { Workshop } from './workshop.ts';

/** A finished image. */
export interface Image {
  bootstrap: string;
  blobs: string;
  /** bytes of the files that went in */
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
export async function countChunks(shop: Workshop, command: string[], bootstrap: string): Promise<number> {
  const text = await run(shop, command, ['check', '--bootstrap', bootstrap]);
  return [...text.matchAll(/chunk count: (\d+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
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
