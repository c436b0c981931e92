// A nydus image whose blobs are in a storage backend becomes one that a registry holds whole: blobs are listed from the
// bootstrap, read from the backend, and put before the bootstrap layer. Source: nydus-image-and-nydusify.md 9.5.
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import { effectiveBlobId } from '../../rafs/blob-id.ts';
import { openBootstrap } from '../../rafs/open.ts';
import type { Backend, BlobReader } from '../../storage/backend/backend.ts';
import { blobDescriptor } from '../blob-descriptor.ts';
import { extractBootstrap } from '../mount/bootstrap-files.ts';
import { Annotation, document, hexOf, parseObject, type Descriptor } from '../oci.ts';
import { verified, type ImageSource, type LayerInput } from '../source.ts';
import type { Gathered, GatheredManifest } from './gather.ts';
import type { OpenOther } from './copy.ts';
import type { OpenPart } from './sink.ts';

/** Bytes of one read from the backend. */
const READ_SIZE = 4 * 1024 * 1024;
/** Names the blobs of a backend in images of old converters; wrong once they are layers. */
const BLOB_IDS = 'containerd.io/snapshot/nydus-blob-ids';

async function* readBlob(reader: BlobReader, size: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < size;) {
    const bytes = await reader.read(at, Math.min(READ_SIZE, size - at), signal);
    if (bytes.length === 0) return; // too short: the digest tells
    yield bytes;
    at += bytes.length;
  }
}

/** A blob of a backend: its size, and its bytes, which end with an IntegrityError when they are not what the id says. */
export async function backendBlob(
  backend: Backend,
  id: string,
): Promise<{ size: number; open: (signal: AbortSignal) => AsyncIterable<Uint8Array> }> {
  const reader = await backend.open(id);
  const size = await reader.size();
  const expected = { digest: `sha256:${id}`, size };
  return {
    size,
    open: (signal) => verified(readBlob(reader, size, signal), expected, `blob ${id} of the backend`),
  };
}

/** Ids of the blobs that a bootstrap names. */
export function blobIdsOf(bootstrap: string): string[] {
  const opened = openBootstrap(bootstrap);
  try {
    return opened.image.blobs.map((blob) => effectiveBlobId(blob, undefined));
  } finally {
    opened.close();
  }
}

/** What replaces the gathered manifests. */
export interface FromBackend {
  gathered: Gathered;
  source: ImageSource;
  open: OpenOther;
}

class Rewriting {
  readonly documents = new Map<string, Uint8Array>();
  readonly blobs = new Map<string, OpenPart>();
  readonly #source: ImageSource;
  readonly #backend: Backend;
  readonly #signal: AbortSignal;

  constructor(source: ImageSource, backend: Backend, signal: AbortSignal) {
    this.#source = source;
    this.#backend = backend;
    this.#signal = signal;
  }

  async #blob(id: string): Promise<Descriptor> {
    const { size, open } = await backendBlob(this.#backend, id);
    const descriptor = blobDescriptor(`sha256:${id}`, size);
    this.blobs.set(descriptor.digest, () => open(this.#signal));
    return descriptor;
  }

  /** The manifest with the blobs of its bootstrap as layers; undefined when it is no nydus image. */
  async rewrite(entry: GatheredManifest, workDir: string): Promise<GatheredManifest | undefined> {
    const last = entry.manifest.layers.at(-1);
    if (last === undefined || last.annotations?.[Annotation.bootstrap] !== 'true') return undefined;
    const dir = await mkdtemp(join(workDir, 'bootstrap-'));
    const { bootstrap } = await extractBootstrap(this.#source.layer(last), dir, this.#signal);
    const known = new Set(entry.manifest.layers.map(({ digest }) => digest));
    const ids = blobIdsOf(bootstrap).filter((id) => !known.has(`sha256:${id}`));
    await rm(dir, { recursive: true });
    const blobs: Descriptor[] = [];
    for (const id of ids) blobs.push(await this.#blob(id));
    const config = parseObject(await this.#source.document(entry.manifest.config, this.#signal), 'config');
    const rootfs = config['rootfs'] as { diff_ids?: unknown[] } | undefined;
    const diffIds = [...blobs.map(({ digest }) => digest), ...(rootfs?.diff_ids ?? [])];
    const newConfig = document(
      { ...config, rootfs: { ...rootfs, diff_ids: diffIds } },
      entry.manifest.config.mediaType,
    );
    this.documents.set(newConfig.descriptor.digest, newConfig.bytes);
    const value = parseObject(entry.bytes, 'manifest');
    const layers = (value['layers'] as Descriptor[]).map((layer) => {
      const { [BLOB_IDS]: _, ...annotations } = layer.annotations ?? {};
      return layer.annotations === undefined ? layer : { ...layer, annotations };
    });
    const manifest = document(
      { ...value, config: newConfig.descriptor, layers: [...blobs, ...layers] },
      entry.descriptor.mediaType,
    );
    return {
      descriptor: { ...entry.descriptor, ...manifest.descriptor },
      bytes: manifest.bytes,
      manifest: {
        ...entry.manifest,
        config: newConfig.descriptor,
        layers: [...blobs, ...entry.manifest.layers],
      },
    };
  }
}

/**
 * Put the blobs of a backend into the manifests that need them.
 *
 * @param workDir an empty directory of this run
 * @throws BackendError a blob is missing; UsageError none of the images is a nydus image
 */
export async function withBackendBlobs(
  gathered: Gathered,
  source: ImageSource,
  backend: Backend,
  workDir: string,
  signal: AbortSignal,
): Promise<FromBackend> {
  const rewriting = new Rewriting(source, backend, signal);
  const changed = new Map<string, GatheredManifest>();
  const manifests: GatheredManifest[] = [];
  for (const entry of gathered.manifests) {
    const rewritten = await rewriting.rewrite(entry, workDir);
    if (rewritten !== undefined) changed.set(entry.descriptor.digest, rewritten);
    manifests.push(rewritten ?? entry);
  }
  if (changed.size === 0)
    throw new UsageError(`${source.name} is no nydus image, a backend has nothing to do with it`, {
      exitCode: 1,
      hint: 'leave --source-backend-type out',
    });
  const root = changed.get(gathered.root.descriptor.digest) ?? rewriteIndex(gathered.root, changed);
  const layer = (descriptor: Descriptor): LayerInput => source.layer(descriptor);
  return {
    gathered: { manifests, indexes: [], root },
    source: {
      name: source.name,
      remote: source.remote,
      resolve: (at) => source.resolve(at),
      document: (descriptor, at) => {
        const own = rewriting.documents.get(descriptor.digest);
        return own === undefined ? source.document(descriptor, at) : Promise.resolve(own);
      },
      layer,
      close: () => source.close(),
    },
    open: ({ digest }) => rewriting.blobs.get(digest),
  };
}

/** An index whose entries name the new manifests. */
function rewriteIndex(
  root: Gathered['root'],
  changed: ReadonlyMap<string, GatheredManifest>,
): Gathered['root'] {
  const value = parseObject(root.bytes, 'index');
  if (!Array.isArray(value['manifests'])) return root;
  const entries = (value['manifests'] as Descriptor[]).map((entry) => {
    const now = changed.get(entry.digest)?.descriptor;
    return now === undefined ? entry : { ...entry, digest: `sha256:${hexOf(now.digest)}`, size: now.size };
  });
  return document({ ...value, manifests: entries }, root.descriptor.mediaType);
}
