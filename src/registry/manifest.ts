// Manifests and indexes as values: checked, and otherwise kept as they are. Source: OCI image spec 1.1 "manifest.md",
// "image-index.md", "descriptor.md". Unknown members survive: a copy of a manifest must not lose them.
import { FormatError, messageOf } from '../base/errors.ts';
import { MAX_BLOB_COMPRESSED, MAX_LAYERS, MAX_MANIFEST_SIZE } from '../base/limits.ts';
import { isIndexType, isManifestType, OCI_INDEX, OCI_MANIFEST } from './media-types.ts';
import { isDigest } from './reference.ts';

export interface Platform {
  architecture: string;
  os: string;
  variant?: string;
  /** `os.version`, `os.features` and whatever else stood there; kept as it was */
  [other: string]: unknown;
}

/** What one object names another by. */
export interface Descriptor {
  mediaType: string;
  /** `sha256:<hex>` */
  digest: string;
  /** bytes */
  size: number;
  urls?: string[];
  annotations?: Record<string, string>;
  artifactType?: string;
  platform?: Platform;
}

export interface Manifest {
  schemaVersion: 2;
  mediaType?: string;
  artifactType?: string;
  config: Descriptor;
  layers: Descriptor[];
  subject?: Descriptor;
  annotations?: Record<string, string>;
}

export interface Index {
  schemaVersion: 2;
  mediaType?: string;
  artifactType?: string;
  manifests: Descriptor[];
  subject?: Descriptor;
  annotations?: Record<string, string>;
}

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields =>
  value !== null && typeof value === 'object' && !Array.isArray(value);

/** Parse JSON that must be an object. @throws FormatError EINVAL */
export function parseObject(bytes: Uint8Array, struct: string): Fields {
  if (bytes.length > MAX_MANIFEST_SIZE)
    throw new FormatError({ struct }, `has ${bytes.length} bytes, limit ${MAX_MANIFEST_SIZE}`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new FormatError({ struct }, `is no JSON: ${messageOf(error)}`, { cause: error });
  }
  if (!isObject(value)) throw new FormatError({ struct }, 'is no JSON object');
  return value;
}

function parseDocument(bytes: Uint8Array, struct: string): Fields {
  const value = parseObject(bytes, struct);
  if (value['schemaVersion'] !== 2) {
    const found = JSON.stringify(value['schemaVersion'] ?? null).slice(0, 40);
    throw new FormatError({ struct, field: 'schemaVersion' }, `is ${found}, only 2 is known`, {
      hint: 'images of Docker before 1.10 must be pushed anew',
    });
  }
  return value;
}

const isPlatform = (value: unknown): boolean =>
  isObject(value) && typeof value['os'] === 'string' && typeof value['architecture'] === 'string';

/** A descriptor of a manifest or index. @throws FormatError EINVAL  a field is missing or out of range */
export function parseDescriptor(value: unknown, struct: string, field: string): Descriptor {
  const place = { struct, field };
  if (!isObject(value)) throw new FormatError(place, 'is no descriptor');
  const { mediaType, digest, size, platform, ...others } = value;
  if (typeof digest !== 'string' || !isDigest(digest)) {
    throw new FormatError(place, `digest ${JSON.stringify(digest ?? null).slice(0, 100)} is none`);
  }
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 0 || size > MAX_BLOB_COMPRESSED) {
    const shown = JSON.stringify(size ?? null).slice(0, 40);
    throw new FormatError(place, `size ${shown} is no number of 0 to ${MAX_BLOB_COMPRESSED}`);
  }
  if (typeof mediaType !== 'string') throw new FormatError(place, 'has no mediaType');
  for (const text of Object.values(isObject(value['annotations']) ? value['annotations'] : {})) {
    if (typeof text !== 'string') throw new FormatError(place, 'has an annotation that is no text');
  }
  if (platform === undefined || isPlatform(platform)) return value as unknown as Descriptor;
  // one without system or architecture says nothing
  return { mediaType, digest, size, ...others };
}

function parseList(value: unknown, struct: string, field: string): Descriptor[] {
  if (!Array.isArray(value)) throw new FormatError({ struct, field }, 'is no list');
  if (value.length > MAX_LAYERS) {
    throw new FormatError({ struct, field }, `has ${value.length} entries, the limit is ${MAX_LAYERS}`);
  }
  return value.map((entry, at) => parseDescriptor(entry, struct, `${field}[${at}]`));
}

/** @throws FormatError EINVAL */
export function parseManifest(bytes: Uint8Array): Manifest {
  const value = parseDocument(bytes, 'manifest');
  const config = parseDescriptor(value['config'], 'manifest', 'config');
  const layers = parseList(value['layers'], 'manifest', 'layers');
  if (value['subject'] !== undefined) parseDescriptor(value['subject'], 'manifest', 'subject');
  return { ...(value as unknown as Manifest), config, layers };
}

/** Also of Docker manifest lists. @throws FormatError EINVAL */
export function parseIndex(bytes: Uint8Array): Index {
  const value = parseDocument(bytes, 'index');
  return { ...(value as unknown as Index), manifests: parseList(value['manifests'], 'index', 'manifests') };
}

/** What a document says it is, else what its members show (old OCI documents say nothing). */
function ownType(value: Fields): string | undefined {
  if (typeof value['mediaType'] === 'string') return value['mediaType'];
  if (Array.isArray(value['manifests'])) return OCI_INDEX;
  return Array.isArray(value['layers']) ? OCI_MANIFEST : undefined;
}

/** Media type of a document whose bytes were verified: what it says, else what named it says, else what it looks like. */
export function documentType(bytes: Uint8Array, named = ''): string {
  const value = parseObject(bytes, 'manifest');
  if (typeof value['mediaType'] === 'string') return value['mediaType'];
  return named === '' ? (ownType(value) ?? OCI_MANIFEST) : named;
}

/** Media type of a manifest: what the server says, else what the object says, else by its members. */
export function mediaTypeOf(bytes: Uint8Array, contentType: string): string {
  const said = contentType.split(';')[0]?.trim() ?? '';
  if (isIndexType(said) || isManifestType(said)) return said;
  try {
    return ownType(parseObject(bytes, 'manifest')) ?? said;
  } catch {
    // the parser that reads it says what is wrong
    return said;
  }
}
