// Bodies of the mount endpoints: today's form, and the older one that carries the mountpoint in the body and names a
// configuration file. Source: nydusd.md 5.6; older form: issue 5 section 6.
import { ApiError, DaemonError } from './api-error.ts';
import { decodeStruct } from './api-body.ts';
import { readConfigFile, parseConfig, type ParsedConfig } from '../storage/config-parse.ts';

/** A mount request, both forms. */
export interface MountRequest {
  mountpoint: string;
  source: string;
  fsType: string;
  /** the older form: its PUT mounts where nothing is, and remounts where something is */
  older: boolean;
  prefetchFiles?: string[];
  /** parse the configuration; throws what the parser throws */
  readConfig(): ParsedConfig;
}

const FIELDS = {
  source: { type: 'string', required: true },
  fs_type: { type: 'string' },
  config: { type: 'string', required: true },
  prefetch_files: { type: 'strings' },
} as const;

const OLDER_FIELDS = { ...FIELDS, fstype: { type: 'string' }, mountpoint: { type: 'string' } } as const;

/**
 * Decode a mount request.
 *
 * @param mountpoint of the query string, if any; the older form may carry it in the body
 * @throws ApiError 400
 */
export function parseMountRequest(text: string, mountpoint: string | undefined): MountRequest {
  const older = isOlderForm(text, mountpoint);
  if (mountpoint === undefined && !older) throw ApiError.missingQuery('mountpoint');
  const body = decodeStruct(text, 'ApiMountCmd', older ? OLDER_FIELDS : FIELDS);
  const string = (key: string): string => (typeof body[key] === 'string' ? body[key] : '');
  const config = string('config');
  const prefetchFiles = body['prefetch_files'];
  return {
    mountpoint: mountpoint ?? string('mountpoint'),
    source: string('source'),
    fsType: older && string('fs_type') === '' ? string('fstype') : string('fs_type'),
    older,
    ...(Array.isArray(prefetchFiles) ? { prefetchFiles } : {}),
    // the older form names a file; a document always begins with a brace or spans lines
    readConfig: () => (older && !/^\s*\{|\n/.test(config) ? readConfigFile(config) : parseConfig(config)),
  };
}

/** The older form is known by its keys, which today's form lacks. */
function isOlderForm(text: string, mountpoint: string | undefined): boolean {
  const keys = decodeKeys(text);
  return keys.has('fstype') || (mountpoint === undefined && keys.has('mountpoint'));
}

function decodeKeys(text: string): Set<string> {
  try {
    const value: unknown = JSON.parse(text);
    return new Set(typeof value === 'object' && value !== null ? Object.keys(value) : []);
  } catch {
    return new Set(); // the decoder proper will say what is wrong
  }
}

const RAFS = 'rafs';
const PASSTHROUGH = ['passthrough', 'passthroughfs', 'passthrough_fs'];

/** What a filesystem type means. DaemonError in upstream's words when it means nothing. */
export function fsKind(fsType: string): 'rafs' | 'passthrough' {
  if (fsType === RAFS) return 'rafs';
  if (PASSTHROUGH.includes(fsType)) return 'passthrough';
  throw DaemonError.other(
    `invalid argument \`only 'rafs' and 'passthrough_fs' are supported, but ${fsType} was specified\``,
  );
}

/** Refuse what is no place inside a mount. */
export function checkMountpoint(mountpoint: string): void {
  const isPlace = mountpoint.startsWith('/') && !mountpoint.split('/').includes('..');
  if (isPlace) return;
  throw DaemonError.other(
    'VFS failed to handle request, PathWalk(Os { code: 22, kind: InvalidInput, message: "Invalid argument" })',
  );
}

/** Refuse a prefetch list with a relative path. */
export function checkPrefetchFiles(list: readonly string[] | undefined): void {
  if (list?.some((path) => !path.startsWith('/')) === true) {
    throw DaemonError.other('invalid prefetch file list');
  }
}
