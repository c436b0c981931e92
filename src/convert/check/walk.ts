// Two trees side by side, entry by entry, as a user of both sees them. The roots themselves are not compared.
// Source: nydus-image-and-nydusify.md 9.4, rule filesystem.
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { lstat, open, readdir, readlink } from 'node:fs/promises';
import { MAX_TREE_DEPTH } from '../../base/limits.ts';
import { getXattr, listXattrs } from '../../native/xattr.ts';

/** Differences that are listed; more are only counted. */
const MAX_LISTED = 1000;
/** Entries of a directory that are looked at side by side. */
const AT_ONCE = 16;
const READ_SIZE = 1024 * 1024;

/** One entry that is not the same. */
export interface Difference {
  /** from the root, `/etc/passwd` */
  path: string;
  kind: 'not in target' | 'not in source' | 'different';
  /** for `different`: each field with both values */
  fields: string[];
}

export interface Comparison {
  entries: number;
  /** bytes of files that were read on each side */
  bytes: number;
  /** all of them, also those past the limit of the list */
  count: number;
  differences: Difference[];
}

const SLASH = Buffer.from('/');
const join = (folder: Buffer, name: Buffer): Buffer => Buffer.concat([folder, SLASH, name]);

async function digestOf(path: Buffer, signal: AbortSignal): Promise<{ digest: string; bytes: number }> {
  const hash = createHash('sha256');
  const file = await open(path, 'r');
  let bytes = 0;
  try {
    const piece = Buffer.allocUnsafe(READ_SIZE);
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead } = await file.read(piece, 0, piece.length, null);
      if (bytesRead === 0) return { digest: hash.digest('hex'), bytes };
      hash.update(piece.subarray(0, bytesRead));
      bytes += bytesRead;
    }
  } finally {
    await file.close();
  }
}

/** Names and values; long values by digest. Attributes of overlayfs itself are not part of a tree. */
function xattrsOf(path: Buffer): string {
  const show = (value: Buffer): string =>
    value.length <= 64 ? value.toString('hex') : createHash('sha256').update(value).digest('hex');
  return listXattrs(path)
    .filter((name) => !name.toString('latin1').startsWith('trusted.overlay.'))
    .map((name) => `${name.toString('latin1')}=${show(getXattr(path, name) ?? Buffer.alloc(0))}`)
    .sort()
    .join(' ');
}

async function compareFields(
  left: Buffer,
  right: Buffer,
  one: BigIntStats,
  other: BigIntStats,
  total: Comparison,
  signal: AbortSignal,
): Promise<string[]> {
  const fields: string[] = [];
  const differ = (name: string, a: unknown, b: unknown): void => {
    if (a !== b) fields.push(`${name} ${String(a)} != ${String(b)}`);
  };
  differ('mode', one.mode.toString(8), other.mode.toString(8));
  if (!one.isDirectory() || !other.isDirectory()) differ('size', one.size, other.size);
  differ('uid', one.uid, other.uid);
  differ('gid', one.gid, other.gid);
  const isDevice = one.isCharacterDevice() || one.isBlockDevice();
  if (isDevice) differ('rdev', one.rdev, other.rdev);
  if (one.isSymbolicLink() && other.isSymbolicLink())
    differ('target', JSON.stringify(await readlink(left)), JSON.stringify(await readlink(right)));
  differ('xattrs', xattrsOf(left), xattrsOf(right));
  if (one.isFile() && other.isFile() && one.size === other.size && one.size > 0n) {
    const [a, b] = await Promise.all([digestOf(left, signal), digestOf(right, signal)]);
    total.bytes += a.bytes;
    differ('content', `sha256:${a.digest}`, `sha256:${b.digest}`);
  }
  return fields;
}

/**
 * lstat(2); undefined for a name that is listed and not there: so overlayfs shows its whiteouts, devices 0:0, in directories
 * that only one layer has.
 */
async function look(path: Buffer): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function namesOf(path: Buffer): Promise<Buffer[]> {
  return (await readdir(path, { encoding: 'buffer' })).sort((a, b) => Buffer.compare(a, b));
}

/**
 * Compare two trees.
 *
 * @returns what differs, in order of paths
 * @throws system errors of a tree that cannot be read; the signal's reason
 */
export async function compareTrees(source: string, target: string, signal: AbortSignal): Promise<Comparison> {
  const total: Comparison = { entries: 0, bytes: 0, count: 0, differences: [] };
  const note = (difference: Difference): void => {
    total.count++;
    if (total.differences.length < MAX_LISTED) total.differences.push(difference);
  };
  const visit = async (left: Buffer, right: Buffer, path: Buffer, depth: number): Promise<void> => {
    if (depth > MAX_TREE_DEPTH) throw new RangeError(`${path.toString()}: deeper than ${MAX_TREE_DEPTH}`);
    const [ours, theirs] = await Promise.all([namesOf(left), namesOf(right)]);
    const known = new Set(ours.map((name) => name.toString('latin1')));
    const there = new Set(theirs.map((name) => name.toString('latin1')));
    const onlyIn = async (side: Buffer, name: Buffer, kind: Difference['kind']): Promise<void> => {
      if ((await look(join(side, name))) !== undefined)
        note({ path: join(path, name).toString(), kind, fields: [] });
    };
    for (const name of ours)
      if (!there.has(name.toString('latin1'))) await onlyIn(left, name, 'not in target');
    for (const name of theirs)
      if (!known.has(name.toString('latin1'))) await onlyIn(right, name, 'not in source');
    const both = ours.filter((name) => there.has(name.toString('latin1')));
    const folders: Buffer[] = [];
    for (let at = 0; at < both.length; at += AT_ONCE) {
      signal.throwIfAborted();
      await Promise.all(
        both.slice(at, at + AT_ONCE).map(async (name) => {
          const [a, b] = [join(left, name), join(right, name)];
          const [one, other] = await Promise.all([look(a), look(b)]);
          const shown = join(path, name).toString();
          if (one === undefined || other === undefined) {
            if (one !== undefined) note({ path: shown, kind: 'not in target', fields: [] });
            if (other !== undefined) note({ path: shown, kind: 'not in source', fields: [] });
            return;
          }
          total.entries++;
          const fields = await compareFields(a, b, one, other, total, signal);
          if (fields.length > 0) note({ path: shown, kind: 'different', fields });
          if (one.isDirectory() && other.isDirectory()) folders.push(name);
        }),
      );
    }
    for (const name of folders.sort((a, b) => Buffer.compare(a, b)))
      await visit(join(left, name), join(right, name), join(path, name), depth + 1);
  };
  await visit(Buffer.from(source), Buffer.from(target), Buffer.alloc(0), 0);
  total.differences.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return total;
}

/** The line of a difference, in upstream's words. */
export function differenceText({ path, kind, fields }: Difference): string {
  switch (kind) {
    case 'not in target':
      return `file not found in target image: ${path}`;
    case 'not in source':
      return `file not found in source image: ${path}`;
    case 'different':
      return `file not match in target image: ${path}: ${fields.join(', ')}`;
  }
}
