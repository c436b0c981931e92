// The two ways to an image in a registry: the whole of it, downloaded and unpacked as container engines do it, or just the
// bootstrap, with the data left where it is.
import { spawn } from 'node:child_process';
import { createWriteStream, createReadStream, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { decoded } from '../../src/convert/mount/decoded.ts';
import { extractBootstrap } from '../../src/convert/mount/bootstrap-files.ts';
import { TarParser } from '../../src/format/tar/archive.ts';
import { parseManifest } from '../../src/registry/manifest.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import type { Workshop } from './workshop.ts';

const forever = new AbortController().signal;

/** An image in a registry that speaks HTTP. */
export interface Place {
  host: string;
  repository: string;
  tag: string;
}

async function withRepository<T>(place: Place, work: (repository: Repository) => Promise<T>): Promise<T> {
  const transport = new RegistryTransport({ host: place.host, plainHttp: true });
  try {
    return await work(new Repository(transport, place.repository));
  } finally {
    await transport.close();
  }
}

/** What an image says about running it. */
export interface ImageSettings {
  Entrypoint?: string[];
  Cmd?: string[];
  Env?: string[];
  WorkingDir?: string;
}

/** The `config` object of an image. */
export function settingsOf(place: Place): Promise<ImageSettings> {
  return withRepository(place, async (repository) => {
    const { config } = parseManifest((await repository.manifest(place.tag)).bytes);
    const pieces: Uint8Array[] = [];
    for await (const piece of repository.blob(config.digest, config.size)) pieces.push(piece);
    return (JSON.parse(Buffer.concat(pieces).toString()) as { config?: ImageSettings }).config ?? {};
  });
}

/** Bytes of the layers, compressed as they are. */
export function sizeOf(place: Place): Promise<number> {
  return withRepository(place, async (repository) => {
    const { layers } = parseManifest((await repository.manifest(place.tag)).bytes);
    return layers.reduce((sum, { size }) => sum + size, 0);
  });
}

/** Fetch the bootstrap of a nydus image. @returns its path */
export function pullBootstrap(place: Place, dir: string): Promise<string> {
  return withRepository(place, async (repository) => {
    const { layers } = parseManifest((await repository.manifest(place.tag)).bytes);
    const last = layers.at(-1);
    if (last === undefined) throw new Error('the image has no layers');
    const open = (): AsyncIterable<Uint8Array> => repository.blob(last.digest, last.size);
    return (await extractBootstrap({ open }, dir, forever)).bootstrap;
  });
}

/** Names of a tar as it goes by. */
async function* noting(chunks: AsyncIterable<Uint8Array>, names: Set<string>): AsyncGenerator<Uint8Array> {
  const parser = new TarParser();
  for await (const chunk of chunks) {
    parser.feed(chunk);
    for (let event = parser.next(); event !== undefined; event = parser.next()) {
      if (event.type !== 'entry') continue;
      parser.skipData();
      names.add(
        Buffer.from(event.entry.name)
          .toString()
          .replace(/^(\.?\/)+/, '')
          .replace(/\/$/, ''),
      );
    }
    yield chunk;
  }
}

/** Take away what a layer says is gone. Source: OCI image-spec 1.1, layer.md "Whiteouts". */
function applyWhiteouts(root: string, names: ReadonlySet<string>): void {
  for (const name of names) {
    const slash = name.lastIndexOf('/') + 1;
    const [folder, base] = [name.slice(0, slash), name.slice(slash)];
    if (!base.startsWith('.wh.')) continue;
    const gone = base === '.wh..wh..opq' ? readdirSync(join(root, folder)) : [base.slice('.wh.'.length)];
    for (const child of gone)
      if (!names.has(folder + child)) rmSync(join(root, folder, child), { recursive: true, force: true });
  }
}

async function unpack(shop: Workshop, file: string, root: string): Promise<void> {
  const tar = spawn('tar', ['-xpf', '-', '-C', root, '--exclude=.wh.*', '--numeric-owner'], {
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  shop.adopt(tar);
  let errors = '';
  tar.stderr.on('data', (piece: Buffer) => (errors += piece.toString()));
  const ended = new Promise<number | null>((resolve) => tar.on('close', resolve));
  const names = new Set<string>();
  const bytes = createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Uint8Array>;
  // tar stops at the mark of its end and closes the pipe, whatever padding follows; its status tells how it went
  const feed = Readable.from(noting(decoded(bytes, forever), names), { objectMode: false });
  await pipeline(feed, tar.stdin).catch(() => undefined);
  // device nodes of an image need root; everything else must be there
  if ((await ended) !== 0 && process.getuid?.() === 0) throw new Error(`tar: ${errors}`);
  applyWhiteouts(root, names);
  rmSync(file);
}

/** Download all layers side by side and unpack them one after the other. @returns the tree */
export async function pullWhole(shop: Workshop, place: Place): Promise<string> {
  const root = shop.path('whole');
  mkdirSync(root);
  await withRepository(place, async (repository) => {
    const { layers } = parseManifest((await repository.manifest(place.tag)).bytes);
    const downloads = layers.map(async ({ digest, size }, at) => {
      const file = shop.path(`whole-${at}`);
      await pipeline(
        Readable.from(repository.blob(digest, size), { objectMode: false }),
        createWriteStream(file),
      );
      return file;
    });
    const all = Promise.all(downloads);
    all.catch(() => {});
    for (const download of downloads) await unpack(shop, await download, root);
    await all;
  });
  return root;
}
