// What a conversion wants of OCI and Docker image documents, with the types and annotations of nydus images; how documents are
// checked is registry/manifest.ts.
// Source: OCI image-spec 1.1 (manifest, index, config, descriptor), Docker manifest schema 2,
// nydus-image-and-nydusify.md 7.1.
import { FormatError } from '../base/errors.ts';
import {
  DOCKER_CONFIG,
  DOCKER_LAYER_GZIP,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isIndexType,
  isManifestType,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_GZIP,
  OCI_MANIFEST,
} from '../registry/media-types.ts';
import {
  documentType,
  parseDescriptor as parseStored,
  parseIndex as parseStoredIndex,
  parseManifest as parseStoredManifest,
  parseObject,
  type Descriptor as Stored,
  type Platform,
} from '../registry/manifest.ts';
import { sha256Of } from '../registry/verify.ts';
import { MAX_MANIFEST_SIZE } from '../base/limits.ts';

/** Manifest, index or config; configs of real images stay far below it. */
export const MAX_DOCUMENT = MAX_MANIFEST_SIZE;

export const MediaType = {
  ociManifest: OCI_MANIFEST,
  ociIndex: OCI_INDEX,
  ociConfig: OCI_CONFIG,
  ociLayerGzip: OCI_LAYER_GZIP,
  dockerManifest: DOCKER_MANIFEST,
  dockerIndex: DOCKER_LIST,
  dockerConfig: DOCKER_CONFIG,
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  dockerLayerGzip: DOCKER_LAYER_GZIP,
  nydusBlob: 'application/vnd.oci.image.layer.nydus.blob.v1',
  nydusArtifact: 'application/vnd.nydus.image.manifest.v1+json',
  nydusConfig: 'application/vnd.nydus.image.config.v1+json',
} as const;

/** Keys of annotations that nydus readers look at. */
export const Annotation = {
  blob: 'containerd.io/snapshot/nydus-blob',
  bootstrap: 'containerd.io/snapshot/nydus-bootstrap',
  fsVersion: 'containerd.io/snapshot/nydus-fs-version',
  sourceDigest: 'containerd.io/snapshot/nydus-source-digest',
  sourceReference: 'containerd.io/snapshot/nydus-source-reference',
  builderVersion: 'containerd.io/snapshot/nydus-builder-version',
  cacheVersion: 'containerd.io/snapshot/nydus-cache-version',
  emptyLayer: 'containerd.io/snapshot/nydus-empty-layer',
  ociRefName: 'org.opencontainers.image.ref.name',
  containerdImageName: 'io.containerd.image.name',
  dockerReferenceType: 'vnd.docker.reference.type',
} as const;

export type { Platform };
export { documentType, isIndexType, isManifestType, parseObject };

/** What images are converted by: the members of a descriptor that concern it. */
export type Descriptor = Pick<Stored, 'mediaType' | 'digest' | 'size' | 'annotations' | 'platform'>;

export interface Manifest {
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
}

export interface Index {
  mediaType: string;
  manifests: Descriptor[];
}

/** Config document: only what is looked at is typed, the rest is carried along. */
export interface ImageConfig {
  architecture?: string;
  os?: string;
  variant?: string;
  rootfs: { type?: string; diff_ids: string[] };
  history?: unknown[];
  [other: string]: unknown;
}

/** Hex part of a digest that `parseDescriptor` let through. */
export function hexOf(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** True for the digests that can name blobs of nydus images. */
export function isSha256(text: unknown): text is string {
  return typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text);
}

/** What concerns a conversion. @throws FormatError  the digest cannot name a blob */
function wanted(descriptor: Stored, struct: string, field: string): Descriptor {
  const { mediaType, digest, size, annotations, platform } = descriptor;
  if (!isSha256(digest))
    throw new FormatError({ struct, field }, `digest ${descriptor.digest} is no sha256 digest`);
  return {
    mediaType,
    digest,
    size,
    ...(annotations === undefined ? {} : { annotations }),
    ...(platform === undefined ? {} : { platform }),
  };
}

/** A descriptor of a manifest or index. @throws FormatError a field is missing or out of range */
export function parseDescriptor(value: unknown, struct: string, field: string): Descriptor {
  return wanted(parseStored(value, struct, field), struct, field);
}

/** An image manifest, OCI or Docker schema 2. */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const { config, layers } = parseStoredManifest(bytes);
  return {
    mediaType,
    config: wanted(config, 'manifest', 'config'),
    layers: layers.map((layer, i) => wanted(layer, 'manifest', `layers[${i}]`)),
  };
}

/** An OCI index or Docker manifest list. */
export function parseIndex(bytes: Uint8Array, mediaType: string): Index {
  const { manifests } = parseStoredIndex(bytes);
  return { mediaType, manifests: manifests.map((entry, i) => wanted(entry, 'index', `manifests[${i}]`)) };
}

/** The platform that an image says it is for; undefined when it does not. */
export function platformOf({
  os,
  architecture,
  variant,
}: Readonly<Record<string, unknown>>): Platform | undefined {
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined;
  return { os, architecture, ...(typeof variant === 'string' && variant !== '' ? { variant } : {}) };
}

/** Entries that hold no image: attestations of BuildKit, which are indexed beside the images they speak of. */
export function isAttestation(entry: Descriptor): boolean {
  return (
    entry.annotations?.[Annotation.dockerReferenceType] !== undefined || entry.platform?.os === 'unknown'
  );
}

/** An image config. @param layers number of layers its manifest has */
export function parseConfig(bytes: Uint8Array, layers: number): ImageConfig {
  const value = parseObject(bytes, 'config');
  const diffIds = (value['rootfs'] as { diff_ids?: unknown } | null | undefined)?.diff_ids;
  if (!Array.isArray(diffIds) || !diffIds.every(isSha256))
    throw new FormatError({ struct: 'config', field: 'rootfs.diff_ids' }, 'is no list of sha256 digests');
  if (diffIds.length !== layers)
    throw new FormatError(
      { struct: 'config', field: 'rootfs.diff_ids' },
      `has ${diffIds.length} entries, the manifest has ${layers} layers`,
    );
  if (value['history'] !== undefined && value['history'] !== null && !Array.isArray(value['history']))
    throw new FormatError({ struct: 'config', field: 'history' }, 'is no list');
  return value as ImageConfig;
}

/** A document as it is stored: bytes and the descriptor that names them. */
export function document(value: object, mediaType: string): { bytes: Buffer; descriptor: Descriptor } {
  const bytes = Buffer.from(JSON.stringify(value));
  return { bytes, descriptor: { mediaType, digest: sha256Of(bytes), size: bytes.length } };
}
