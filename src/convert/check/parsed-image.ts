// What a reference holds: an OCI image, a nydus image, or both in one index. Source: nydus-image-and-nydusify.md 9.4.
import { FormatError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import {
  Annotation,
  documentType,
  isIndexType,
  MediaType,
  parseIndex,
  parseManifest,
  parseObject,
  type Descriptor,
  type Manifest,
} from '../oci.ts';
import type { PlatformSpec } from '../platform.ts';
import type { ImageSource } from '../source.ts';

const NYDUS_ARTIFACT = 'application/vnd.nydus.image.manifest.v1+json';
const LEGACY_FEATURE = 'nydus.remoteimage.v1';

/** One image, its documents as parsed JSON. */
export interface ParsedImage {
  descriptor: Descriptor;
  manifest: Manifest;
  manifestJson: Record<string, unknown>;
  config: Record<string, unknown>;
  /** `rootfs.diff_ids` of the config, whatever is in it */
  diffIds: unknown[];
}

/** The images of a reference. */
export interface ParsedReference {
  name: string;
  index: Record<string, unknown> | undefined;
  oci: ParsedImage | undefined;
  nydus: ParsedImage | undefined;
}

/** A nydus image ends in a gzipped layer that says it is the bootstrap. */
export function isNydusManifest(manifest: Manifest): boolean {
  const last = manifest.layers.at(-1);
  return (
    (last?.mediaType === MediaType.ociLayerGzip || last?.mediaType === MediaType.dockerLayerGzip) &&
    last.annotations?.[Annotation.bootstrap] === 'true'
  );
}

async function load(
  source: ImageSource,
  descriptor: Descriptor,
  bytes: Uint8Array,
  signal: AbortSignal,
): Promise<ParsedImage> {
  const manifest = parseManifest(bytes, descriptor.mediaType);
  const config = parseObject(await source.document(manifest.config, signal), 'config');
  const ids = (config['rootfs'] as { diff_ids?: unknown } | undefined)?.diff_ids;
  const manifestJson = parseObject(bytes, 'manifest');
  return { descriptor, manifest, manifestJson, config, diffIds: Array.isArray(ids) ? ids : [] };
}

/** What an entry of an index says about itself, without asking the registry. */
function saysNydus(raw: unknown): boolean {
  const { artifactType, platform } = raw as { artifactType?: unknown; platform?: Record<string, unknown> };
  const features = platform?.['os.features'];
  return artifactType === NYDUS_ARTIFACT || (Array.isArray(features) && features.includes(LEGACY_FEATURE));
}

function place(parsed: ParsedReference, image: ParsedImage, nydus: boolean): void {
  if (nydus) parsed.nydus ??= image;
  else parsed.oci ??= image;
}

/**
 * Find the images of a reference.
 *
 * @throws FormatError a document breaks its format, or there is no image for the platform
 */
export async function parseImages(
  source: ImageSource,
  platform: PlatformSpec,
  logger: Logger,
  signal: AbortSignal,
): Promise<ParsedReference> {
  const { descriptor, bytes } = await source.resolve(signal);
  const mediaType = documentType(bytes, descriptor.mediaType);
  const parsed: ParsedReference = { name: source.name, index: undefined, oci: undefined, nydus: undefined };
  if (!isIndexType(mediaType)) {
    const image = await load(source, { ...descriptor, mediaType }, bytes, signal);
    const { architecture } = image.config;
    if (architecture !== platform.architecture)
      logger.warn(`${source.name} is for ${String(architecture)}, expected ${platform.architecture}`);
    place(parsed, image, isNydusManifest(image.manifest));
    return parsed;
  }
  parsed.index = parseObject(bytes, 'index');
  const raw = parsed.index['manifests'] as unknown[];
  for (const [at, entry] of parseIndex(bytes, mediaType).manifests.entries()) {
    const { os, architecture } = entry.platform ?? { os: platform.os, architecture: platform.architecture };
    if (os !== platform.os || architecture !== platform.architecture) continue;
    const image = await load(source, entry, await source.document(entry, signal), signal);
    for (const field of ['architecture', 'os']) {
      if (typeof image.config[field] !== 'string' || image.config[field] === '')
        throw new FormatError({ struct: `config of ${entry.digest}`, field }, 'is missing');
    }
    place(
      parsed,
      image,
      saysNydus(raw[at]) || (entry.platform !== undefined && isNydusManifest(image.manifest)),
    );
  }
  if (parsed.oci === undefined && parsed.nydus === undefined)
    throw new FormatError(
      { struct: source.name },
      `has no image for ${platform.os}/${platform.architecture}`,
    );
  return parsed;
}
