// A bootstrap as a tree with its chunks, for parent images, merges and dictionaries.
// v5 keeps a record with its own attributes for every hard link, so v5 is read record by record; v6 through RafsImage and its
// chunk table. Source: rafs-metadata.md 3.7, 4.14, 5.1.
import { FormatError } from '../base/errors.ts';
import { viewOf } from '../base/bytes.ts';
import { MAX_TREE_DEPTH } from '../base/limits.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  SuperFlag,
} from '../format/flags.ts';
import { newAttr, newChunkRef, type BlobInfo, type RafsImage } from '../format/image.ts';
import { MAX_STORED_NAME } from '../format/names.ts';
import { INODE5_SIZE, inode5, InodeFlag5, superblock5, type Inode5 } from '../format/rafs5/layout.ts';
import { blobRecord6, EXTENDED_SUPER_OFFSET, extendedSuper6 } from '../format/rafs6/layout.ts';
import { COMPRESSORS } from '../codec/algorithms.ts';
import { compareByName } from '../tree/children.ts';
import { newNode, type TreeBlob, type TreeChunk, type TreeNode } from '../tree/node.ts';

/** A chunk from its 80-byte record. The digest is a view of the bootstrap's bytes. */
export function readChunk(view: DataView, offset: number): TreeChunk {
  const field = chunkRecord.field;
  return {
    digest: field.digest(view, offset),
    blobIndex: field.blobIndex(view, offset),
    flags: field.flags(view, offset),
    compressedSize: field.compressedSize(view, offset),
    uncompressedSize: field.uncompressedSize(view, offset),
    compressedOffset: field.compressedOffset(view, offset),
    uncompressedOffset: field.uncompressedOffset(view, offset),
    fileOffset: field.fileOffset(view, offset),
    index: field.index(view, offset),
    crc32: field.crc32(view, offset),
  };
}

/** Rows of the blob table as the builder writes them. */
export function loadBlobs(image: RafsImage): TreeBlob[] {
  const view = viewOf(image.bytes);
  const table =
    image.super.version === 6 ? extendedSuper6.field.blobTableOffset(view, EXTENDED_SUPER_OFFSET) : undefined;
  return image.blobs.map((blob) =>
    table === undefined ? blob5(blob) : blob6(blob, view, table + blob.index * blobRecord6.size),
  );
}

function common(blob: BlobInfo): Omit<TreeBlob, 'metaSize' | 'cipherIv'> {
  return {
    id: blob.id,
    chunkCount: blob.chunkCount,
    chunkSize: blob.chunkSize,
    features: blob.features,
    compressor: blob.compressor,
    digester: blob.digester,
    compressedSize: blob.compressedSize,
    uncompressedSize: blob.uncompressedSize,
    tocSize: blob.tocSize,
    tocDigest: blob.tocDigest,
    metaDigest: blob.metaDigest,
    cipher: blob.cipher,
    ciCompressor: COMPRESSORS.indexOf(blob.ciCompressor),
    ciOffset: blob.ciOffset,
    ciCompressedSize: blob.ciCompressedSize,
    ciUncompressedSize: blob.ciUncompressedSize,
    readaheadOffset: blob.readaheadOffset,
    readaheadSize: blob.readaheadSize,
  };
}

function blob5(blob: BlobInfo): TreeBlob {
  return { ...common(blob), metaSize: Buffer.alloc(8), cipherIv: Buffer.alloc(8) };
}

/** For an encrypted blob the meta size is half a cipher IV: taken as bytes. */
function blob6(blob: BlobInfo, view: DataView, at: number): TreeBlob {
  return {
    ...common(blob),
    metaSize: blobRecord6.field.metaSize(view, at),
    cipherIv: blobRecord6.field.cipherIv(view, at),
  };
}

export interface LoadedImage {
  root: TreeNode;
  blobs: TreeBlob[];
}

