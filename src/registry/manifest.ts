// Manifests and indexes as values: checked, and otherwise kept as they are. Source: OCI image spec 1.1 "manifest.md",
// "image-index.md", "descriptor.md". Unknown members survive: a copy of a manifest must not lose them.
import { FormatError, messageOf } from '../base/errors.ts';
import { MAX_LAYERS } from '../base/limits.ts';
import { isIndexType, isManifestType, OCI_INDEX, OCI_MANIFEST } from './media-types.ts';
import { isDigest } from './reference.ts';

export interface Platform {
  architecture: string;
  os: string;
  variant?: string;
  'os.version'?: string;
  'os.features'?: string[];
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

function parseObject(bytes: Uint8Array, struct: string): Fields {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new FormatError({ struct }, `is no JSON: ${messageOf(error)}`, { cause: error });
  }
  if (!isObject(value)) throw new FormatError({ struct }, 'is no JSON object');
  if (value['schemaVersion'] !== 2) {
    const found = JSON.stringify(value['schemaVersion'] ?? null).slice(0, 40);
    throw new FormatError({ struct, field: 'schemaVersion' }, `is ${found}, only 2 is known`, {
      hint: 'images of Docker before 1.10 must be pushed anew',
    });
  }
  return value;
}

function checkDescriptor(value: unknown, struct: string, field: string): Descriptor {
  const place = { struct, field };
  if (!isObject(value)) throw new FormatError(place, 'is no descriptor');
  const { mediaType, digest, size } = value;
  if (typeof digest !== 'string' || !isDigest(digest)) {
    throw new FormatError(place, `digest ${JSON.stringify(digest ?? null).slice(0, 100)} is none`);
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new FormatError(place, `size ${JSON.stringify(size ?? null).slice(0, 40)} is no count of bytes`);
  }
  if (typeof mediaType !== 'string') throw new FormatError(place, 'has no mediaType');
  for (const text of Object.values(isObject(value['annotations']) ? value['annotations'] : {})) {
    if (typeof text !== 'string') throw new FormatError(place, 'has an annotation that is no text');
  }
  return value as unknown as Descriptor;
}

function checkList(value: unknown, struct: string, field: string): Descriptor[] {
  if (!Array.isArray(value)) throw new FormatError({ struct, field }, 'is no list');
  if (value.length > MAX_LAYERS) {
    throw new FormatError({ struct, field }, `has ${value.length} entries, the limit is ${MAX_LAYERS}`);
  }
  return value.map((entry, at) => checkDescriptor(entry, struct, `${field}[${at}]`));
}

/** @throws FormatError EINVAL */
export function parseManifest(bytes: Uint8Array): Manifest {
  const value = parseObject(bytes, 'manifest');
  checkDescriptor(value['config'], 'manifest', 'config');
  checkList(value['layers'], 'manifest', 'layers');
  if (value['subject'] !== undefined) checkDescriptor(value['subject'], 'manifest', 'subject');
  return value as unknown as Manifest;
}

/** Also of Docker manifest lists. @throws FormatError EINVAL */
export function parseIndex(bytes: Uint8Array): Index {
  const value = parseObject(bytes, 'index');
  checkList(value['manifests'], 'index', 'manifests');
  return value as unknown as Index;
}

/** Media type of a manifest: what the server says, else what the object says, else by its members. */
export function mediaTypeOf(bytes: Uint8Array, contentType: string): string {
  const said = contentType.split(';')[0]?.trim() ?? '';
  if (isIndexType(said) || isManifestType(said)) return said;
  try {
    const value = JSON.parse(Buffer.from(bytes).toString()) as Fields;
    if (typeof value['mediaType'] === 'string') return value['mediaType'];
    if (Array.isArray(value['manifests'])) return OCI_INDEX;
    if (Array.isArray(value['layers'])) return OCI_MANIFEST;
  } catch {
    // the parser that reads it says what is wrong
  }
  return said;
}
