// A directory of the host as a tree: names, attributes, xattrs; file data is read later, through `sourcePath`.
// Source: rafs-metadata.md 2.8, 5 and 6.1.
import { readlinkSync } from 'node:fs';
import { UsageError } from '../base/errors.ts';
import { MAX_SYMLINK_V5 } from '../base/limits.ts';
import { makeRdev, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../format/flags.ts';
import { openDirectory } from '../native/getdents.ts';
import { lstatx, newStatx, type Statx } from '../native/statx.ts';
import { getXattr, listXattrs, xattrListSize } from '../native/xattr.ts';
import { compareByName, directorySize5 } from '../tree/children.ts';
import type { TreeNode } from '../tree/node.ts';
import { whiteoutOf } from '../tree/whiteouts.ts';
import { admitXattr } from '../tree/xattr-names.ts';
import type { BuildContext, WhiteoutSpec } from './options.ts';

export interface ScanOptions {
  version: 5 | 6;
  whiteoutSpec: WhiteoutSpec;
  /** built over a parent image: markers stay in the tree and are applied by the overlay */
  layered: boolean;
  /** layer number for hard-link identity: 0, or 1 over a parent */
  layer: number;
}

export interface ScanResult {
  root: TreeNode;
  /** entries, the root included */
  entries: number;
  /** bytes of all regular files, a hard-linked one counted once */
  dataBytes: number;
}

/** Longest path the kernel takes, with its NUL. */
const PATH_MAX = 4096;
/** Entries between two looks at the clock and the abort signal. */
const PROGRESS_STEP = 1024;

/**
 * Scratch for one path and its NUL: the system calls get this buffer, so no path is allocated per entry. The directory
 * part stays while its children are visited.
 */
class PathScratch {
  readonly bytes = Buffer.alloc(PATH_MAX + 512);
  #directoryLength = 0;
  length = 0;

  /** The directory (ending in `/`, or empty) that the next names are in. */
  enter(directory: Buffer): void {
    this.#directoryLength = 0;
    this.join(directory);
    this.#directoryLength = directory.length;
  }

  /** A name in that directory. */
  join(name: Buffer): void {
    const length = this.#directoryLength + name.length;
    if (length >= PATH_MAX) {
      const path = Buffer.concat([this.bytes.subarray(0, this.#directoryLength), name]).toString();
      throw new UsageError(`path of ${length} bytes is longer than the kernel takes: "${path}"`, {
        exitCode: 1,
      });
    }
    this.bytes.set(name, this.#directoryLength);
    this.bytes[length] = 0;
    this.length = length;
  }

  /** The name alone, with its NUL. */
  get name(): Buffer {
    return this.bytes.subarray(this.#directoryLength);
  }

  copy(): Buffer {
    return Buffer.from(this.bytes.subarray(0, this.length));
  }
}

class Scanner {
  readonly #options: ScanOptions;
  readonly #context: BuildContext;
  readonly #path = new PathScratch();
  readonly #stat: Statx = newStatx();
  /** host inode and device of files with several links -> our number: exact for u64 inode numbers */
  readonly #links = new Map<string, number>();
  #nextIno = 1;
  entries = 0;
  dataBytes = 0;

  constructor(options: ScanOptions, context: BuildContext) {
    this.#options = options;
    this.#context = context;
  }

  /** Node of the path in the scratch buffer; with its directory open, its path needs no walk. */
  #node(name: Buffer, dirfd?: number): TreeNode {
    const stat = this.#stat;
    if (dirfd === undefined) lstatx(this.#path.bytes, stat);
    else lstatx(this.#path.name, stat, dirfd);
    const type = stat.mode & S_IFMT;
    const node: TreeNode = {
      name,
      mode: stat.mode,
      uid: stat.uid,
      gid: stat.gid,
      mtime: stat.mtime,
      mtimeNsec: stat.mtimeNsec,
      size: 0,
      rdev:
        type === S_IFDIR || type === S_IFREG || type === S_IFLNK
          ? 0
          : makeRdev(stat.rdevMajor, stat.rdevMinor),
      chunks: [],
      layer: this.#options.layer,
      sourceIno: 0,
      sourceDev: 0,
      index: 0,
      ino: 0,
      nlink: 1,
    };
    if (type === S_IFREG) {
      node.size = stat.size;
      node.sourcePath = this.#path.copy();
      node.sourceIno = this.#identity(stat);
      // until the tree is numbered: what the host counts
      node.nlink = stat.nlink;
    } else {
      node.sourceIno = this.#nextIno++;
      if (type === S_IFLNK) this.#readTarget(node);
    }
    if (xattrListSize(this.#path.bytes) > 0) this.#readXattrs(node);
    this.entries++;
    if (this.entries % PROGRESS_STEP === 0) this.#report();
    return node;
  }

  #identity(stat: Statx): number {
    if (stat.nlink > 1) {
      const key = `${stat.devMajor}:${stat.devMinor}:${stat.inoHigh}:${stat.inoLow}`;
      const known = this.#links.get(key);
      if (known !== undefined) return known;
      this.#links.set(key, this.#nextIno);
    }
    this.dataBytes += stat.size;
    return this.#nextIno++;
  }

  #readTarget(node: TreeNode): void {
    const path = this.#path.copy();
    const target = readlinkSync(path, 'buffer');
    if (target.length > MAX_SYMLINK_V5) {
      throw new UsageError(
        `symlink target of "${path.toString()}" has ${target.length} bytes, limit ${MAX_SYMLINK_V5}`,
        { exitCode: 1 },
      );
    }
    node.target = target;
    node.size = target.length;
  }

  #readXattrs(node: TreeNode): void {
    const path = this.#path.copy();
    const xattrs = new Map<string, Buffer>();
    for (const name of listXattrs(path).toSorted((a, b) => a.compare(b))) {
      const value = getXattr(path, name);
      // Removed between the list and the read: it is not there.
      if (value === undefined) continue;
      const key = name.toString('latin1');
      admitXattr(key, value.length, this.#options.version, path.toString());
      xattrs.set(key, value);
    }
    if (xattrs.size > 0) node.xattrs = xattrs;
  }

  #report(): void {
    this.#context.signal.throwIfAborted();
    this.#context.progress({ phase: 'scan', files: this.entries, totalFiles: 0, bytes: 0, totalBytes: 0 });
  }

  /** Entries of one directory, sorted; the child directories are returned for the caller's stack. */
  #children(dir: TreeNode, prefix: Buffer): { node: TreeNode; prefix: Buffer }[] {
    const children: TreeNode[] = [];
    const directories: { node: TreeNode; prefix: Buffer }[] = [];
    const handle = openDirectory(prefix);
    try {
      this.#path.enter(prefix);
      for (const name of handle.names) {
        this.#path.join(name);
        const child = this.#node(name, handle.fd);
        if (!this.#options.layered && this.#isDropped(child)) continue;
        children.push(child);
        if ((child.mode & S_IFMT) === S_IFDIR) {
          directories.push({
            node: child,
            prefix: Buffer.concat([this.#path.bytes.subarray(0, this.#path.length), SLASH]),
          });
        }
      }
    } finally {
      handle.close();
    }
    children.sort(compareByName);
    directories.sort((a, b) => compareByName(a.node, b.node));
    dir.children = children;
    dir.dirSize5 = directorySize5(children);
    return directories;
  }

  /** A marker of the convention would not be seen in a single-layer image; an opaque directory stays (6.1). */
  #isDropped(node: TreeNode): boolean {
    const kind = whiteoutOf(node, this.#options.whiteoutSpec);
    return kind !== 'none' && kind !== 'overlayfs-opaque';
  }

  /** The root, and where its children are looked for. */
  root(source: string): { node: TreeNode; prefix: Buffer } {
    const path = Buffer.from(source);
    this.#path.join(path);
    const root = this.#node(Buffer.alloc(0));
    if ((root.mode & S_IFMT) === S_IFLNK) {
      // The source may be given as a symlink to a directory: with the slash the kernel follows it.
      this.#path.join(Buffer.concat([path, SLASH]));
      Object.assign(root, this.#node(Buffer.alloc(0)));
      this.entries--;
    }
    if ((root.mode & S_IFMT) !== S_IFDIR) {
      throw new UsageError(`specified path must be a directory: "${source}"`, { exitCode: 1 });
    }
    delete root.target;
    root.size = 0;
    root.mtime = 0;
    root.mtimeNsec = 0;
    return { node: root, prefix: source.endsWith('/') ? path : Buffer.concat([path, SLASH]) };
  }

  /** Read all directories, in the order in which the numbering walk enters them. */
  *directories(top: { node: TreeNode; prefix: Buffer }): Generator<readonly TreeNode[], void> {
    const stack = [top];
    for (let dir = stack.pop(); dir !== undefined; dir = stack.pop()) {
      const below = this.#children(dir.node, dir.prefix);
      yield dir.node.children ?? [];
      for (let i = below.length - 1; i >= 0; i--) stack.push(below[i] as { node: TreeNode; prefix: Buffer });
    }
    this.#report();
  }
}

const SLASH = Buffer.from('/');

/** A directory that is being read; what is known grows with each step. */
export interface DirectoryScan {
  readonly root: TreeNode;
  /** entries so far, the root included */
  readonly entries: number;
  /** bytes of the regular files so far, a hard-linked one counted once */
  readonly dataBytes: number;
  /**
   * Reads one directory for each step and gives its children. They come in the order of the entry numbers, so that data
   * may be stored while the scan goes on.
   */
  steps(): Generator<readonly TreeNode[], void>;
}

/**
 * Start reading a directory and everything below it, links not followed. A path that vanishes meanwhile is an error.
 * The root's mtime is 0, as every directory conversion has it (rafs-metadata 5.3).
 *
 * @throws UsageError exit 1  not a directory, an xattr an image cannot hold, a path longer than the kernel takes; also
 *   while the steps are taken
 */
export function openScan(source: string, options: ScanOptions, context: BuildContext): DirectoryScan {
  const scanner = new Scanner(options, context);
  const top = scanner.root(source);
  return {
    root: top.node,
    get entries() {
      return scanner.entries;
    },
    get dataBytes() {
      return scanner.dataBytes;
    },
    steps: () => scanner.directories(top),
  };
}

/** Read a directory and everything below it at once; see `openScan`. */
export function scanDirectory(source: string, options: ScanOptions, context: BuildContext): ScanResult {
  const scan = openScan(source, options, context);
  const steps = scan.steps();
  while (steps.next().done !== true);
  return { root: scan.root, entries: scan.entries, dataBytes: scan.dataBytes };
}
