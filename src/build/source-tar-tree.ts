// Members of a tar as nodes of a tree: names made absolute, missing parents made, later members replacing earlier ones.
// Source: rafs-metadata.md 5.1-5.6, nydus-image-and-nydusify.md 2.2, golden tarforms.
import { FormatError, UsageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MAX_CHUNKS_PER_BLOB, MAX_SYMLINK_V5, MAX_TAR_NAME, MAX_TREE_DEPTH } from '../base/limits.ts';
import { makeRdev, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../format/flags.ts';
import { TarType } from '../format/tar/archive-header.ts';
import type { TarEntry } from '../format/tar/archive.ts';
import { compareByName, directorySize5, walkNumbering } from '../tree/children.ts';
import { lowerLinkFields, lowerLinkTarget } from '../tree/lower-link.ts';
import { newNode, type TreeNode } from '../tree/node.ts';
import { admitXattr } from '../tree/xattr-names.ts';

export interface TarTreeOptions {
  version: 5 | 6;
  chunkSize: number;
  layer: number;
  /** hard links as container runtimes apply them: to files of layers below, which the merge resolves, and to what is no file */
  runtimeLinks?: boolean | undefined;
}

/** rdev that tar conversions record for everything but devices and fifos (rafs-metadata 5.5). */
const NO_RDEV = 0xffff_ffff;
const SLASH = Buffer.from('/');
/** Files at the root that eStargz adds for its own use. */
const STARGZ_FILES = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark']);

const MODE_BITS: Record<number, number> = {
  [TarType.regularOld]: S_IFREG,
  [TarType.regular]: S_IFREG,
  [TarType.contiguous]: S_IFREG,
  [TarType.hardlink]: S_IFREG,
  [TarType.symlink]: S_IFLNK,
  [TarType.char]: S_IFCHR,
  [TarType.block]: S_IFBLK,
  [TarType.directory]: S_IFDIR,
  [TarType.fifo]: S_IFIFO,
};

/** What a runtime makes hard links to beside regular files; here each name becomes an entry of its own (rafs-metadata 5.1). */
const LINKABLE = new Set([S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO]);

/** Builds the tree. Children are kept in maps while members arrive in any order, and sorted once at the end. */
export class TarTree {
  readonly #options: TarTreeOptions;
  readonly #logger: Logger;
  readonly #root: TreeNode;
  /** children by name (latin1) of every directory, and of files that a member was put below */
  readonly #children = new Map<TreeNode, Map<string, TreeNode>>();
  #nextIno = 1;
  #entries = 1;
  /** where the last member went, and that directory's path as it stood in the archive: its neighbours follow it */
  #last: { path: Buffer; directory: TreeNode } | undefined;

  constructor(options: TarTreeOptions, logger: Logger) {
    this.#options = options;
    this.#logger = logger;
    this.#root = this.#newNode(Buffer.alloc(0), S_IFDIR | 0o755);
  }

  /** Members seen so far, the root and made parents included. */
  get entries(): number {
    return this.#entries;
  }

  #newNode(name: Buffer, mode: number): TreeNode {
    const node = newNode(name, mode, this.#options.layer);
    node.rdev = NO_RDEV;
    node.sourceIno = this.#nextIno++;
    return node;
  }

  /**
   * Put one member into the tree.
   *
   * @returns the node when it is a regular file whose data follows, undefined when its data is to be skipped
   * @throws FormatError, UsageError
   */
  add(entry: TarEntry): TreeNode | undefined {
    const neighbour = this.#neighbour(entry.name);
    if (neighbour !== undefined && this.#last !== undefined)
      return this.#addTo(this.#last.directory, neighbour, entry, typeOf(entry));
    const names = splitPath(entry.name, entry);
    if (names.length === 1 && STARGZ_FILES.has((names[0] as Buffer).toString('latin1'))) return undefined;
    const type = typeOf(entry);
    if (names.length === 0) {
      this.#setRoot(entry, type);
      return undefined;
    }
    const name = names.pop() as Buffer;
    const parent = this.#parent(names, entry);
    // where the name stands: behind it a slash or dots may follow
    const slash = name.byteOffset - entry.name.byteOffset - 1;
    const isDirectory = (parent.mode & S_IFMT) === S_IFDIR;
    this.#last =
      names.length > 0 && isDirectory
        ? { path: entry.name.subarray(0, slash), directory: parent }
        : undefined;
    return this.#addTo(parent, name, entry, type);
  }

  /** The name of a member in the directory of the one before, without a look at the names above it. */
  #neighbour(path: Buffer): Buffer | undefined {
    const above = this.#last?.path;
    if (above === undefined) return undefined;
    const start = above.length + 1;
    const length = path.length - start;
    if (length < 1 || length > MAX_TAR_NAME || path[start - 1] !== 0x2f) return undefined;
    const name = path.subarray(start);
    // dots may be special, a slash leads on, and NUL is refused: all of that is looked at in full
    if (name[0] === 0x2e || name.includes(0x2f) || name.includes(0)) return undefined;
    return path.compare(above, 0, above.length, 0, above.length) === 0 ? name : undefined;
  }

  #addTo(parent: TreeNode, name: Buffer, entry: TarEntry, type: number): TreeNode | undefined {
    const node = this.#newNode(name, type | entry.mode);
    this.#fill(node, entry, type);
    this.#place(parent, node);
    return type === S_IFREG && entry.type !== TarType.hardlink ? node : undefined;
  }

  #setRoot(entry: TarEntry, type: number): void {
    if (type !== S_IFDIR) {
      throw new FormatError(
        { struct: 'tarHeader', field: 'name', offset: entry.offset },
        'the root of the archive is no directory',
      );
    }
    this.#root.mode = type | entry.mode;
    this.#fill(this.#root, entry, type);
  }

  #fill(node: TreeNode, entry: TarEntry, type: number): void {
    node.uid = entry.uid;
    node.gid = entry.gid;
    node.mtime = entry.mtime;
    if (type === S_IFCHR || type === S_IFBLK || type === S_IFIFO) node.rdev = deviceOf(entry, type);
    if (entry.type === TarType.hardlink) {
      this.#link(node, entry);
      return;
    }
    this.#setXattrs(node, entry);
    if (type === S_IFREG) this.#setSize(node, entry);
    if (type === S_IFLNK) setTarget(node, entry);
  }

  #setSize(node: TreeNode, entry: TarEntry): void {
    const chunks = Math.ceil(entry.size / this.#options.chunkSize);
    if (chunks > MAX_CHUNKS_PER_BLOB) {
      throw new UsageError(`file "${shown(entry.name)}" has ${chunks} chunks, limit ${MAX_CHUNKS_PER_BLOB}`, {
        exitCode: 1,
      });
    }
    if (entry.sparse) {
      this.#logger.warn(
        `file "${shown(entry.name)}" is sparse in GNU form: its stored bytes are kept, the holes are not expanded`,
      );
    }
    node.size = entry.size;
  }

  #setXattrs(node: TreeNode, entry: TarEntry): void {
    delete node.xattrs;
    if (entry.xattrs === undefined) return;
    const path = `/${shown(entry.name)}`;
    for (const [name, value] of entry.xattrs) admitXattr(name, value.length, this.#options.version, path);
    node.xattrs = new Map([...entry.xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** A hard link has its own owner, mode and time, and everything else of its target (rafs-metadata 5.1). */
  #link(node: TreeNode, entry: TarEntry): void {
    const names = splitPath(entry.link, entry);
    const target = this.#find(names);
    if (this.#options.runtimeLinks === true) {
      const below = target === undefined ? pathOf(names) : lowerLinkTarget(target);
      if (below !== undefined) return this.#linkBelow(node, below, entry);
      if (target !== undefined && LINKABLE.has(target.mode & S_IFMT)) return copyOf(target, node);
    }
    if (target === undefined) {
      throw new UsageError(
        `tarball: unknown target /${shown(entry.link)} for hardlink /${shown(entry.name)}`,
        { exitCode: 1 },
      );
    }
    if ((target.mode & S_IFMT) !== S_IFREG) {
      throw new UsageError(
        `tarball: target /${shown(entry.link)} for hardlink /${shown(entry.name)} is not a regular file`,
        {
          exitCode: 1,
        },
      );
    }
    node.sourceIno = target.sourceIno;
    node.size = target.size;
    // The sink may still be filling this list: share it.
    node.chunks = target.chunks;
    if (target.xattrs !== undefined) node.xattrs = target.xattrs;
    node.hardlinkFlag = true;
    target.hardlinkFlag = true;
  }

  #linkBelow(node: TreeNode, target: Buffer, entry: TarEntry): void {
    checkTarget(target, entry);
    Object.assign(node, lowerLinkFields(target));
  }

  #find(names: readonly Buffer[]): TreeNode | undefined {
    let node: TreeNode | undefined = this.#root;
    for (const name of names) {
      if (node === undefined) return undefined;
      node = this.#children.get(node)?.get(name.toString('latin1'));
    }
    return node;
  }

  /** The directory of a member; the ones missing on the way are made (rafs-metadata 5.4). */
  #parent(names: readonly Buffer[], entry: TarEntry): TreeNode {
    let node = this.#root;
    for (const name of names) {
      let next = this.#children.get(node)?.get(name.toString('latin1'));
      if (next === undefined) {
        next = this.#newNode(name, S_IFDIR | 0o755);
        this.#place(node, next);
      }
      node = next;
    }
    if ((node.mode & S_IFMT) !== S_IFDIR) this.#belowFile(entry);
    return node;
  }

  /** Upstream's v6 stores the data and leaves the member out of the tree; its v5 fails. */
  #belowFile(entry: TarEntry): void {
    const message = `"${shown(entry.name)}" is below something that is no directory`;
    if (this.#options.version === 5) throw new UsageError(`tarball: ${message}`, { exitCode: 1 });
    this.#logger.warn(`${message}: it is not in the image`);
  }

  /** Put a node under its parent. A directory over a directory keeps the children, anything else replaces (golden dir-twice). */
  #place(parent: TreeNode, node: TreeNode): void {
    let siblings = this.#children.get(parent);
    if (siblings === undefined) {
      siblings = new Map();
      this.#children.set(parent, siblings);
    }
    const key = node.name.toString('latin1');
    const old = siblings.get(key);
    // what stood there may have been the directory that is remembered, or one above it
    if (old !== undefined) this.#last = undefined;
    if (old === undefined) this.#entries++;
    else if ((old.mode & node.mode & S_IFMT) === S_IFDIR) this.#inherit(old, node);
    siblings.set(key, node);
  }

  #inherit(old: TreeNode, node: TreeNode): void {
    const children = this.#children.get(old);
    if (children === undefined) return;
    this.#children.delete(old);
    this.#children.set(node, children);
  }

  /** The finished tree: children sorted, v5 directory sizes set. */
  finish(): TreeNode {
    const attach = (node: TreeNode): void => {
      if ((node.mode & S_IFMT) !== S_IFDIR) return;
      node.children = [...(this.#children.get(node)?.values() ?? [])].toSorted(compareByName);
      node.dirSize5 = directorySize5(node.children);
    };
    walkNumbering(this.#root, attach);
    return this.#root;
  }
}

/** File type bits of a member. @throws FormatError the member is of a type that no tree holds */
function typeOf(entry: TarEntry): number {
  const type = MODE_BITS[entry.type];
  if (type !== undefined) return type;
  const shown = JSON.stringify(String.fromCharCode(entry.type));
  throw new FormatError(
    { struct: 'tarHeader', field: 'typeflag', offset: entry.offset },
    `unsupported tar entry type ${shown}`,
  );
}

/** One more entry like the target. */
function copyOf(target: TreeNode, node: TreeNode): void {
  const { mode, uid, gid, mtime, size, rdev } = target;
  Object.assign(node, { mode, uid, gid, mtime, size, rdev });
  if (target.target !== undefined) node.target = target.target;
  if (target.xattrs !== undefined) node.xattrs = target.xattrs;
}

function deviceOf(entry: TarEntry, type: number): number {
  const { devMajor, devMinor } = entry;
  if (devMajor === undefined || devMinor === undefined) {
    // GNU tar leaves the fields of a fifo blank; a device without numbers would be an overlayfs whiteout.
    if (type === S_IFIFO) return 0;
    throw new FormatError(
      { struct: 'tarHeader', field: 'devMajor', offset: entry.offset },
      'a device has no device number',
    );
  }
  if (devMajor < 0 || devMajor > 0xfff || devMinor < 0 || devMinor > 0xf_ffff) {
    throw new FormatError(
      { struct: 'tarHeader', field: 'devMajor', offset: entry.offset },
      `${devMajor}:${devMinor} is no Linux device number`,
    );
  }
  return makeRdev(devMajor, devMinor);
}

function setTarget(node: TreeNode, entry: TarEntry): void {
  const target = entry.link;
  checkTarget(target, entry);
  node.target = target;
  node.size = target.length;
}

function checkTarget(target: Buffer, entry: TarEntry): void {
  if (target.length === 0 || target.length > MAX_SYMLINK_V5 || target.includes(0)) {
    throw new FormatError(
      { struct: 'tarHeader', field: 'linkname', offset: entry.offset },
      `symlink target of ${target.length} bytes: must be 1 to ${MAX_SYMLINK_V5} without NUL`,
    );
  }
}

/** A path from the root. */
function pathOf(names: readonly Buffer[]): Buffer {
  return Buffer.concat(names.flatMap((name) => [SLASH, name]));
}

/** Text of a path for messages. */
function shown(path: Buffer): string {
  return path.toString().replace(/^(\.?\/)+/, '');
}

/**
 * Names of a path, whatever its form: absolute, `./`, doubled or trailing slashes. [] is the root.
 *
 * @throws FormatError EINVAL  `..`, NUL, a name or a depth beyond the limit
 */
function splitPath(path: Buffer, entry: TarEntry): Buffer[] {
  const place = { struct: 'tarHeader', field: 'name', offset: entry.offset };
  if (path.includes(0)) throw new FormatError(place, 'path holds a NUL');
  const names: Buffer[] = [];
  for (let at = 0; at < path.length;) {
    const slash = path.indexOf(0x2f, at);
    const end = slash < 0 ? path.length : slash;
    const name = path.subarray(at, end);
    at = end + 1;
    if (name.length === 0 || (name.length === 1 && name[0] === 0x2e)) continue;
    if (name.length === 2 && name[0] === 0x2e && name[1] === 0x2e)
      throw new FormatError(place, `path "${path.toString()}" holds ".."`);
    if (name.length > MAX_TAR_NAME)
      throw new FormatError(place, `name of ${name.length} bytes, limit ${MAX_TAR_NAME}`);
    names.push(name);
  }
  if (names.length >= MAX_TREE_DEPTH)
    throw new FormatError(place, `path of ${names.length} names, limit ${MAX_TREE_DEPTH}`);
  return names;
}
