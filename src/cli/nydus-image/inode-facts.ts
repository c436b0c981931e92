// What `check -v`, `inspect` and `stat` tell about an inode: the fields of its record, as each version has them.
// Source: rafs-metadata.md 2, 3.5, 4.7; nydus-image 4.1, 4.2.
import { FormatError } from '../../base/errors.ts';
import { viewOf } from '../../base/bytes.ts';
import { MAX_TREE_DEPTH } from '../../base/limits.ts';
import { chunkRecord, type ChunkRecord } from '../../format/chunk-record.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../format/flags.ts';
import { newAttr, newChunkRef, type ChunkRef, type RafsImage } from '../../format/image.ts';
import { Rafs5Image } from '../../format/rafs5/reader.ts';
import { INODE5_SIZE, inode5 } from '../../format/rafs5/layout.ts';
import { readChildren, walkTree, type WalkEntry } from '../../rafs/walk.ts';

/** One tree entry: a name with what stands behind it. */
export interface InodeFacts {
  /** absolute */
  path: Buffer;
  /** `/` for the root */
  name: Buffer;
  ino: number;
  parent: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  size: number;
  /** 512-byte blocks */
  blocks: number;
  /** v5: index of the first child; v6: 0 */
  childIndex: number;
  /** directories: children; else chunks, as upstream counts them */
  childCount: number;
  symlinkSize: number;
  hasXattr: boolean;
  target: Buffer | undefined;
  mtime: number;
  mtimeNsec: number;
}

const ROOT_NAME = Buffer.from('/');
/** Block size of images whose data device is a tar. */
const TARFS_BLOCK = 512;

function hasXattrs(image: RafsImage, ino: number): boolean {
  return !image.xattrs(ino)[Symbol.iterator]().next().done;
}

/** Facts of a v6 entry. */
function factsOf6(image: RafsImage, entry: WalkEntry): InodeFacts {
  const attr = newAttr();
  image.attr(entry.ino, attr);
  const type = attr.mode & S_IFMT;
  const isLink = type === S_IFLNK;
  const sized = type === S_IFREG || isLink || type === S_IFDIR;
  const chunks =
    type === S_IFREG
      ? image.chunkCount(entry.ino)
      : isLink
        ? Math.ceil(attr.size / image.super.chunkSize)
        : 0;
  return {
    path: entry.path,
    name: entry.depth === 0 ? ROOT_NAME : entry.name,
    ino: entry.ino,
    parent: entry.parent,
    mode: attr.mode,
    nlink: attr.nlink,
    uid: attr.uid,
    gid: attr.gid,
    size: attr.size,
    blocks: sized ? Math.ceil(attr.size / 512) : 0,
    childIndex: 0,
    childCount: type === S_IFDIR ? readChildren(image, entry).length : chunks,
    // upstream keeps the low 16 bits of the size, whatever the type
    symlinkSize: attr.size & 0xffff,
    hasXattr: hasXattrs(image, entry.ino),
    target: isLink ? Buffer.from(image.readlink(entry.ino)) : undefined,
    mtime: attr.mtime,
    mtimeNsec: attr.mtimeNsec,
  };
}

/** Facts of a v5 record: every hard link has its own. */
function factsOf5(image: Rafs5Image, index: number, directory: Buffer): InodeFacts {
  const view = viewOf(image.bytes);
  const at = image.recordOffset(index);
  const record = inode5.read(view, at);
  const start = at + INODE5_SIZE;
  const name = Buffer.from(image.bytes.subarray(start, start + record.nameSize));
  const type = record.mode & S_IFMT;
  const slash = directory.length > 1 ? ROOT_NAME : Buffer.alloc(0);
  const path = index === image.rootIno ? ROOT_NAME : Buffer.concat([directory, slash, name]);
  return {
    path,
    name,
    ino: record.ino,
    parent: record.parent,
    mode: record.mode,
    nlink: record.nlink,
    uid: record.uid,
    gid: record.gid,
    size: record.size,
    blocks: record.blocks,
    childIndex: record.childIndex,
    childCount: record.childCount,
    symlinkSize: record.symlinkSize,
    hasXattr: hasXattrs(image, record.ino),
    target: type === S_IFLNK ? Buffer.from(image.readlink(record.ino)) : undefined,
    mtime: record.mtime,
    mtimeNsec: record.mtimeNsec,
  };
}

