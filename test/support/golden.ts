// Where the golden data is, and how its inputs become directories and tars again.
// Source: golden/README.md sections 1 and 2 (upstream output, producer commit named there).
import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { setXattr } from '../../src/native/xattr.ts';
import { unmountBelow } from './temporary.ts';
import { chmodBytes, chownBytes, makeSocket, setTimes } from './file-attributes.ts';

/** Root of the checkout. */
export const repoRoot = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

let found: { dir: string | undefined } | undefined;

/**
 * Directory of the golden data: $NYDUS_GOLDEN, else ../shared/golden beside the checkout, else test/golden.
 * The files below it are always readable in place: where a copy of the data has link texts instead of symbolic
 * links (which is how some transports deliver them), a view with real links is made once under the temporary directory.
 */
export function goldenDir(): string | undefined {
  found ??= { dir: locate() };
  return found.dir;
}

/** True when the whole golden data is there, not only the chosen part in test/golden. */
export function goldenIsComplete(): boolean {
  const dir = goldenDir();
  return dir !== undefined && !dir.startsWith(join(repoRoot, 'test'));
}

/** A path inside the golden data, or undefined when this part of it is not there. */
export function goldenPath(...parts: string[]): string | undefined {
  const dir = goldenDir();
  if (dir === undefined) return undefined;
  const path = join(dir, ...parts);
  return existsSync(path) ? path : undefined;
}

/** The reason to skip a test that needs this part of the golden data, or false when it is there. Value for `skip`. */
export function skipUnlessGolden(...parts: string[]): string | false {
  return goldenPath(...parts) === undefined ? `golden data not present: ${parts.join('/')}` : false;
}

/** Names of the golden cases that are present, sorted. */
export function goldenCases(): string[] {
  const dir = goldenPath('cases');
  if (dir === undefined) return [];
  return readdirSync(dir)
    .filter((name) => existsSync(join(dir, name, 'case.json')))
    .sort();
}

function locate(): string | undefined {
  const candidates = [
    process.env.NYDUS_GOLDEN,
    resolve(repoRoot, '../shared/golden'),
    join(repoRoot, 'test/golden'),
  ];
  const dir = candidates.find((path) => path !== undefined && existsSync(join(path, 'README.md')));
  return dir === undefined ? undefined : withRealLinks(dir);
}

/** Text of a symbolic link that was delivered as a small regular file, or undefined. */
function linkTarget(path: string, root: string): string | undefined {
  const size = statSync(path).size;
  if (size === 0 || size > 300) return undefined;
  const text = readFileSync(path, 'latin1');
  if (!/^[\w./+-]+$/.test(text) || !text.includes('/')) return undefined;
  const target = resolve(dirname(path), text);
  return target.startsWith(root + sep) && existsSync(target) ? target : undefined;
}

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() || entry.isSymbolicLink())
    .map((entry) => join(entry.parentPath, entry.name));
}

function withRealLinks(root: string): string {
  const mark = createHash('sha256')
    .update(root)
    .update(readFileSync(join(root, 'README.md')))
    .digest('hex');
  const view = join(tmpdir(), `nydus-golden-${process.getuid?.() ?? 0}-${mark.slice(0, 16)}`);
  if (existsSync(join(view, 'README.md'))) return view;
  const files = filesBelow(root);
  const targets = new Map(files.map((path) => [path, linkTarget(path, root)]));
  if (![...targets.values()].some((target) => target !== undefined)) return root;
  const draft = mkdtempSync(`${view}-`);
  for (const [path, target] of targets) {
    const place = join(draft, relative(root, path));
    mkdirSync(dirname(place), { recursive: true });
    symlinkSync(resolveChain(target ?? path, root), place);
  }
  try {
    renameSync(draft, view); // another test process may have been first: its view is as good as ours
  } catch {
    rmSync(draft, { recursive: true, force: true });
  }
  return view;
}

function resolveChain(path: string, root: string): string {
  let at = path;
  for (let hops = 0; hops < 8; hops++) {
    const next = linkTarget(at, root);
    if (next === undefined) break;
    at = next;
  }
  return at;
}

