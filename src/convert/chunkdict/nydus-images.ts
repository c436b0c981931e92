// The nydus images that a reference holds, for the platforms wanted, each with its bootstrap.
// Source: nydus-image-and-nydusify.md 7.2, 7.5.
import { UsageError } from '../../base/errors.ts';
import {
  Annotation,
  documentType,
  isIndexType,
  isManifestType,
  parseConfig,
  parseIndex,
  parseManifest,
  platformOf,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  type Platform,
} from '../oci.ts';
import { isWanted, showPlatform, type PlatformSpec } from '../platform.ts';
import type { ImageSource } from '../source.ts';

/** One nydus image. */
export interface NydusImage {
  descriptor: Descriptor;
  manifest: Manifest;
  config: ImageConfig;
  platform: Platform | undefined;
  /** the last layer, with the bootstrap */
  bootstrap: Descriptor;
}

/** The last layer when it is marked as one with a bootstrap. */
export function bootstrapLayerOf({ layers }: Manifest): Descriptor | undefined {
  const last = layers.at(-1);
  return last?.annotations?.[Annotation.bootstrap] === 'true' ? last : undefined;
}

/**
 * Nydus images of a source.
 *
 * @param platforms undefined = all; a source that is no index is taken as it is
 * @throws UsageError exit 1  there is none
 */
export async function nydusImages(
  source: ImageSource,
  platforms: readonly PlatformSpec[] | undefined,
  signal: AbortSignal,
): Promise<NydusImage[]> {
  const { descriptor, bytes } = await source.resolve(signal);
  const images: NydusImage[] = [];
  const take = async (entry: Descriptor, document: Uint8Array, type: string): Promise<void> => {
    const manifest = parseManifest(document, type);
    const bootstrap = bootstrapLayerOf(manifest);
    if (bootstrap === undefined) return;
    const config = parseConfig(await source.document(manifest.config, signal), manifest.layers.length);
    const platform = entry.platform ?? platformOf(config);
    images.push({ descriptor: entry, manifest, config, platform, bootstrap });
  };
  const type = documentType(bytes, descriptor.mediaType);
  if (isIndexType(type)) {
    for (const entry of parseIndex(bytes, type).manifests) {
      if (isWanted(platforms, entry.platform) && isManifestType(entry.mediaType))
        await take(entry, await source.document(entry, signal), entry.mediaType);
    }
  } else await take(descriptor, bytes, type);
  if (images.length > 0) return images;
  const which = platforms === undefined ? '' : ` for ${platforms.map(showPlatform).join(', ')}`;
  throw new UsageError(`${source.name} is no nydus image${which}`, {
    exitCode: 1,
    hint: 'name images that nydusify convert made',
  });
}