function* walk5(image: Rafs5Image): Generator<InodeFacts> {
  const pending: { index: number; directory: Buffer; depth: number }[] = [
    { index: image.rootIno, directory: ROOT_NAME, depth: 0 },
  ];
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const facts = factsOf5(image, at.index, at.directory);
    yield facts;
    if ((facts.mode & S_IFMT) !== S_IFDIR) continue;
    if (at.depth >= MAX_TREE_DEPTH) {
      throw new FormatError({ struct: 'tree' }, `directories are nested deeper than ${MAX_TREE_DEPTH}`);
    }
    // children stand behind their directory in the table, so this ends
    if (facts.childCount > 0 && facts.childIndex <= at.index) {
      throw new FormatError(
        { struct: 'inode5', field: 'childIndex' },
        `is ${facts.childIndex} in directory ${at.index}`,
      );
    }
    for (let i = facts.childCount - 1; i >= 0; i--) {
      pending.push({ index: facts.childIndex + i, directory: facts.path, depth: at.depth + 1 });
    }
  }
}

/**
 * All entries of an image, depth first, a directory before its children, children in stored order.
 *
 * @throws FormatError an entry is damaged
 */
export function* walkFacts(image: RafsImage): Generator<InodeFacts> {
  if (image instanceof Rafs5Image) yield* walk5(image);
  else for (const entry of walkTree(image)) yield factsOf6(image, entry);
}

/** Children of a directory, in stored order. */
export function childFacts(image: RafsImage, directory: InodeFacts): InodeFacts[] {
  if (image instanceof Rafs5Image) {
    return Array.from({ length: directory.childCount }, (_, i) =>
      factsOf5(image, directory.childIndex + i, directory.path),
    );
  }
  return readChildren(image, { ino: directory.ino, path: directory.path, depth: 0 }).map((e) =>
    factsOf6(image, e),
  );
}

/** Facts of the root. */
export function rootFacts(image: RafsImage): InodeFacts {
  for (const facts of walkFacts(image)) return facts;
  throw new FormatError({ struct: 'tree' }, 'there is no root');
}

/** A chunk of a tarfs image: plain bytes of the tar, without a record. */
function tarfsChunk(ref: ChunkRef): ChunkRecord {
  return {
    digest: new Uint8Array(32),
    blobIndex: ref.blobIndex,
    flags: 0,
    compressedSize: ref.uncompressedSize,
    uncompressedSize: ref.uncompressedSize,
    compressedOffset: ref.uncompressedOffset,
    uncompressedOffset: ref.uncompressedOffset,
    fileOffset: ref.fileOffset,
    index: ref.chunkIndex,
    crc32: 0,
  };
}

/** Records of the chunks of a regular file, in file order. v6: a record is shared, `fileOffset` is that of its first use. */
export function* chunksOf(image: RafsImage, facts: InodeFacts): Generator<ChunkRecord> {
  if ((facts.mode & S_IFMT) !== S_IFREG) return;
  const view = viewOf(image.bytes);
  const ref = newChunkRef();
  const count = image.chunkCount(facts.ino);
  for (let position = 0; position < count; position++) {
    image.chunk(facts.ino, position, ref);
    const offset =
      ref.recordOffset === 0 ? image.chunkRecordOffset(ref.blobIndex, ref.chunkIndex) : ref.recordOffset;
    if (offset === 0 && image.super.blockSize === TARFS_BLOCK) {
      yield tarfsChunk(ref);
      continue;
    }
    if (offset === 0) {
      throw new FormatError(
        { struct: 'chunkTable' },
        `has no record of chunk ${ref.chunkIndex} of blob ${ref.blobIndex}`,
      );
    }
    yield chunkRecord.read(view, offset);
  }
}
