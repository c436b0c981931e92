// What a user sees in a tree: lstat, xattrs, link targets, content digests; compared with a golden manifest.
// Source: golden/README.md section 2 (fields, percent-encoding, `mount` times, inode numbers).
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { constants as os } from 'node:os';
import type { BigIntStats } from 'node:fs';
import { getXattr, listXattrs } from '../../src/native/xattr.ts';
import { percentEncode } from './golden.ts';
import type { ManifestEntry } from './golden.ts';

/** One entry of a tree on disk or in a mount. */
export interface SeenEntry {
  path: Buffer;
  type: ManifestEntry['type'];
  /** lstat(2) */
  stats: BigIntStats;
  target: Buffer | undefined;
  sha256: string | undefined;
  xattrs: Map<string, Buffer>;
  /** errno texts of calls that failed, by field name such as `read_error` */
  errors: Record<string, string>;
}

/** Inode numbers of FUSE mounts carry the backend index in the top byte. */
export const INO_MASK = (1n << 56n) - 1n;

/** Major and minor number of an st_rdev. Source: glibc gnu_dev_major, gnu_dev_minor. */
export function splitDevice(rdev: bigint): [number, number] {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return [Number(major), Number(minor)];
}

function typeOf(stats: BigIntStats): ManifestEntry['type'] {
  if (stats.isDirectory()) return 'dir';
  if (stats.isFile()) return 'file';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isCharacterDevice()) return 'char';
  if (stats.isBlockDevice()) return 'block';
  return stats.isFIFO() ? 'fifo' : 'socket';
}