/**
 * Tree and blob table of a bootstrap.
 *
 * @param layer number that keeps hard links of different layers apart
 * @param names `ignored` for dictionaries: upstream generates v5 ones with a file called `/chunkdict`
 * @throws FormatError EINVAL  an inode, a name or a chunk breaks the format, or a v6 image has no chunk table
 */
export function loadImage(
  image: RafsImage,
  layer: number,
  names: 'checked' | 'ignored' = 'checked',
): LoadedImage {
  const blobs = loadBlobs(image);
  const root =
    image.super.version === 5 ? new Loader5(image, layer, names).load() : new Loader6(image, layer).load();
  return { root, blobs };
}

function checkBlob(chunk: TreeChunk, image: RafsImage, offset: number): void {
  if (chunk.blobIndex >= image.blobs.length) {
    throw new FormatError(
      { struct: 'chunkRecord', field: 'blobIndex', offset },
      `is ${chunk.blobIndex}, the blob table has ${image.blobs.length} rows`,
    );
  }
}

function emptyNode(name: Buffer, layer: number): TreeNode {
  return { ...newNode(name, 0, layer), inherited: true };
}

const KNOWN_TYPES = new Set([S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK]);

function checkType(mode: number, offset: number): number {
  const type = mode & S_IFMT;
  if (KNOWN_TYPES.has(type)) return type;
  throw new FormatError(
    { struct: 'inode', field: 'mode', offset },
    `0${mode.toString(8)} has no known file type`,
  );
}

/** A name that would lead out of its directory, or hide another, is not taken over. */
function checkName(name: Buffer, offset: number): void {
  const dots = name.length < 3 && (name.equals(DOT) || name.equals(DOTDOT));
  if (name.length > 0 && name.length <= MAX_STORED_NAME && !dots && !name.includes(0x2f) && !name.includes(0))
    return;
  throw new FormatError(
    { struct: 'inode', field: 'name', offset },
    `"${name.toString()}" is no name of an entry`,
  );
}

const DOT = Buffer.from('.');
const DOTDOT = Buffer.from('..');

function align8(size: number): number {
  return Math.ceil(size / 8) * 8;
}

/** v5: every entry has a record of its own, found through the inode table. */
class Loader5 {
  readonly #image: RafsImage;
  readonly #layer: number;
  readonly #bytes: Buffer;
  readonly #view: DataView;
  readonly #table: number;
  readonly #entries: number;
  readonly #ids: boolean;
  readonly #checkNames: boolean;
  /** records may be used once: a table that names one twice could loop */
  readonly #seen: Uint8Array;

  constructor(image: RafsImage, layer: number, names: 'checked' | 'ignored') {
    this.#image = image;
    this.#layer = layer;
    this.#checkNames = names === 'checked';
    this.#bytes = Buffer.from(image.bytes.buffer, image.bytes.byteOffset, image.bytes.length);
    this.#view = viewOf(image.bytes);
    this.#table = superblock5.field.inodeTableOffset(this.#view, 0);
    this.#entries = superblock5.field.inodeTableEntries(this.#view, 0);
    this.#ids = image.super.explicitUidGid;
    if (this.#table + 4 * this.#entries > this.#bytes.length) {
      throw new FormatError(
        { struct: 'superblock5', field: 'inodeTableEntries' },
        `${this.#entries} entries do not fit the file`,
      );
    }
    this.#seen = new Uint8Array(this.#entries + 1);
  }

