// `nydusify copy`: opens source and target, copies, says what it saved. Source: nydus-image-and-nydusify.md 9.5.
import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { UsageError } from '../../base/errors.ts';
import { copyImage, type CopyTotals } from '../../convert/copy/copy.ts';
import { gather } from '../../convert/copy/gather.ts';
import { registrySink, targetSink, type CopySink } from '../../convert/copy/sink.ts';
import { compressionOf, decoded } from '../../convert/mount/decoded.ts';
import { openLocalSource } from '../../convert/open-source.ts';
import { parsePlatforms } from '../../convert/platform.ts';
import type { ImageSource } from '../../convert/source.ts';
import { ConvertState } from '../../convert/state.ts';
import { archiveTarget } from '../../convert/target-archive.ts';
import { layoutTarget } from '../../convert/target-layout.ts';
import { formatReference, parseReference } from '../../registry/reference.ts';
import { showBytes } from '../nydus-image/progress.ts';
import { readBackend, type BackendChoice } from './backend-flags.ts';
import type { NydusifyContext } from './context.ts';
import { isDirectoryPath } from './convert-checks.ts';
import { openRegistrySource, openTransport } from './registry-client.ts';
import { withWorkDir } from './work-dir.ts';

const FILE_SCHEME = 'file://';
const UNITS: Record<string, number> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};
const MAX_PUSH_CHUNK = 2 ** 32;

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** Bytes of `10MB`, `1.5 GiB`. @throws UsageError */
export function parseSize(text: string, flag: string): number {
  const match = /^\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{0,3})\s*$/.exec(text);
  const unit = UNITS[match?.[2]?.toLowerCase() ?? '?'];
  const size = match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
  if (!(size <= MAX_PUSH_CHUNK))
    throw wrong(
      `--${flag} ${JSON.stringify(text)} is no size`,
      `write 64MB or 1GiB, at most ${MAX_PUSH_CHUNK} bytes`,
    );
  return size;
}

/** The path of `file://PATH`; undefined for a reference. */
function filePath(text: string): string | undefined {
  return text.startsWith(FILE_SCHEME) ? text.slice(FILE_SCHEME.length) : undefined;
}

/** An archive that can be read in place: a compressed one is unpacked once. */
async function plainArchive(path: string, workDir: string, signal: AbortSignal): Promise<string> {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) return path;
  const file = await open(path);
  const head = Buffer.alloc(4);
  try {
    await file.read(head, 0, head.length, 0);
  } finally {
    await file.close();
  }
  if (compressionOf(head) === 'none') return path;
  const plain = join(workDir, 'source.tar');
  const bytes = createReadStream(path, { highWaterMark: 1024 * 1024 }) as AsyncIterable<Uint8Array>;
  await pipeline(decoded(bytes, signal), createWriteStream(plain), { signal });
  return plain;
}

interface Places {
  source: string;
  target: string;
  /** name of the image in a layout or archive */
  name: string;
}

function placesOf(ctx: NydusifyContext): Places {
  const source = ctx.values.text('source') ?? '';
  const target = ctx.values.text('target') ?? '';
  if (target === '') throw wrong('--target is required');
  const full = (text: string): string =>
    filePath(text) === undefined ? formatReference(parseReference(text)) : text;
  const places = { source: full(source), target: full(target) };
  const path = filePath(target);
  if (path !== undefined) {
    const parent = dirname(path.replace(/(?<=.)\/+$/, ''));
    if (statSync(parent, { throwIfNoEntry: false })?.isDirectory() !== true)
      throw wrong(`target archive directory not accessible: ${parent}`);
  }
  const named = [places.source, places.target].find((text) => filePath(text) === undefined);
  return { ...places, name: named ?? 'localhost/image:latest' };
}

async function openSource(ctx: NydusifyContext, places: Places, workDir: string): Promise<ImageSource> {
  const path = filePath(places.source);
  if (path !== undefined) return openLocalSource(await plainArchive(path, workDir, ctx.signal), places.name);
  const insecure = ctx.values.on('source-insecure');
  return openRegistrySource(await openTransport(ctx, places.source, { insecure }), places.source);
}

async function openSink(ctx: NydusifyContext, places: Places, workDir: string): Promise<CopySink> {
  const chunkSize = parseSize(ctx.values.text('push-chunk-size') ?? '0', 'push-chunk-size');
  const path = filePath(places.target);
  if (path !== undefined) {
    const unique = basename(workDir);
    if (isDirectoryPath(path))
      return targetSink(await layoutTarget(path.replace(/(?<=.)\/+$/, ''), places.name, unique));
    const state = await ConvertState.open(workDir);
    return targetSink(await archiveTarget({ path, imageName: places.name, blobDir: workDir, state, unique }));
  }
  const reference = parseReference(places.target);
  const from = filePath(places.source) === undefined ? parseReference(places.source) : undefined;
  const near = from?.host === reference.host && from.repository !== reference.repository;
  return registrySink({
    reference,
    transport: await openTransport(ctx, places.target, { insecure: ctx.values.on('target-insecure') }),
    mountFrom: near ? [from.repository] : [],
    chunkSize,
  });
}

/** What a copy did, for people. */
export function totalsText({ parts, bytes }: CopyTotals): string {
  const out = [`${parts.copied} layers copied (${showBytes(bytes.copied)})`];
  if (parts.mounted > 0) out.push(`${parts.mounted} mounted from the source (${showBytes(bytes.mounted)})`);
  if (parts.exists > 0) out.push(`${parts.exists} there already (${showBytes(bytes.exists)})`);
  return out.join(', ');
}

async function copy(
  ctx: NydusifyContext,
  places: Places,
  choice: BackendChoice | undefined,
  workDir: string,
): Promise<void> {
  const { values, signal } = ctx;
  const platforms = values.on('all-platforms') ? undefined : parsePlatforms(values.text('platform'));
  const source = await openSource(ctx, places, workDir);
  try {
    const gathered = await gather(source, platforms, (values.text('platform') ?? '') !== '', signal);
    const sink = await openSink(ctx, places, workDir);
    try {
      const context = { logger: ctx.log, signal };
      let totals: CopyTotals;
      if (choice === undefined) totals = await copyImage(gathered, source, sink, context);
      else {
        const [{ withBackendBlobs }, { openBackendChoice }] = await Promise.all([
          import('../../convert/copy/from-backend.ts'),
          import('./open-backend.ts'),
        ]);
        const backend = openBackendChoice(choice, ctx.log);
        try {
          const from = await withBackendBlobs(gathered, source, backend, workDir, signal);
          totals = await copyImage(from.gathered, from.source, sink, context, from.open);
        } finally {
          await backend.close();
        }
      }
      ctx.log.info(`copied ${places.source} to ${places.target}: ${totalsText(totals)}`);
    } finally {
      await sink.close();
    }
  } finally {
    await source.close();
  }
}

/** @returns exit status */
export async function runCopy(ctx: NydusifyContext): Promise<number> {
  const places = placesOf(ctx);
  const choice = readBackend(ctx.values, 'source-');
  await withWorkDir(ctx.values.text('work-dir') ?? './tmp', (folder) => copy(ctx, places, choice, folder));
  return 0;
}
