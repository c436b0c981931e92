// What a daemon serves from the start, chosen from its command line. Source: nydusd.md 1.12, 11.
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { UsageError, messageOf } from '../base/errors.ts';
import { fuseMountOf } from '../serve/fuse/mount-info.ts';
import { parseConfig, readConfigFile, type ParsedConfig } from '../storage/config-parse.ts';

export interface SourceOptions {
  /** serve this directory instead of an image */
  sharedDir?: string | undefined;
  /** where inside the mount it appears; `/` unless given */
  virtualMountpoint?: string | undefined;
  bootstrap?: string | undefined;
  config?: string | undefined;
  localfsDir?: string | undefined;
  prefetchFiles?: string | undefined;
  /** IMAGE_PULL_AUTH of the environment */
  imagePullAuth?: string | undefined;
}

/** What is served from the start. */
export interface InitialMount {
  kind: 'rafs' | 'passthrough';
  /** bootstrap or directory */
  source: string;
  mountpoint: string;
  /** undefined for a directory */
  parsed?: ParsedConfig;
  prefetchFiles?: string[];
}

/** The configuration of `--bootstrap B --localfs-dir D`: blobs and cache in one directory. */
export function localfsConfig(dir: string): ParsedConfig {
  return parseConfig(
    JSON.stringify({
      device: {
        backend: { type: 'localfs', config: { dir } },
        cache: { type: 'blobcache', config: { work_dir: dir } },
      },
      mode: 'direct',
      digest_validate: false,
      iostats_files: false,
    }),
  );
}

/** Lines of a list of files to prefetch, trimmed, blank ones left out. UsageError, exit 1. */
export function readPrefetchList(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`the prefetch-files arg is not a file path: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: '--prefetch-files takes a text file with one absolute path a line',
    });
  }
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const relative = lines.find((line) => !line.startsWith('/'));
  if (relative !== undefined) {
    throw new UsageError(`invalid prefetch file list: ${relative} in ${path} is not an absolute path`, {
      exitCode: 1,
      hint: 'paths are those inside the image and begin with /',
    });
  }
  return lines;
}

/** What to serve from the start; undefined: an empty root that waits for mounts by API. */
export function chooseInitialMount(options: SourceOptions): InitialMount | undefined {
  const { bootstrap, config, localfsDir, prefetchFiles, imagePullAuth, sharedDir } = options;
  const mountpoint = options.virtualMountpoint ?? '/';
  if (sharedDir !== undefined) return { kind: 'passthrough', source: sharedDir, mountpoint };
  // without an image the configuration is not even opened: test suites put nonsense there
  if (bootstrap === undefined) return undefined;
  let parsed: ParsedConfig;
  if (localfsDir !== undefined) parsed = localfsConfig(localfsDir);
  else if (config !== undefined) parsed = readConfigFile(config, { imagePullAuth });
  else {
    throw new UsageError('both --config and --localfs-dir are missing', {
      exitCode: 1,
      hint: 'say where the blobs are: --config FILE, or --localfs-dir DIR',
    });
  }
  return {
    kind: 'rafs',
    source: bootstrap,
    mountpoint,
    parsed,
    ...(prefetchFiles === undefined ? {} : { prefetchFiles: readPrefetchList(prefetchFiles) }),
  };
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
}

/** The next step, by what is wrong with the mountpoint. */
const MOUNTPOINT_HINTS: Record<string, (path: string) => string> = {
  ENOENT: (path) => `create it first: mkdir -p ${path}`,
  ENOTCONN: () => 'it lies in the mount of a daemon that is dead: unmount that one first, with umount -l',
  ENOTDIR: (path) => `something on the way to ${path} is a file`,
};

/**
 * The canonical path of the mountpoint, which must be an existing directory. A dead FUSE mount passes: it is taken away
 * before the new one.
 *
 * @throws UsageError, exit 1, with the next step
 */
export function resolveMountpoint(path: string): string {
  let real: string;
  try {
    // libc's realpath asks for no attributes of the last component: a dead FUSE mount would not give them
    real = realpathSync.native(path);
  } catch (error) {
    const hint = MOUNTPOINT_HINTS[codeOf(error)]?.(path);
    throw new UsageError(`mountpoint ${path}: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: hint ?? 'every directory on the way to it must be accessible',
    });
  }
  // a mount that waits for its next daemon would keep us waiting too; what is mounted is a directory
  if (fuseMountOf(real) !== undefined) return real;
  try {
    if (!statSync(real).isDirectory()) {
      throw new UsageError(`mountpoint ${path} is not a directory`, {
        exitCode: 1,
        hint: 'name a directory with --mountpoint',
      });
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOTCONN') throw error;
  }
  return real;
}