  load(): TreeNode {
    const { node: root, record } = this.#node(1);
    root.name = Buffer.alloc(0);
    if ((root.mode & S_IFMT) !== S_IFDIR)
      throw new FormatError({ struct: 'inode5', field: 'mode' }, 'the root is no directory');
    const stack = [{ node: root, record, depth: 0 }];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      if (top.depth > MAX_TREE_DEPTH)
        throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
      const children: TreeNode[] = [];
      const { childIndex, childCount } = top.record;
      for (let i = 0; i < childCount; i++) {
        const child = this.#node(childIndex + i);
        children.push(child.node);
        if ((child.node.mode & S_IFMT) === S_IFDIR) stack.push({ ...child, depth: top.depth + 1 });
      }
      top.node.children = sorted(children);
    }
    return root;
  }

  #node(index: number): { node: TreeNode; record: Inode5 } {
    if (index < 1 || index > this.#entries || this.#seen[index] === 1) {
      throw new FormatError(
        { struct: 'inode5', field: 'childIndex' },
        `names entry ${index}, out of range or used before`,
      );
    }
    this.#seen[index] = 1;
    const at = this.#view.getUint32(this.#table + 4 * (index - 1), true) * 8;
    const record = inode5.read(this.#view, at);
    const type = checkType(record.mode, at);
    let next = at + INODE5_SIZE;
    const take = (size: number): Buffer => {
      if (next + size > this.#bytes.length) {
        throw new FormatError(
          { struct: 'inode5', offset: at },
          `record of entry ${index} reaches past the end of the file`,
        );
      }
      const part = this.#bytes.subarray(next, next + size);
      next += align8(size);
      return part;
    };
    const node = emptyNode(take(record.nameSize), this.#layer);
    if (index !== 1 && this.#checkNames) checkName(node.name, at);
    node.mode = record.mode;
    node.uid = this.#ids ? record.uid : 0;
    node.gid = this.#ids ? record.gid : 0;
    node.mtime = record.mtime;
    node.mtimeNsec = record.mtimeNsec;
    node.rdev = record.rdev;
    node.sourceIno = record.ino;
    if ((record.flags & InodeFlag5.hardlink) !== 0) node.hardlinkFlag = true;
    if (type === S_IFDIR) node.dirSize5 = record.size;
    else node.size = record.size;
    if (type === S_IFLNK) node.target = take(record.symlinkSize);
    if ((record.flags & InodeFlag5.xattr) !== 0) this.#readXattrs(node, take, at);
    if (type === S_IFREG) this.#readChunks(node, record.childCount, next);
    return { node, record };
  }

  #readXattrs(node: TreeNode, take: (size: number) => Buffer, at: number): void {
    const total = Number(take(8).readBigUInt64LE());
    if (!(total <= this.#bytes.length))
      throw new FormatError({ struct: 'xattrTable5', offset: at }, `says ${total} bytes`);
    const table = take(total);
    const xattrs = new Map<string, Buffer>();
    for (let next = 0; next < table.length;) {
      const size = next + 4 <= table.length ? table.readUInt32LE(next) : table.length;
      const pair = table.subarray(next + 4, next + 4 + size);
      const end = pair.indexOf(0);
      if (pair.length !== size || end <= 0)
        throw new FormatError({ struct: 'xattrTable5', offset: at }, 'a pair does not fit or has no name');
      xattrs.set(pair.toString('latin1', 0, end), pair.subarray(end + 1));
      next += 4 + size;
    }
    if (xattrs.size > 0) node.xattrs = xattrs;
  }

  #readChunks(node: TreeNode, count: number, at: number): void {
    if (at + count * chunkRecord.size > this.#bytes.length) {
      throw new FormatError(
        { struct: 'inode5', field: 'childCount', offset: at },
        `${count} chunk records reach past the end of the file`,
      );
    }
    for (let i = 0; i < count; i++) {
      const chunk = readChunk(this.#view, at + i * chunkRecord.size);
      checkBlob(chunk, this.#image, at + i * chunkRecord.size);
      node.chunks.push(chunk);
    }
  }
}

/** v6: links of one file share a nid. */
class Loader6 {
  readonly #image: RafsImage;
  readonly #layer: number;
  readonly #view: DataView;
  readonly #attr = newAttr();
  readonly #ref = newChunkRef();
  readonly #directories = new Set<number>();

  constructor(image: RafsImage, layer: number) {
    this.#image = image;
    this.#layer = layer;
    this.#view = viewOf(image.bytes);
  }

  load(): TreeNode {
    const root = this.#node(this.#image.rootIno, Buffer.alloc(0));
    if ((root.mode & S_IFMT) !== S_IFDIR)
      throw new FormatError({ struct: 'inode6', field: 'mode' }, 'the root is no directory');
    const stack = [{ node: root, depth: 0 }];
    for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
      if (top.depth > MAX_TREE_DEPTH)
        throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
      const children = this.#children(top.node.sourceIno);
      for (const node of children)
        if ((node.mode & S_IFMT) === S_IFDIR) stack.push({ node, depth: top.depth + 1 });
      top.node.children = sorted(children);
    }
    return root;
  }

  #children(dir: number): TreeNode[] {
    if (this.#directories.has(dir))
      throw new FormatError({ struct: 'dirent6', field: 'nid' }, `directory ${dir} is reached twice`);
    this.#directories.add(dir);
    const found: { ino: number; name: Buffer }[] = [];
    this.#image.readdir(dir, 0, (ino, name) => {
      const copy = Buffer.from(name);
      const text = copy.length < 3 ? copy.toString('latin1') : '';
      if (text !== '.' && text !== '..') found.push({ ino, name: copy });
      return true;
    });
    return found.map(({ ino, name }) => {
      checkName(name, 0);
      return this.#node(ino, name);
    });
  }

  #node(ino: number, name: Buffer): TreeNode {
    const attr = this.#attr;
    this.#image.attr(ino, attr);
    const type = checkType(attr.mode, 0);
    const node = emptyNode(name, this.#layer);
    const ids = (this.#image.super.flags & SuperFlag.explicitUidGid) !== 0;
    node.mode = attr.mode;
    node.uid = ids ? attr.uid : 0;
    node.gid = ids ? attr.gid : 0;
    node.mtime = attr.mtime;
    node.mtimeNsec = attr.mtimeNsec;
    node.sourceIno = ino;
    if (type !== S_IFREG && type !== S_IFDIR && type !== S_IFLNK) node.rdev = attr.rdev;
    if (type !== S_IFDIR) node.size = attr.size;
    if (type === S_IFLNK) node.target = Buffer.from(this.#image.readlink(ino));
    this.#readXattrs(node, ino);
    if (type === S_IFREG) this.#readChunks(node, ino);
    return node;
  }

  #readXattrs(node: TreeNode, ino: number): void {
    let xattrs: Map<string, Buffer> | undefined;
    for (const { name, value } of this.#image.xattrs(ino))
      (xattrs ??= new Map()).set(name.toString('latin1'), Buffer.from(value));
    if (xattrs !== undefined) node.xattrs = xattrs;
  }

  #readChunks(node: TreeNode, ino: number): void {
    const ref = this.#ref;
    const count = this.#image.chunkCount(ino);
    for (let i = 0; i < count; i++) {
      this.#image.chunk(ino, i, ref);
      const at =
        ref.recordOffset !== 0
          ? ref.recordOffset
          : this.#image.chunkRecordOffset(ref.blobIndex, ref.chunkIndex);
      if (at === 0) {
        throw new FormatError(
          { struct: 'chunkTable6' },
          `has no record of chunk ${ref.chunkIndex} of blob ${ref.blobIndex}`,
          {
            hint: 'an image without a chunk table cannot be built upon',
          },
        );
      }
      const chunk = readChunk(this.#view, at);
      checkBlob(chunk, this.#image, at);
      chunk.fileOffset = ref.fileOffset;
      node.chunks.push(chunk);
    }
  }
}

/** Names in an image are sorted; one that is not is put in order, two that are equal are refused. */
function sorted(children: TreeNode[]): TreeNode[] {
  children.sort(compareByName);
  for (let i = 1; i < children.length; i++) {
    const name = (children[i] as TreeNode).name;
    if (name.equals((children[i - 1] as TreeNode).name)) {
      throw new FormatError({ struct: 'directory' }, `has two entries "${name.toString()}"`);
    }
  }
  return children;
}
