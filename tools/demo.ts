// `make demo`: an image is pushed to a registry, converted, and started over a slow link: once the old way, downloaded and
// unpacked, once from a mount that fetches what the program touches. IMAGE=name:tag does it with the user's own image,
// DEMO_DIR=/some/dir mounts the user's own tree from a local directory of blobs.
import { createHash } from 'node:crypto';
import { accessSync, constants, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildDirectory } from './demo/image.ts';
import type { Image } from './demo/image.ts';
import { demoImage } from './demo/over-the-link.ts';
import { cachedChunks, program, serve } from './demo/serve.ts';
import type { BackendCounters } from './demo/serve.ts';
import { visibleBytes } from './demo/visible.ts';
import { bold, dim, duration, megabytes, share, step, table } from './demo/table.ts';
import type { Row } from './demo/table.ts';
import { Workshop } from './demo/workshop.ts';

const repo = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');

function commonRows(image: Image, counters: BackendCounters, chunks: number): Row[] {
  return [
    ['chunks in the image', String(image.chunks)],
    ['chunks deduplicated', String(image.dedupChunks), `${megabytes(image.dedupBytes)} not stored again`],
    ['blobs, compressed', megabytes(image.blobBytes), `bootstrap ${megabytes(image.bootstrapBytes)}`],
    'line',
    ['bytes fetched', megabytes(counters.read_amount_total), `in ${counters.read_count} reads of the blobs`],
    ['share of the image fetched', share(counters.read_amount_total, image.blobBytes)],
    ['digests verified', String(chunks), `every chunk that was fetched, ${share(chunks, image.chunks)}`],
  ];
}

/** Up to 50 readable files spread over the tree, 64 MB at most, always the same ones. */
function sample(root: string): string[] {
  const all = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const every = Math.max(1, Math.floor(all.length / 50));
  let budget = 64_000_000;
  return all
    .filter((path, at) => at % every === 0 && readable(path))
    .filter((path) => (budget -= lstatSync(path).size) > 0)
    .slice(0, 50);
}

function readable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

async function demoDirectory(shop: Workshop, source: string): Promise<string> {
  const image = await buildDirectory(shop, program(repo, 'nydus-image'), source);
  const mounting = step('mounting it, nothing is in the cache');
  const served = await serve(shop, program(repo, 'nydusd'), image.bootstrap, {
    type: 'localfs',
    config: { dir: image.blobs },
  });
  mounting();
  const files = sample(source);
  const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
  const pass = (): { ms: number; bytes: number; digests: string[] } => {
    const began = performance.now();
    let bytes = 0;
    const digests = files.map((path) => {
      const place = join(served.mountpoint, relative(source, path));
      bytes += lstatSync(place).size;
      return digest(place);
    });
    return { ms: performance.now() - began, bytes, digests };
  };
  const reading = step(`reading ${files.length} files from the mount`);
  const cold = pass();
  const counters = await served.counters();
  const different = files.filter((path, at) => digest(path) !== cold.digests[at]);
  if (different.length > 0) throw new Error(`these differ from the source: ${different.join(', ')}`);
  reading('equal to the source');
  const again = step('reading them again');
  const warm = pass();
  again();
  const seen = visibleBytes(served.mountpoint);
  await served.stop();
  return table(`${source}, mounted without its data`, [
    ['image, as its user sees it', megabytes(seen.bytes), `${seen.files} files`],
    ...commonRows(image, counters, cachedChunks(shop.path('cache'))),
    'line',
    ['mount ready after', duration(served.readyMs), 'exec to RUNNING'],
    [`${files.length} files read, cold`, duration(cold.ms), megabytes(cold.bytes)],
    [`${files.length} files read, warm`, duration(warm.ms)],
  ]);
}

async function main(): Promise<void> {
  const began = performance.now();
  const shop = new Workshop();
  const source = process.env['DEMO_DIR'];
  process.stdout.write(`\n${bold('  nydus: an image that starts before it is there')}\n\n`);
  const result =
    source === undefined || source === ''
      ? await demoImage(shop, repo, process.env['IMAGE'])
      : await demoDirectory(shop, resolve(source));
  const clearing = step('unmounted, cleaning up');
  shop.clear();
  clearing();
  process.stdout.write(`\n${result}\n${dim(`  whole demo: ${duration(performance.now() - began)}`)}\n\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`\n\n  demo failed: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1); // the exit hook of the workshop clears
}
