// The build cache: an index in a registry whose manifests list blobs with the digests of the source layers they were
// built from. Source: nydus-image-and-nydusify.md 7.6.
import { FormatError, messageOf, RegistryError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { openImage } from '../format/detect.ts';
import { loadInlineBootstrap } from '../rafs/open-inline.ts';
import { formatReference, type Reference } from '../registry/reference.ts';
import { Repository } from '../registry/repository.ts';
import type { RegistryTransport } from '../registry/transport.ts';
import { blobDescriptor } from './blob-descriptor.ts';
import type { BlobOptions } from './layer.ts';
import {
  Annotation,
  document,
  isIndexType,
  MediaType,
  parseIndex,
  parseManifest,
  parseObject,
  type Descriptor,
  type Platform,
} from './oci.ts';
import type { LayerInput } from './source.ts';

/** What upstream writes when nobody says otherwise; then every version is taken. */
export const DEFAULT_CACHE_VERSION = 'v1';

export interface BuildCacheOptions {
  reference: Reference;
  /** the cache owns it and closes it */
  transport: RegistryTransport;
  version: string;
  maxRecords: number;
  logger: Logger;
}

/** A blob that was built from a source layer. */
export interface CacheRecord {
  source: string;
  blob: Descriptor;
}

interface CachedImage {
  platform: Platform | undefined;
  records: CacheRecord[];
}

function samePlatform(a: Platform | undefined, b: Platform | undefined): boolean {
  return a?.os === b?.os && a?.architecture === b?.architecture && (a?.variant ?? '') === (b?.variant ?? '');
}

/** Reads the image that stores the cache, and writes it anew. */
export class BuildCache {
  readonly name: string;
  readonly reference: Reference;
  readonly #options: BuildCacheOptions;
  readonly #repository: Repository;
  #images: CachedImage[] = [];
  readonly #records = new Map<string, CacheRecord>();

  private constructor(options: BuildCacheOptions) {
    this.#options = options;
    this.reference = options.reference;
    this.name = formatReference(options.reference);
    this.#repository = new Repository(options.transport, options.reference.repository);
  }

  /** Open a cache. One that cannot be read is as good as an empty one: the conversion goes on. */
  static async open(options: BuildCacheOptions, signal: AbortSignal): Promise<BuildCache> {
    const cache = new BuildCache(options);
    try {
      await cache.#pull(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RegistryError || error instanceof FormatError)) throw error;
      if (!(error instanceof RegistryError && error.status === 404))
        options.logger.warn(`build cache ${cache.name} cannot be read: ${messageOf(error)}`);
    }
    return cache;
  }

  async #pull(signal: AbortSignal): Promise<void> {
    const { digest, tag = 'latest' } = this.reference;
    const root = await this.#repository.manifest(digest ?? tag, signal);
    // what is no index is no cache
    if (!isIndexType(root.mediaType)) return;
    for (const entry of parseIndex(root.bytes, root.mediaType).manifests) {
      const { bytes } = await this.#repository.manifest(entry.digest, signal);
      const value = parseObject(bytes, 'cache manifest');
      const annotations = value['annotations'] as Record<string, unknown> | undefined;
      if (!this.#takes(annotations?.[Annotation.cacheVersion])) continue;
      const records: CacheRecord[] = [];
      for (const layer of parseManifest(bytes, entry.mediaType).layers) {
        const source = layer.annotations?.[Annotation.sourceDigest];
        if (layer.mediaType !== MediaType.nydusBlob || source === undefined) continue;
        const record = { source, blob: layer };
        records.push(record);
        if (!this.#records.has(source)) this.#records.set(source, record);
      }
      this.#images.push({ platform: entry.platform, records });
    }
  }

  /** Upstream labels every cache with an empty text, so the default version and that text fit everything. */
  #takes(version: unknown): boolean {
    const wanted = this.#options.version;
    return wanted === DEFAULT_CACHE_VERSION || version === undefined || version === '' || version === wanted;
  }

  /** Layers that the cache has. */
  get size(): number {
    return this.#records.size;
  }

  find(source: string): CacheRecord | undefined {
    return this.#records.get(source);
  }

  /** A blob of the cache, to be read as a layer is. */
  input({ digest, size }: Descriptor): LayerInput {
    return { open: (signal) => this.#repository.blob(digest, size, signal) };
  }

  /**
   * The bootstrap in a cached blob.
   *
   * @throws FormatError it has none, or was built with other options
   */
  async bootstrap(blob: Descriptor, options: BlobOptions, signal: AbortSignal): Promise<Uint8Array> {
    const { digest, size } = blob;
    const { bytes, toc } = await loadInlineBootstrap(
      (start, end) => this.#repository.blobRange(digest, start, end, signal),
      size,
    );
    const found = openImage(bytes).super;
    if (found.version !== options.version || found.chunkSize !== options.chunkSize)
      throw new FormatError(
        { struct: `cached blob ${digest}` },
        `is of version ${found.version} with chunks of ${found.chunkSize} bytes, ${options.version} and ${options.chunkSize} are wanted`,
      );
    if (found.compressor !== options.compressor)
      throw new FormatError(
        { struct: `cached blob ${digest}` },
        `is compressed with ${found.compressor}, ${options.compressor} is wanted`,
      );
    // with a table of contents the section was checked; without one only the digest of the whole blob can do it
    if (toc === undefined) for await (const _ of this.input(blob).open(signal));
    return bytes;
  }

  /**
   * Write the cache: records of this conversion first, then the older ones, as many as there may be.
   *
   * @param images records by platform
   * @param read   bytes of a blob that the cache's repository may not have
   */
  async push(
    images: readonly CachedImage[],
    read: (blob: Descriptor) => AsyncIterable<Uint8Array>,
    from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const near = from?.host === this.reference.host ? [from.repository] : [];
    const others = this.#images.filter(
      (old) => !images.some(({ platform }) => samePlatform(platform, old.platform)),
    );
    const entries: Descriptor[] = [];
    for (const image of [...images, ...others]) {
      const old = this.#images.find(({ platform }) => samePlatform(platform, image.platform))?.records ?? [];
      const seen = new Set<string>();
      const records = [...image.records, ...old]
        .filter(({ source }) => !seen.has(source) && seen.add(source))
        .slice(0, this.#options.maxRecords);
      for (const { blob } of image.records) {
        const { digest, size } = blob;
        await this.#repository.pushBlob(
          { digest, size, open: () => read(blob) },
          { mountFrom: near, signal },
        );
      }
      entries.push(await this.#pushManifest(image.platform, records, signal));
    }
    const index = document(
      { schemaVersion: 2, mediaType: MediaType.ociIndex, manifests: entries },
      MediaType.ociIndex,
    );
    await this.#repository.putManifest(
      MediaType.ociIndex,
      index.bytes,
      this.reference.tag ?? 'latest',
      signal,
    );
  }

  async #pushManifest(
    platform: Platform | undefined,
    records: readonly CacheRecord[],
    signal: AbortSignal,
  ): Promise<Descriptor> {
    const { os = 'linux', architecture = 'amd64' } = platform ?? {};
    const config = document(
      { architecture, os, rootfs: { type: 'layers', diff_ids: [] } },
      MediaType.ociConfig,
    );
    await this.#repository.pushBytes(config.bytes, { signal });
    const layers = records.map(({ source, blob }) => ({
      ...blobDescriptor(blob.digest, blob.size),
      annotations: { ...blob.annotations, [Annotation.blob]: 'true', [Annotation.sourceDigest]: source },
    }));
    const manifest = document(
      {
        schemaVersion: 2,
        mediaType: MediaType.ociManifest,
        config: config.descriptor,
        layers,
        annotations: { [Annotation.cacheVersion]: this.#options.version },
      },
      MediaType.ociManifest,
    );
    await this.#repository.putManifest(MediaType.ociManifest, manifest.bytes, undefined, signal);
    return { ...manifest.descriptor, ...(platform === undefined ? {} : { platform }) };
  }

  async close(): Promise<void> {
    await this.#options.transport.close();
  }
}
