// A directory for cache files: can it be written, what kind of file system is it, is there room, can files have holes.
// Source: statfs(2), ioctl_ficlone(2), fallocate(2); DESIGN 2.1 on which file systems the kernel drivers work.
import {
  accessSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { messageOf } from '../../base/errors.ts';
import { punchHole } from '../../native/file-io.ts';
import { sizeText, type Check, type CheckContext, type Outcome } from './finding.ts';

/** Names by f_type. Source: include/uapi/linux/magic.h, statfs(2) */
const NAMES: Record<number, string> = {
  0xef53: 'ext4',
  0x5846_5342: 'xfs',
  0x9123_683e: 'btrfs',
  0x794c_7630: 'overlayfs',
  0x0102_1994: 'tmpfs',
  0x8584_58f6: 'ramfs',
  0x6573_5546: 'FUSE',
  0x6969: 'NFS',
  0xff53_4d42: 'CIFS',
  0xfe53_4d42: 'SMB2',
  0x2fc1_2fc1: 'ZFS',
  0xf2f5_2010: 'f2fs',
  0xca45_1a4e: 'bcachefs',
  0x0102_1997: '9p',
  0x00c3_6400: 'Ceph',
};
const GOOD = new Set(['ext4', 'xfs', 'btrfs']);
/** Why the others do not do. */
const DRAWBACKS: Record<string, string> = {
  overlayfs: 'is a layer over another one: mount a volume there',
  tmpfs: 'keeps the cache in memory and forgets it',
  ramfs: 'keeps the cache in memory and forgets it',
  FUSE: 'is served by another program',
};

/** Less room than this is worth a word. */
const LITTLE_ROOM = 1024 * 1024 * 1024;
const BLOCKS = 64 * 1024;

/** Name of a kind of file system. @param type f_type of statfs(2) */
export function fileSystemName(type: number): string {
  return NAMES[type >>> 0] ?? `type 0x${(type >>> 0).toString(16)}`;
}

/** The nearest directory that exists: nydusd creates what is missing. */
export function existingParent(path: string): string {
  let at = resolve(path);
  while (!existsSync(at) && dirname(at) !== at) at = dirname(at);
  return at;
}

function writable(dir: string, { scratch }: CheckContext): Outcome {
  const base = existingParent(dir);
  const missing = base === resolve(dir) ? '' : `; it does not exist yet, nydusd creates it below ${base}`;
  try {
    if (!statSync(base).isDirectory()) {
      return { status: 'fail', detail: `${base} is not a directory`, fix: 'name a directory as work_dir' };
    }
    accessSync(base, constants.W_OK | constants.X_OK);
    writeFileSync(join(scratch.directory(base), 'file'), 'cache');
    return { status: 'ok', detail: `files can be written${missing}` };
  } catch (error) {
    return {
      status: 'fail',
      detail: `files cannot be written: ${messageOf(error)}`,
      fix: 'let this user write there, or name another directory as work_dir',
    };
  }
}

function fileSystem(dir: string): Outcome {
  const name = fileSystemName(statfsSync(existingParent(dir)).type);
  if (GOOD.has(name)) return { status: 'ok', detail: `${name}, fit for every driver` };
  const why = DRAWBACKS[name] ?? 'is not known to tell the kernel before a file is read';
  return {
    status: 'warn',
    detail: `${name} ${why}`,
    fix: 'for the driver fanotify put the cache (work_dir) on ext4, xfs or btrfs',
  };
}

function room(dir: string): Outcome {
  const { bavail, bsize, blocks, ffree, files } = statfsSync(existingParent(dir));
  const free = bavail * bsize;
  const detail = `${sizeText(free)} free of ${sizeText(blocks * bsize)}`;
  if (files > 0 && ffree === 0)
    return { status: 'warn', detail: `${detail}, but no inode`, fix: 'remove files' };
  if (free >= LITTLE_ROOM) return { status: 'ok', detail };
  return {
    status: 'warn',
    detail,
    fix: 'make room: with a full cache every read goes to the backend',
  };
}

function holes(dir: string, { scratch }: CheckContext): Outcome {
  const fd = openSync(join(scratch.directory(existingParent(dir)), 'file'), 'w+');
  try {
    writeSync(fd, Buffer.alloc(BLOCKS, 1));
    ftruncateSync(fd, BLOCKS * 16);
    const errno = punchHole(fd, 0, BLOCKS);
    const seen = Buffer.alloc(BLOCKS);
    readSync(fd, seen, 0, BLOCKS, 0);
    if (errno === 0 && seen.every((byte) => byte === 0))
      return { status: 'ok', detail: 'files are sparse, and holes can be punched' };
    return {
      status: 'warn',
      detail: `holes cannot be punched (errno ${errno}): what is no longer needed keeps its room until its file goes`,
    };
  } finally {
    closeSync(fd);
  }
}

function reflink(dir: string, { scratch }: CheckContext): Outcome {
  const work = scratch.directory(existingParent(dir));
  writeFileSync(join(work, 'one'), Buffer.alloc(BLOCKS, 1));
  try {
    copyFileSync(join(work, 'one'), join(work, 'two'), constants.COPYFILE_FICLONE_FORCE);
    return { status: 'ok', detail: 'files can share their blocks (FICLONE)' };
  } catch (error) {
    return {
      status: 'info',
      detail: `files cannot share their blocks (${(error as NodeJS.ErrnoException).code}): copies take room of their own`,
    };
  }
}

/**
 * The checks of one cache directory, which may not exist yet.
 *
 * @param essential it is the one that will be used
 */
export function cacheChecks(dir: string, essential: boolean): Check[] {
  const row = (id: string, name: string, run: Check['run'], needed = false): Check => {
    return { id: `cache.${id}`, group: 'cache', name, subject: dir, essential: needed, run };
  };
  return [
    row('writable', 'writable', (context) => writable(dir, context), essential),
    row('file-system', 'file system', () => fileSystem(dir)),
    row('room', 'room', () => room(dir)),
    row('holes', 'holes', (context) => holes(dir, context)),
    row('reflink', 'reflink', (context) => reflink(dir, context)),
  ];
}
