// Which manifests of a source are converted. Source: nydus-image-and-nydusify.md 7.5, 9.1.
import { UsageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import {
  documentType,
  isAttestation,
  isIndexType,
  isManifestType,
  MediaType,
  parseConfig,
  parseIndex,
  parseManifest,
  platformOf,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  type Platform,
} from './oci.ts';
import { isWanted, matchesPlatform, noImageFor, showPlatform, type PlatformSpec } from './platform.ts';
import type { ImageSource } from './source.ts';

/** One image of a source, for one platform. */
export interface SelectedImage {
  /** descriptor of its manifest, without platform and annotations */
  descriptor: Descriptor;
  platform: Platform | undefined;
  manifest: Manifest;
  config: ImageConfig;
}

/** What the source is, and the images wanted from it. */
export interface Selection {
  /** media type of the index; undefined when the source is a single manifest */
  indexType: string | undefined;
  images: SelectedImage[];
}

function wrong(message: string, hint?: string): UsageError {
  return new UsageError(message, { exitCode: 1, ...(hint === undefined ? {} : { hint }) });
}

/** Schema 1 of Docker has layers without digests of their tars: nothing can be verified. */
function hintFor(mediaType: string): string | undefined {
  return mediaType.startsWith('application/vnd.docker.distribution.manifest.v1+')
    ? 'images of Docker before 1.10 must be pushed anew'
    : undefined;
}

/** Layers we can read: tar, plain or compressed with gzip or zstd; what is inside decides, not the name. */
function checkLayers(manifest: Manifest, place: string): void {
  if (manifest.layers.length === 0) throw wrong(`${place}: the image has no layers`);
  for (const { mediaType, digest } of manifest.layers) {
    if (mediaType === MediaType.nydusBlob) throw wrong(`${place}: the source is a nydus image already`);
    const known =
      /^application\/vnd\.oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?$/.test(mediaType) ||
      /^application\/vnd\.docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?$/.test(mediaType);
    if (!known) throw wrong(`${place}: layer ${digest} of media type ${mediaType} is not supported`);
  }
}

async function loadImage(
  source: ImageSource,
  entry: Descriptor,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<SelectedImage> {
  const { mediaType, digest, size, platform } = entry;
  const manifest = parseManifest(bytes, mediaType);
  checkLayers(manifest, source.name);
  const config = parseConfig(await source.document(manifest.config, signal), manifest.layers.length);
  return {
    descriptor: { mediaType, digest, size },
    platform: platform ?? platformOf(config),
    manifest,
    config,
  };
}

/**
 * Resolve a source and choose its images.
 *
 * @param platforms undefined = all
 * @throws UsageError exit 1  no platform matches, or the source is something that cannot be converted
 */
export async function selectImages(
  source: ImageSource,
  platforms: readonly PlatformSpec[] | undefined,
  logger: Logger,
  signal: AbortSignal,
): Promise<Selection> {
  const { descriptor, bytes } = await source.resolve(signal);
  const type = documentType(bytes, descriptor.mediaType);
  if (isManifestType(type)) {
    const image = await loadImage(source, { ...descriptor, mediaType: type }, bytes, signal);
    if (!isWanted(platforms, image.platform)) throw noImageFor(source.name, platforms, [image.platform]);
    return { indexType: undefined, images: [image] };
  }
  if (!isIndexType(type)) throw wrong(`${source.name}: media type ${type} is no image`, hintFor(type));
  const entries = parseIndex(bytes, type).manifests.filter((entry) => !isAttestation(entry));
  const images: SelectedImage[] = [];
  const seen = new Set<string>();
  for (const entry of entries) {
    if (!isWanted(platforms, entry.platform) || seen.has(entry.digest)) continue;
    seen.add(entry.digest);
    if (!isManifestType(entry.mediaType))
      throw wrong(
        `${source.name}: ${entry.digest} of media type ${entry.mediaType} in the index is no image manifest`,
      );
    const image = await loadImage(source, entry, await source.document(entry, signal), signal);
    if (isWanted(platforms, image.platform)) images.push(image);
  }
  if (images.length === 0)
    throw noImageFor(
      source.name,
      platforms,
      entries.map(({ platform }) => platform),
    );
  for (const wish of platforms ?? []) {
    if (!images.some(({ platform }) => platform !== undefined && matchesPlatform(wish, platform)))
      logger.warn(`${source.name} has no image for ${showPlatform(wish)}`);
  }
  return { indexType: type, images };
}
