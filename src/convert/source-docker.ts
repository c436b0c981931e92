// An archive as `docker save` writes it: manifest.json names a config and plain layer tars. It has no manifest in the
// sense of a registry, so one is made of what is there. Source: Docker image spec 1.2, "Combined Image JSON + Filesystem
// Changeset Format".
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import { createHash } from 'node:crypto';
import { FormatError, IntegrityError, UsageError, messageOf } from '../base/errors.ts';
import { MAX_LAYERS } from '../base/limits.ts';
import { readRange, readSmall, type FileRange, type LocalFiles } from './local-files.ts';
import { document, MAX_DOCUMENT, MediaType, parseConfig, type Descriptor } from './oci.ts';
import { verifyBytes, type ImageSource, type LayerInput } from './source.ts';
import type { WantedName } from './wanted-name.ts';
import { sha256Of } from '../registry/verify.ts';

const MANIFEST_FILE = 'manifest.json';
const READ_SIZE = 1024 * 1024;

interface SavedImage {
  config: string;
  names: string[];
  layers: string[];
}

/** True when the files are what `docker save` writes. */
export async function isDockerArchive(files: LocalFiles): Promise<boolean> {
  return (await files.find(MANIFEST_FILE)) !== undefined;
}

function texts(value: unknown): string[] | undefined {
  return Array.isArray(value) && value.every((item) => typeof item === 'string') ? value : undefined;
}

function parseSaved(bytes: Buffer): SavedImage[] {
  const fail = (problem: string): never => {
    throw new FormatError({ struct: MANIFEST_FILE }, problem);
  };
  let list: unknown;
  try {
    list = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new FormatError({ struct: MANIFEST_FILE }, 'is no JSON', { cause: error });
  }
  if (!Array.isArray(list)) return fail('is no list');
  return list.map((item: unknown, i) => {
    const { Config: config, RepoTags: names, Layers: layers } = (item ?? {}) as Record<string, unknown>;
    const paths = texts(layers);
    if (typeof config !== 'string') return fail(`entry ${i} has no Config`);
    if (paths === undefined) return fail(`entry ${i} has no Layers`);
    if (paths.length > MAX_LAYERS) return fail(`entry ${i} has ${paths.length} layers, limit ${MAX_LAYERS}`);
    return { config, names: texts(names) ?? [], layers: paths };
  });
}

function choose(images: readonly SavedImage[], wanted: WantedName, place: string): SavedImage {
  const found =
    images.find((image) => image.names.some((name) => wanted.matches(name))) ??
    (images.length === 1 ? images[0] : undefined);
  if (found !== undefined) return found;
  const names = images.flatMap((image) => image.names);
  throw new UsageError(`${place} holds ${images.length} images, none is called ${wanted.text}`, {
    exitCode: 1,
    hint: `it holds ${names.slice(0, 20).join(', ')}`,
  });
}

/** Plain bytes of a layer: some tools put compressed layers into such archives. */
async function* plain(input: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const iterator = input[Symbol.asyncIterator]();
  const first = await iterator.next();
  const head: Uint8Array = first.done === true ? new Uint8Array(0) : first.value;
  const whole = (async function* () {
    if (head.length > 0) yield head;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
  })();
  const gzip = head[0] === 0x1f && head[1] === 0x8b;
  const zstd = head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd;
  if (!gzip && !zstd) return yield* whole;
  const decoder = gzip
    ? createGunzip({ chunkSize: READ_SIZE })
    : createZstdDecompress({ chunkSize: READ_SIZE });
  const feeding = pipeline(Readable.from(whole, { objectMode: false }), decoder, { signal });
  feeding.catch(() => {}); // the loop below sees it
  try {
    for await (const chunk of decoder as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    if (signal.aborted) throw error;
    throw new FormatError({ struct: 'layer' }, `cannot be decompressed: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    decoder.destroy();
  }
}

async function* verifiedPlain(
  chunks: AsyncIterable<Uint8Array>,
  diffId: string,
  what: string,
): AsyncGenerator<Uint8Array> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found !== diffId)
    throw new IntegrityError(`${what}: plain bytes have digest ${found}, the config says ${diffId}`);
}

class DockerSource implements ImageSource {
  readonly name: string;
  readonly remote = false;
  readonly #files: LocalFiles;
  readonly #wanted: WantedName;
  readonly #documents = new Map<string, Buffer>();
  readonly #layers = new Map<string, { path: string; range: FileRange }>();

  constructor(files: LocalFiles, wanted: WantedName) {
    this.name = files.name;
    this.#files = files;
    this.#wanted = wanted;
  }

  async resolve(): Promise<{ descriptor: Descriptor; bytes: Uint8Array }> {
    const saved = choose(
      parseSaved(await readSmall(this.#files, MANIFEST_FILE, MAX_DOCUMENT)),
      this.#wanted,
      this.name,
    );
    const configBytes = await readSmall(this.#files, saved.config, MAX_DOCUMENT);
    const config = parseConfig(configBytes, saved.layers.length);
    const layers: Descriptor[] = [];
    for (const [i, path] of saved.layers.entries()) {
      const range = await this.#files.find(path);
      if (range === undefined) throw new FormatError({ struct: this.name }, `layer ${path} is missing`);
      const digest = config.rootfs.diff_ids[i] as string;
      this.#layers.set(digest, { path, range });
      layers.push({ mediaType: MediaType.dockerLayer, digest, size: range.end - range.start });
    }
    const configDescriptor = {
      mediaType: MediaType.dockerConfig,
      digest: sha256Of(configBytes),
      size: configBytes.length,
    };
    this.#documents.set(configDescriptor.digest, configBytes);
    return document(
      { schemaVersion: 2, mediaType: MediaType.dockerManifest, config: configDescriptor, layers },
      MediaType.dockerManifest,
    );
  }

  document(descriptor: Descriptor): Promise<Uint8Array> {
    const bytes = this.#documents.get(descriptor.digest);
    if (bytes === undefined) throw new FormatError({ struct: this.name }, `${descriptor.digest} is missing`);
    verifyBytes(bytes, descriptor, this.name);
    return Promise.resolve(bytes);
  }

  layer(descriptor: Descriptor): LayerInput {
    const found = this.#layers.get(descriptor.digest);
    if (found === undefined)
      throw new FormatError({ struct: this.name }, `layer ${descriptor.digest} is missing`);
    const { path, range } = found;
    const what = `${this.name}: ${path}`;
    return {
      open: (signal) => verifiedPlain(plain(readRange(range, signal), signal), descriptor.digest, what),
    };
  }

  async close(): Promise<void> {}
}

/** The image called `wanted` in a `docker save` archive. */
export function dockerSource(files: LocalFiles, wanted: WantedName): ImageSource {
  return new DockerSource(files, wanted);
}
