// From a nydus image to an OCI image: every blob becomes a layer again, the bootstrap layer goes.
// Source: nydus-image-and-nydusify.md 9.2.
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip, createZstdCompress } from 'node:zlib';
import { UsageError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { BlobSet } from '../../rafs/blob-set.ts';
import { NO_NAMES } from '../../rafs/owner-names.ts';
import { unpackImage } from '../../rafs/unpack.ts';
import { openBackend } from '../../storage/backend/backend.ts';
import type { ConvertEvent, ConvertMetrics } from '../convert.ts';
import { eachOf } from '../copy/copy.ts';
import { gather, type GatheredManifest } from '../copy/gather.ts';
import { BOOTSTRAP_HISTORY, indexDocument } from '../manifest.ts';
import {
  Annotation,
  document,
  hexOf,
  isIndexType,
  MediaType,
  parseConfig,
  parseObject,
  type Descriptor,
  type ImageConfig,
} from '../oci.ts';
import { showPlatform, type PlatformSpec } from '../platform.ts';
import type { ImageSource } from '../source.ts';
import type { ImageTarget } from '../target.ts';
import { BlobFolder, layersOf, type BlobLayer } from './blobs.ts';

/** Names the diff id of a layer. */
const UNCOMPRESSED = 'containerd.io/uncompressed';
const NYDUS_PREFIX = 'containerd.io/snapshot/nydus-';
/** On layers whose data stays in the source layer. */
const REFERENCE = 'containerd.io/snapshot/nydus-ref';
const OCI_LAYER_ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd';
const DOWNLOADS_AT_ONCE = 3;
const CHUNK = { chunkSize: 256 * 1024 };

export interface ReverseOptions {
  /** undefined = all */
  platforms: PlatformSpec[] | undefined;
  compression: 'gzip' | 'zstd';
}

export interface ReverseContext {
  logger: Logger;
  signal: AbortSignal;
  progress: (event: ConvertEvent) => void;
  /** a directory of this run */
  workDir: string;
}

interface OciLayer {
  descriptor: Descriptor;
  diffId: string;
}

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

function isNydus({ manifest }: GatheredManifest): boolean {
  return manifest.layers.at(-1)?.annotations?.[Annotation.bootstrap] === 'true';
}

/** The layers with data. @throws UsageError exit 1  one of them is of another kind */
function blobsOf({ manifest }: GatheredManifest, name: string): Descriptor[] {
  const blobs = manifest.layers.slice(0, -1);
  if (blobs.length === 0)
    throw wrong(`${name}: the image has no blobs of its own`, 'copy it with the blobs of its backend first');
  for (const { digest, mediaType, annotations } of blobs) {
    if (annotations?.[REFERENCE] !== undefined)
      throw wrong(
        `${name}: layer ${digest} keeps its data in ${annotations[REFERENCE]}`,
        'such an image is read through its source layers: pull the source image',
      );
    if (mediaType !== MediaType.nydusBlob && annotations?.[Annotation.blob] !== 'true')
      throw wrong(`${name}: layer ${digest} of media type ${mediaType} is no nydus blob`);
  }
  return blobs;
}

/** The config without what the converter added. */
function originalConfig(config: ImageConfig, diffIds: string[]): ImageConfig {
  const isBootstrap = (entry: unknown): boolean => {
    const { created_by: by, comment } = (entry ?? {}) as Record<string, unknown>;
    return by === BOOTSTRAP_HISTORY.created_by && comment === BOOTSTRAP_HISTORY.comment;
  };
  const history = config.history?.filter((entry) => !isBootstrap(entry));
  return {
    ...config,
    rootfs: { ...config.rootfs, diff_ids: diffIds },
    ...(history === undefined ? {} : { history }),
  };
}

function otherAnnotations(bytes: Uint8Array): { annotations?: Record<string, unknown> } {
  const found = parseObject(bytes, 'manifest')['annotations'];
  const kept = Object.entries((found ?? {}) as Record<string, unknown>).filter(
    ([key]) => !key.startsWith(NYDUS_PREFIX),
  );
  return kept.length === 0 ? {} : { annotations: Object.fromEntries(kept) };
}

class Reversal {
  readonly #options: ReverseOptions;
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #context: ReverseContext;
  readonly #metrics: ConvertMetrics;
  readonly #folder: BlobFolder;
  /** by digest of the blob: platforms share layers */
  readonly #layers = new Map<string, OciLayer>();

  constructor(
    options: ReverseOptions,
    source: ImageSource,
    target: ImageTarget,
    context: ReverseContext,
    metrics: ConvertMetrics,
    folder: BlobFolder,
  ) {
    this.#options = options;
    this.#source = source;
    this.#target = target;
    this.#context = context;
    this.#metrics = metrics;
    this.#folder = folder;
  }

  async image(found: GatheredManifest): Promise<{ manifest: Descriptor; bytes: Buffer }> {
    const { manifest, bytes, descriptor } = found;
    const { signal, progress } = this.#context;
    const blobs = blobsOf(found, this.#source.name);
    const size = blobs.reduce((sum, blob) => sum + blob.size, 0);
    const platform = descriptor.platform === undefined ? 'unknown' : showPlatform(descriptor.platform);
    progress({ event: 'image', platform, digest: descriptor.digest, layers: blobs.length, size });
    this.#metrics.sourceImageSize += size + (manifest.layers.at(-1)?.size ?? 0);
    const source = await this.#source.document(manifest.config, signal);
    const config = parseConfig(source, manifest.layers.length);
    await eachOf(blobs, DOWNLOADS_AT_ONCE, (blob) => this.#folder.fetch(blob));
    const layers: OciLayer[] = [];
    for (const layer of await layersOf(blobs, this.#folder)) layers.push(await this.#layer(layer));
    // Docker has no name for zstd
    const oci = descriptor.mediaType === MediaType.ociManifest || this.#options.compression === 'zstd';
    const newConfig = document(
      originalConfig(
        config,
        layers.map(({ diffId }) => diffId),
      ),
      oci ? MediaType.ociConfig : MediaType.dockerConfig,
    );
    await this.#target.putDocument(newConfig.bytes, newConfig.descriptor, signal);
    this.#metrics.targetImageSize += newConfig.descriptor.size;
    const mediaType = oci ? MediaType.ociManifest : MediaType.dockerManifest;
    const type = !oci
      ? MediaType.dockerLayerGzip
      : this.#options.compression === 'zstd'
        ? OCI_LAYER_ZSTD
        : MediaType.ociLayerGzip;
    const made = document(
      {
        schemaVersion: 2,
        mediaType,
        config: newConfig.descriptor,
        layers: layers.map((layer) => ({ ...layer.descriptor, mediaType: type })),
        ...otherAnnotations(bytes),
      },
      mediaType,
    );
    return { manifest: made.descriptor, bytes: made.bytes };
  }

  async #layer(layer: BlobLayer): Promise<OciLayer> {
    const { digest, size } = layer.layer;
    const known = this.#layers.get(digest);
    if (known !== undefined) return known;
    const { progress } = this.#context;
    progress({ event: 'layer', state: 'converting', digest, done: 0, size });
    const made = await this.#unpack(layer);
    this.#layers.set(digest, made);
    this.#metrics.targetImageSize += made.descriptor.size;
    const { digest: target, size: targetSize } = made.descriptor;
    progress({ event: 'layer', state: 'done', digest, size, target, targetSize, how: 'built' });
    return made;
  }

  async #unpack({ layer, image }: BlobLayer): Promise<OciLayer> {
    const { logger, signal } = this.#context;
    const localfs = {
      blob_file: '',
      dir: this.#folder.dir,
      alt_dirs: [],
      readahead: false,
      readahead_sec: 0,
    };
    const others = { localdisk: null, oss: null, s3: null, registry: null, 'http-proxy': null };
    const backend = openBackend({ type: 'localfs', localfs, ...others }, logger);
    try {
      const blobs = await BlobSet.open({ bootstrap: image, backend, logger });
      try {
        // names of this machine would make other layers on every machine
        const tar = unpackImage({ image: image.image, blobs, names: NO_NAMES, signal });
        return await this.#store(tar, hexOf(layer.digest));
      } finally {
        await blobs.close();
      }
    } finally {
      await backend.close();
    }
  }

  /** Compress a tar into the target: as a stream where it takes one, else through a file. */
  async #store(tar: AsyncIterable<Uint8Array[]>, name: string): Promise<OciLayer> {
    const { signal } = this.#context;
    const plain = createHash('sha256');
    const joined = async function* (): AsyncGenerator<Uint8Array> {
      for await (const parts of tar) {
        const bytes = Buffer.concat(parts);
        plain.update(bytes);
        if (bytes.length > 0) yield bytes;
      }
    };
    const input = Readable.from(joined(), { objectMode: false });
    const packer: Transform =
      this.#options.compression === 'zstd' ? createZstdCompress(CHUNK) : createGzip(CHUNK);
    const stream = await this.#target.openBlob(signal, false);
    let descriptor: Descriptor;
    if (stream !== undefined) {
      try {
        const push = async (packed: AsyncIterable<Uint8Array>): Promise<void> => {
          for await (const bytes of packed) await stream.write([bytes]);
        };
        await pipeline(input, packer, push, { signal });
        descriptor = { mediaType: '', ...(await stream.finish()) };
      } catch (error) {
        await stream.cancel();
        throw error;
      }
    } else {
      const file = join(this.#target.blobDir, `reverse-${name}`);
      const hash = createHash('sha256');
      let size = 0;
      const count = async function* (packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
        for await (const bytes of packed) {
          hash.update(bytes);
          size += bytes.length;
          yield bytes;
        }
      };
      await pipeline(input, packer, count, createWriteStream(file, { flags: 'wx' }), { signal });
      descriptor = { mediaType: '', digest: `sha256:${hash.digest('hex')}`, size };
      await this.#target.putFile(file, descriptor, signal);
    }
    const diffId = `sha256:${plain.digest('hex')}`;
    return { descriptor: { ...descriptor, annotations: { [UNCOMPRESSED]: diffId } }, diffId };
  }
}

/**
 * Turn a nydus image back into an OCI image.
 *
 * @returns descriptor of what got the target's name
 * @throws UsageError exit 1  the source is no nydus image, or one that holds no data
 * @throws IntegrityError     a blob or a chunk is damaged
 */
export async function reverseImage(
  options: ReverseOptions,
  source: ImageSource,
  target: ImageTarget,
  context: ReverseContext,
  metrics: ConvertMetrics,
): Promise<Descriptor> {
  const { signal, workDir, progress } = context;
  const gathered = await gather(source, options.platforms, true, signal);
  const images = gathered.manifests.filter(isNydus);
  if (images.length === 0) throw wrong(`${source.name}: the source is no nydus image`);
  const folder = await BlobFolder.create(join(workDir, 'blobs-of-source'), source, signal);
  const started = performance.now();
  const reversal = new Reversal(options, source, target, context, metrics, folder);
  const entries = [];
  for (const image of images) {
    const made = await reversal.image(image);
    entries.push({ ...made, platform: image.descriptor.platform });
  }
  metrics.conversionMs = performance.now() - started;
  const [only] = entries;
  const type = gathered.root.descriptor.mediaType;
  const root =
    entries.length === 1 && only !== undefined
      ? { bytes: only.bytes, descriptor: only.manifest }
      : indexDocument(entries, isIndexType(type) ? type : undefined, options.compression === 'zstd');
  if (entries.length > 1)
    for (const { bytes, manifest } of entries) await target.putDocument(bytes, manifest, signal);
  await target.finish(root.bytes, root.descriptor, signal);
  const { digest, mediaType } = root.descriptor;
  progress({ event: 'done', digest, mediaType, size: metrics.targetImageSize });
  return root.descriptor;
}