/** One line of a manifest. Texts are decoded to raw bytes; fields absent in the line are undefined. */
export interface ManifestEntry {
  path: Buffer;
  type: 'dir' | 'file' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo' | 'socket';
  /** full st_mode in image manifests, permission bits alone in input manifests */
  mode: number;
  uid: number;
  gid: number;
  nlink: number | undefined;
  /** without the top byte */
  ino: bigint | undefined;
  size: number | undefined;
  blocks: number | undefined;
  blksize: number | undefined;
  /** 'mount' = the time at which the daemon mounted */
  mtime: number | 'mount';
  mtimeNsec: number;
  ctime: number | undefined;
  atime: number | undefined;
  rdev: [number, number] | undefined;
  target: Buffer | undefined;
  /** path of the first name, hard links in input manifests only */
  link: Buffer | undefined;
  sha256: string | undefined;
  /** name -> value */
  xattrs: Map<string, Buffer>;
  /** top byte of st_ino */
  fsIndex: number;
  /** errno texts of calls that failed, by field name such as `read_error` */
  errors: Record<string, string>;
}

/** Bytes of a percent-encoded text. */
export function percentDecode(text: string): Buffer {
  const out: number[] = [];
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === 0x25) {
      out.push(parseInt(bytes.toString('latin1', at + 1, at + 3), 16));
      at += 2;
    } else out.push(byte);
  }
  return Buffer.from(out);
}

/** Percent-encode as the manifests do: everything outside printable ASCII, and blank, %, " and \. */
export function percentEncode(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    const plain = byte > 0x20 && byte < 0x7f && byte !== 0x25 && byte !== 0x22 && byte !== 0x5c;
    text += plain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return text;
}

type RawEntry = Record<string, string | number | number[] | Record<string, string> | undefined>;

function parseEntry(raw: RawEntry): ManifestEntry {
  const number = (key: string): number | undefined => (typeof raw[key] === 'number' ? raw[key] : undefined);
  const text = (key: string): Buffer | undefined =>
    typeof raw[key] === 'string' ? percentDecode(raw[key]) : undefined;
  const errors: Record<string, string> = {};
  for (const [key, value] of Object.entries(raw))
    if (key.endsWith('_error')) errors[key] = typeof value === 'string' ? value : JSON.stringify(value);
  return {
    path: text('path') ?? Buffer.alloc(0),
    type: raw['type'] as ManifestEntry['type'],
    mode: parseInt(text('mode')?.toString() ?? '0', 8),
    uid: number('uid') ?? 0,
    gid: number('gid') ?? 0,
    nlink: number('nlink'),
    ino: number('ino') === undefined ? undefined : BigInt(number('ino') ?? 0),
    size: number('size'),
    blocks: number('blocks'),
    blksize: number('blksize'),
    mtime: raw['mtime'] === 'mount' ? 'mount' : (number('mtime') ?? 0),
    mtimeNsec: number('mtime_nsec') ?? 0,
    ctime: number('ctime'),
    atime: number('atime'),
    rdev: raw['rdev'] as [number, number] | undefined,
    target: text('target'),
    link: text('link'),
    sha256: typeof raw['sha256'] === 'string' ? raw['sha256'] : undefined,
    xattrs: new Map(
      Object.entries((raw['xattrs'] ?? {}) as Record<string, string>).map(([name, hex]) => [
        percentDecode(name).toString('latin1'),
        Buffer.from(hex, 'hex'),
      ]),
    ),
    fsIndex: number('fs_index') ?? 1,
    errors,
  };
}

/** Read a manifest (JSON lines). @param path absolute, or relative to the golden directory */
export function readManifest(path: string): ManifestEntry[] {
  const full = path.startsWith('/') ? path : join(goldenDir() ?? '', path);
  return readFileSync(full, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => parseEntry(JSON.parse(line) as RawEntry));
}

/**
 * Write the plain tar of an input (the gzip around it is only for storage).
 *
 * @param name   input name, such as `oddtar`
 * @param target file to write
 * @throws Error when the sha256 differs from `sha256-of-uncompressed-tars.txt`
 */
