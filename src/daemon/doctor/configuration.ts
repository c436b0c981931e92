// The configuration itself: can it be read, is what it asks for served, and by the driver that is wanted?
import { NydusError } from '../../base/errors.ts';
import { checkCache } from '../../rafs/open-blobs.ts';
import type { CacheConfig, ConfigV2, DriverChoice } from '../../storage/config.ts';
import { readConfigFile, type ParsedConfig } from '../../storage/config-parse.ts';
import { failureOf, type Check, type Outcome } from './finding.ts';

/** What reading a configuration came to. */
export type ReadConfig = { parsed: ParsedConfig; problem?: never } | { parsed?: never; problem: unknown };

/** Read a configuration; what is wrong with it becomes a finding. */
export function tryReadConfig(path: string, imagePullAuth: string | undefined): ReadConfig {
  try {
    return { parsed: readConfigFile(path, { imagePullAuth }) };
  } catch (problem) {
    return { problem };
  }
}

function describe({ backend, cache, driver = 'fuse' }: ConfigV2): string {
  const type = cache?.type ?? '';
  return `backend ${backend?.type ?? 'none'}, cache ${type === '' ? 'none' : type}, driver ${driver}`;
}

function judge(path: string, read: ReadConfig): Outcome {
  if (read.parsed === undefined) {
    const failure = failureOf(read.problem);
    const known = read.problem instanceof NydusError;
    return { ...failure, detail: `${path}: ${failure.detail}`, ...(known ? {} : { fix: `check ${path}` }) };
  }
  const { config, warnings } = read.parsed;
  const detail = `${path}: ${describe(config)}`;
  if (warnings.length === 0) return { status: 'ok', detail };
  return { status: 'warn', detail: `${detail}; ${warnings.join('; ')}`, fix: 'take out what is not known' };
}

function judgeCache(cache: CacheConfig | null, driver: DriverChoice): Outcome {
  if (cache === null) return { status: 'fail', detail: 'there is none', fix: 'add a section cache' };
  if (cache.type === '' || cache.type === 'dummycache') {
    return {
      status: 'warn',
      detail: 'none: v5 images only, every read goes to the backend',
      fix: 'set cache.type to blobcache',
    };
  }
  checkCache(cache, 6);
  const sealed = cache.filecache?.enable_encryption === true;
  const detail = `${cache.type}${cache.compressed ? ', compressed' : ''}${sealed ? ', encrypted' : ''}`;
  if (driver === 'fuse' || (!cache.compressed && !sealed)) return { status: 'ok', detail };
  return {
    status: driver === 'auto' ? 'warn' : 'fail',
    detail: `${detail}: there are no files with plain data, so images are served by FUSE only`,
    fix: 'leave out cache.compressed and enable_encryption for the drivers fileio and fanotify',
  };
}

/** The checks of a configuration that need no other program. */
export function configurationChecks(path: string, read: ReadConfig, driver: DriverChoice): Check[] {
  const row = (id: string, name: string, run: Check['run']): Check => {
    return { id: `configuration.${id}`, group: 'configuration', name, essential: true, run };
  };
  const { parsed } = read;
  const file = row('file', 'file', () => judge(path, read));
  if (parsed === undefined) return [file];
  return [file, row('cache', 'cache', () => judgeCache(parsed.config.cache, driver))];
}