/** SHA-256 of a file, read in pieces of 1 MiB through plain reads. */
export function fileDigest(path: Buffer | string): string {
  const hash = createHash('sha256');
  const piece = Buffer.allocUnsafe(1 << 20);
  const fd = openSync(path, 'r');
  try {
    for (;;) {
      const count = readSync(fd, piece, 0, piece.length, null);
      if (count === 0) return hash.digest('hex');
      hash.update(piece.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
}

function look(full: Buffer, path: Buffer): SeenEntry {
  const stats = lstatSync(full, { bigint: true });
  const entry: SeenEntry = {
    path,
    type: typeOf(stats),
    stats,
    target: undefined,
    sha256: undefined,
    xattrs: new Map(),
    errors: {},
  };
  const attempt = (field: string, fn: () => void): void => {
    try {
      fn();
    } catch (error) {
      entry.errors[field] = errnoText(error);
    }
  };
  attempt('xattr_error', () => {
    for (const name of listXattrs(full)) {
      entry.xattrs.set(name.toString('latin1'), getXattr(full, name) ?? Buffer.alloc(0));
    }
  });
  if (entry.type === 'symlink') {
    attempt('readlink_error', () => (entry.target = readlinkSync(full, { encoding: 'buffer' })));
  }
  if (entry.type === 'file') attempt('read_error', () => (entry.sha256 = fileDigest(full)));
  return entry;
}

function errnoText(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  const number = code === undefined ? undefined : os.errno[code as keyof typeof os.errno];
  return number === undefined ? String(error) : `errno ${number}`;
}

/** Walk a tree depth first, names in byte order, the root first. */
export function walkTree(root: string): SeenEntry[] {
  const seen: SeenEntry[] = [];
  const slash = Buffer.from('/');
  const visit = (full: Buffer, path: Buffer): void => {
    const entry = look(full, path.length === 0 ? slash : path);
    seen.push(entry);
    if (entry.type !== 'dir') return;
    try {
      const names = readdirSync(full, { encoding: 'buffer' }).sort((a, b) => Buffer.compare(a, b));
      for (const name of names) visit(Buffer.concat([full, slash, name]), Buffer.concat([path, slash, name]));
    } catch (error) {
      entry.errors['readdir_error'] = errnoText(error);
    }
  };
  visit(Buffer.from(root), Buffer.alloc(0));
  return seen;
}

export interface CompareOptions {
  /** seconds since 1970 between which the mount happened; any time of the last hour when absent */
  mountedBetween?: [number, number];
  /** fields that are not compared, such as `blocks`, `ino`, `ctime`, or `mtime:/` for one path alone */
  ignore?: string[];
  /** at most this many differences are listed */
  most?: number;
}

/**
 * Compare a mounted tree with a golden manifest.
 *
 * @returns one line for each difference, `path field: expected X, found Y`; [] when the user sees what the manifest says
 */
export function compareTree(root: string, manifest: ManifestEntry[], options: CompareOptions = {}): string[] {
  const found = new Map(walkTree(root).map((entry) => [percentEncode(entry.path), entry]));
  const differences: string[] = [];
  for (const expected of manifest) {
    const path = percentEncode(expected.path);
    const entry = found.get(path);
    found.delete(path);
    if (entry === undefined) differences.push(`${path} is missing`);
    else differences.push(...compareEntry(path, expected, entry, options));
  }
  for (const path of found.keys()) differences.push(`${path} is there, the manifest has no such entry`);
  const most = options.most ?? 20;
  if (differences.length <= most) return differences;
  return [...differences.slice(0, most), `… and ${differences.length - most} more`];
}

function compareEntry(
  path: string,
  expected: ManifestEntry,
  entry: SeenEntry,
  options: CompareOptions,
): string[] {
  const { stats } = entry;
  const fields: [name: string, expected: unknown, found: unknown][] = [
    ['type', expected.type, entry.type],
    ['mode', expected.mode.toString(8), stats.mode.toString(8)],
    ['uid', expected.uid, Number(stats.uid)],
    ['gid', expected.gid, Number(stats.gid)],
    ['rdev', (expected.rdev ?? [0, 0]).join(':'), splitDevice(stats.rdev).join(':')],
    ['target', encoded(expected.target), encoded(entry.target)],
    ['sha256', expected.sha256, entry.sha256],
    ['xattrs', formatXattrs(expected.xattrs), formatXattrs(entry.xattrs)],
    ['errors', JSON.stringify(expected.errors), JSON.stringify(entry.errors)],
  ];
  if (expected.ino !== undefined) fields.push(['ino', expected.ino, stats.ino & INO_MASK]);
  if (expected.nlink !== undefined) fields.push(['nlink', expected.nlink, Number(stats.nlink)]);
  if (expected.size !== undefined) fields.push(['size', expected.size, Number(stats.size)]);
  if (expected.blocks !== undefined) fields.push(['blocks', expected.blocks, Number(stats.blocks)]);
  if (expected.blksize !== undefined) fields.push(['blksize', expected.blksize, Number(stats.blksize)]);
  const seconds = Number(floorSeconds(stats.mtimeNs));
  if (expected.mtime === 'mount') {
    const now = Math.floor(Date.now() / 1000);
    const [from, to] = options.mountedBetween ?? [now - 3600, now + 1];
    if (seconds < from || seconds > to) fields.push(['mtime', `time of the mount, ${from}..${to}`, seconds]);
  } else {
    const nanoseconds = Number(stats.mtimeNs - BigInt(seconds) * 1_000_000_000n);
    fields.push(['mtime', expected.mtime, seconds], ['mtime_nsec', expected.mtimeNsec, nanoseconds]);
    const other = (name: 'ctime' | 'atime', ns: bigint): void => {
      fields.push([name, expected[name] ?? expected.mtime, Number(floorSeconds(ns))]);
    };
    other('ctime', stats.ctimeNs);
    other('atime', stats.atimeNs);
  }
  return fields
    .filter(([name, want, have]) => want !== have && !ignored(name, path, options))
    .map(([name, want, have]) => `${path} ${name}: expected ${String(want)}, found ${String(have)}`);
}

function ignored(field: string, path: string, options: CompareOptions): boolean {
  return options.ignore?.some((item) => item === field || item === `${field}:${path}`) ?? false;
}

function floorSeconds(nanoseconds: bigint): bigint {
  const seconds = nanoseconds / 1_000_000_000n;
  return nanoseconds % 1_000_000_000n < 0n ? seconds - 1n : seconds;
}

function encoded(bytes: Buffer | undefined): string | undefined {
  return bytes === undefined ? undefined : percentEncode(bytes);
}

/** Long values are shown by length and digest: still compared exactly, and a message stays readable. */
function shown(value: Buffer): string {
  if (value.length <= 64) return value.toString('hex');
  return `<${value.length} bytes, sha256 ${createHash('sha256').update(value).digest('hex')}>`;
}

function formatXattrs(xattrs: Map<string, Buffer>): string {
  return [...xattrs]
    .map(([name, value]) => `${name}=${shown(value)}`)
    .sort()
    .join(' ');
}

/**
 * Compare two trees as a user sees them, such as a source directory and a mount of the image built from it.
 *
 * @param ignore fields that may differ everywhere, such as `ino`, `blocks`, or `mode:/` for one path
 * @returns one line for each difference; [] when they are equal
 */
export function compareTrees(expected: string, actual: string, options: CompareOptions = {}): string[] {
  const manifest = walkTree(expected).map(({ path, type, stats, ...rest }): ManifestEntry => {
    const seconds = floorSeconds(stats.mtimeNs);
    return {
      ...rest,
      path,
      type,
      mode: Number(stats.mode),
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      nlink: Number(stats.nlink),
      ino: stats.ino & INO_MASK,
      size: Number(stats.size),
      blocks: Number(stats.blocks),
      blksize: undefined,
      mtime: Number(seconds),
      mtimeNsec: Number(stats.mtimeNs - seconds * 1_000_000_000n),
      ctime: undefined,
      atime: undefined,
      rdev: splitDevice(stats.rdev),
      link: undefined,
      fsIndex: 1,
    };
  });
  return compareTree(actual, manifest, { ...options, ignore: ['ctime', 'atime', ...(options.ignore ?? [])] });
}

/** Sizes of directories and their block counts say how a file system stores them, not what is in them. */
export function directorySizes(manifest: readonly { path: Buffer; type: string }[]): string[] {
  return manifest
    .filter((entry) => entry.type === 'dir')
    .flatMap((entry) => [`size:${percentEncode(entry.path)}`, `blocks:${percentEncode(entry.path)}`]);
}
