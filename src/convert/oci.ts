// OCI and Docker image documents: media types, annotations, and parsers that check what comes from outside.
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
import { sha256Of } from '../registry/verify.ts';
import { MAX_BLOB_COMPRESSED, MAX_LAYERS, MAX_MANIFEST_SIZE } from '../base/limits.ts';

/** Manifest, index or config; configs of real images stay far below it. */
export const MAX_DOCUMENT = MAX_MANIFEST_SIZE;
/** Entries of an index. */
const MAX_MANIFESTS = 4096;

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

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
  /** `os.version`, `os.features` and whatever else stood there; kept as it was */
  [other: string]: unknown;
}

export interface Descriptor {
  mediaType: string;
  /** `sha256:` and 64 hex digits */
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: Platform;
}

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

/** `sha256:<hex>` of bytes. */
export function digestOfBytes(bytes: Uint8Array): string {
  return sha256Of(bytes);
}

/** Hex part of a digest that `parseDescriptor` let through. */
export function hexOf(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** True for the digests we can verify. */
export function isDigest(text: unknown): text is string {
  return typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text);
}

export { isIndexType, isManifestType };

type Json = Record<string, unknown>;

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parse JSON that must be an object. */
export function parseObject(bytes: Uint8Array, struct: string): Json {
  if (bytes.length > MAX_DOCUMENT)
    throw new FormatError({ struct }, `has ${bytes.length} bytes, limit ${MAX_DOCUMENT}`);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw new FormatError({ struct }, 'is no JSON', { cause: error });
  }
  if (!isObject(value)) throw new FormatError({ struct }, 'is no JSON object');
  return value;
}

function textMap(value: unknown): Record<string, string> | undefined {
  if (!isObject(value)) return undefined;
  const texts = Object.entries(value).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string',
  );
  return Object.fromEntries(texts);
}

function parsePlatformObject(value: unknown): Platform | undefined {
  if (!isObject(value) || typeof value['os'] !== 'string' || typeof value['architecture'] !== 'string')
    return undefined;
  return value as Platform;
}

/** A descriptor of a manifest or index. @throws FormatError a field is missing or out of range */
export function parseDescriptor(value: unknown, struct: string, field: string): Descriptor {
  const fail = (problem: string): never => {
    throw new FormatError({ struct, field }, problem);
  };
  if (!isObject(value)) return fail('is no descriptor');
  const { mediaType, digest, size } = value;
  if (typeof mediaType !== 'string') return fail('has no mediaType');
  if (!isDigest(digest)) return fail(`digest ${JSON.stringify(digest)} is no sha256 digest`);
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 0 || size > MAX_BLOB_COMPRESSED)
    return fail(`size ${JSON.stringify(size)} is no number of 0 to ${MAX_BLOB_COMPRESSED}`);
  const annotations = textMap(value['annotations']);
  const platform = parsePlatformObject(value['platform']);
  return {
    mediaType,
    digest,
    size,
    ...(annotations === undefined ? {} : { annotations }),
    ...(platform === undefined ? {} : { platform }),
  };
}

function descriptors(value: unknown, struct: string, field: string, limit: number): Descriptor[] {
  if (!Array.isArray(value)) throw new FormatError({ struct, field }, 'is no list');
  if (value.length > limit)
    throw new FormatError({ struct, field }, `has ${value.length} entries, limit ${limit}`);
  return value.map((item, i) => parseDescriptor(item, struct, `${field}[${i}]`));
}

/** Media type of a document: what it says, else what its shape shows (old OCI documents say nothing). */
export function documentType(bytes: Uint8Array, fallback?: string): string {
  const value = parseObject(bytes, 'manifest');
  if (typeof value['mediaType'] === 'string') return value['mediaType'];
  if (fallback !== undefined && fallback !== '') return fallback;
  return Array.isArray(value['manifests']) ? MediaType.ociIndex : MediaType.ociManifest;
}

/** An image manifest, OCI or Docker schema 2. */
export function parseManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const value = parseObject(bytes, 'manifest');
  if (value['schemaVersion'] !== 2)
    throw new FormatError(
      { struct: 'manifest', field: 'schemaVersion' },
      `is ${JSON.stringify(value['schemaVersion'])}, only 2 is supported`,
    );
  return {
    mediaType,
    config: parseDescriptor(value['config'], 'manifest', 'config'),
    layers: descriptors(value['layers'], 'manifest', 'layers', MAX_LAYERS),
  };
}

/** An OCI index or Docker manifest list. */
export function parseIndex(bytes: Uint8Array, mediaType: string): Index {
  const value = parseObject(bytes, 'index');
  return { mediaType, manifests: descriptors(value['manifests'], 'index', 'manifests', MAX_MANIFESTS) };
}

/** An image config. @param layers number of layers its manifest has */
export function parseConfig(bytes: Uint8Array, layers: number): ImageConfig {
  const value = parseObject(bytes, 'config');
  const rootfs = value['rootfs'];
  const diffIds = isObject(rootfs) ? rootfs['diff_ids'] : undefined;
  if (!Array.isArray(diffIds) || !diffIds.every(isDigest))
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
  return { bytes, descriptor: { mediaType, digest: digestOfBytes(bytes), size: bytes.length } };
}
