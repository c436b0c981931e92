// What a copy takes from a source: the manifests of the wanted platforms, byte for byte, and the document that names them.
// Source: nydus-image-and-nydusify.md 9.5; OCI image-spec 1.1 (index, descriptor).
import { UsageError } from '../../base/errors.ts';
import {
  document,
  documentType,
  isAttestation,
  isIndexType,
  MediaType,
  parseIndex,
  parseManifest,
  parseObject,
  platformOf,
  type Descriptor,
  type Manifest,
} from '../oci.ts';
import { isWanted, noImageFor, type PlatformSpec } from '../platform.ts';
import type { ImageSource } from '../source.ts';

/** Indexes inside of indexes. */
const MAX_DEPTH = 4;

/** A manifest to copy. */
export interface GatheredManifest {
  descriptor: Descriptor;
  bytes: Uint8Array;
  manifest: Manifest;
}

/** Everything to copy. */
export interface Gathered {
  /** manifests first, then indexes that name them */
  manifests: GatheredManifest[];
  indexes: { descriptor: Descriptor; bytes: Uint8Array }[];
  /** what gets the name of the target: one of the manifests or indexes */
  root: { descriptor: Descriptor; bytes: Uint8Array };
}

class Gathering {
  readonly #source: ImageSource;
  readonly #signal: AbortSignal;
  readonly #seen = new Set<string>();
  readonly manifests: GatheredManifest[] = [];
  readonly indexes: { descriptor: Descriptor; bytes: Uint8Array }[] = [];

  constructor(source: ImageSource, signal: AbortSignal) {
    this.#source = source;
    this.#signal = signal;
  }

  async all(descriptor: Descriptor, bytes: Uint8Array, depth = 0): Promise<void> {
    if (this.#seen.has(descriptor.digest)) return;
    this.#seen.add(descriptor.digest);
    if (!isIndexType(descriptor.mediaType)) {
      this.manifests.push({ descriptor, bytes, manifest: parseManifest(bytes, descriptor.mediaType) });
      return;
    }
    if (depth >= MAX_DEPTH)
      throw new UsageError(`${this.#source.name}: more than ${MAX_DEPTH} indexes inside of each other`, {
        exitCode: 1,
      });
    for (const entry of parseIndex(bytes, descriptor.mediaType).manifests)
      await this.all(entry, await this.#source.document(entry, this.#signal), depth + 1);
    this.indexes.push({ descriptor, bytes });
  }
}

/** An index of some of the entries of another one; they stay as they were, also what we do not know about them. */
function partOf(bytes: Uint8Array, type: string, digests: ReadonlySet<string>): Gathered['root'] {
  const value = parseObject(bytes, 'index');
  const entries = (value['manifests'] as { digest: string }[]).filter(({ digest }) => digests.has(digest));
  return document({ ...value, manifests: entries }, type);
}

/**
 * Find out what to copy.
 *
 * @param platforms undefined = everything, attestations and nested indexes too
 * @param strict    a single manifest must match as well; otherwise it is taken whatever it is for
 * @throws UsageError exit 1  no platform matches
 */
export async function gather(
  source: ImageSource,
  platforms: readonly PlatformSpec[] | undefined,
  strict: boolean,
  signal: AbortSignal,
): Promise<Gathered> {
  const resolved = await source.resolve(signal);
  const mediaType = documentType(resolved.bytes, resolved.descriptor.mediaType);
  const root = { descriptor: { ...resolved.descriptor, mediaType }, bytes: resolved.bytes };
  const gathering = new Gathering(source, signal);
  if (platforms === undefined || !isIndexType(mediaType)) {
    await gathering.all(root.descriptor, root.bytes);
    const only = gathering.manifests[0];
    if (strict && platforms !== undefined && only !== undefined && !isIndexType(mediaType)) {
      const platform = platformOf(parseObject(await source.document(only.manifest.config, signal), 'config'));
      if (!isWanted(platforms, platform)) throw noImageFor(source.name, platforms, [platform]);
    }
    return { manifests: gathering.manifests, indexes: gathering.indexes, root };
  }
  const entries = parseIndex(root.bytes, mediaType).manifests.filter((entry) => !isAttestation(entry));
  const wanted = entries.filter(({ platform }) => isWanted(platforms, platform));
  if (wanted.length === 0)
    throw noImageFor(
      source.name,
      platforms,
      entries.map(({ platform }) => platform),
    );
  for (const entry of wanted) await gathering.all(entry, await source.document(entry, signal));
  const { manifests, indexes } = gathering;
  const [only] = wanted;
  const first = [...manifests, ...indexes].find(({ descriptor }) => descriptor.digest === only?.digest);
  if (wanted.length === 1 && first !== undefined) return { manifests, indexes, root: first };
  const type = mediaType === MediaType.dockerIndex ? MediaType.dockerIndex : MediaType.ociIndex;
  return { manifests, indexes, root: partOf(root.bytes, type, new Set(wanted.map(({ digest }) => digest))) };
}