export function prepareTarInput(name: string, target: string): void {
  const dir = join(goldenDir() ?? '', 'input');
  const tar = gunzipSync(readFileSync(join(dir, `${name}.tar.gz`)));
  const digest = createHash('sha256').update(tar).digest('hex');
  const listed = readFileSync(join(dir, 'sha256-of-uncompressed-tars.txt'), 'utf8')
    .split('\n')
    .map((line) => line.split(/\s+/))
    .find(([, file]) => file === `${name}.tar`);
  if (listed !== undefined && listed[0] !== digest) {
    throw new Error(`input ${name}.tar: sha256 is ${digest}, the list says ${listed[0]}`);
  }
  writeFileSync(target, tar);
}

/** What ext4 keeps of one file's attributes without its ea_inode feature, less some room for names. */
const EXT4_XATTR_BYTES = 3000;

function xattrBytes(xattrs: Map<string, Buffer>): number {
  return [...xattrs].reduce((sum, [name, value]) => sum + name.length + value.length, 0);
}

/** Put a tmpfs on a directory that is not on one; gone with the temporary directory, or when the process ends. */
function ensureTmpfs(target: string): void {
  const TMPFS_MAGIC = 0x0102_1994;
  if (statfsSync(target).type === TMPFS_MAGIC) return;
  const result = spawnSync('mount', ['-t', 'tmpfs', '-o', 'mode=0755', 'nydus-test', target], {
    encoding: 'utf8',
  });
  if (result.status !== 0) throw new Error(`mount of a tmpfs at ${target}: ${result.stderr}`);
  process.once('exit', () => unmountBelow(target));
}

/**
 * Make the source tree of an input: unpack the tar, then set from the manifest what a tar cannot carry.
 * Needs root for devices, owners, and trusted and security attributes. Where attributes are larger than the file system of
 * `target` may hold, a tmpfs is mounted there first.
 *
 * @param name   input name, such as `odd`
 * @param target directory to create; must not exist, or be empty
 */
export function prepareDirInput(name: string, target: string): void {
  mkdirSync(target, { recursive: true });
  const dir = join(goldenDir() ?? '', 'input');
  const entries = readManifest(join(dir, `${name}.manifest.jsonl`));
  if (entries.some(({ xattrs }) => xattrBytes(xattrs) > EXT4_XATTR_BYTES)) ensureTmpfs(target);
  const tar = gunzipSync(readFileSync(join(dir, `${name}.tar.gz`)));
  const flags = ['-x', '-p', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-C', target, '-f', '-'];
  const result = spawnSync('tar', flags, { input: tar, maxBuffer: 1 << 24 });
  if (result.status !== 0)
    throw new Error(`tar of ${name} exited with ${result.status}: ${String(result.stderr)}`);
  const complaint = /^.*[Ww]arning.*xattr.*$/m.exec(String(result.stderr));
  if (complaint !== null) throw new Error(`tar of ${name}: ${complaint[0]}`);
  const root = Buffer.from(target);
  const place = (entry: ManifestEntry): Buffer =>
    entry.path.length === 1 ? root : Buffer.concat([root, entry.path]);
  for (const entry of entries) {
    if (entry.type === 'socket') makeSocket(place(entry));
    if (entry.type !== 'socket' && entry.path.length !== 1) continue;
    chownBytes(place(entry), entry.uid, entry.gid);
    chmodBytes(place(entry), entry.mode);
    for (const [key, value] of entry.xattrs) setXattr(place(entry), Buffer.from(key, 'latin1'), value);
  }
  for (const entry of entries.toReversed()) {
    if (entry.type === 'hardlink' || entry.mtime === 'mount') continue;
    if (entry.type === 'dir' || entry.type === 'socket') setTimes(place(entry), entry.mtime, entry.mtimeNsec);
  }
}

// One import for most tests.
export {
  firstReason,
  requireBuilt,
  requireFuse,
  requireMountNamespace,
  requirePeer,
  requireRoot,
  requireSudo,
} from './prerequisites.ts';
export { mountCleanup, tempDir, unmountBelow } from './temporary.ts';
