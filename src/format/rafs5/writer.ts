// Bytes of a RAFS v5 bootstrap from a numbered tree. Source: rafs-metadata.md section 3, order of writing 3.11.
import { alignUp } from '../../base/bytes.ts';
import { UsageError } from '../../base/errors.ts';
import { MAX_BLOBS_V5, MAX_BOOTSTRAP_V5, MAX_SYMLINK_V5, MAX_XATTR_VALUE_V5 } from '../../base/limits.ts';
import { chunkRecord } from '../chunk-record.ts';
import { COMPRESSOR_FLAG, S_IFDIR, S_IFLNK, S_IFMT, SuperFlag } from '../flags.ts';
import type { WriterBlob, WriterNode, WriterOptions, WriterTree } from '../writer-input.ts';
import {
  blobEntry5,
  extendedBlob5,
  INODE5_SIZE,
  inode5,
  InodeFlag5,
  RAFS5_MAGIC,
  RAFS5_VERSION,
  SUPERBLOCK5_SIZE,
  superblock5,
} from './layout.ts';
import { inodeDigests } from './writer-digests.ts';

const ROOT_NAME = Buffer.from('/');
const SECTOR = 512;

/** Sum over all xattrs as the table states it, without its head and padding; 0 for none. */
function xattrTotal(node: WriterNode): number {
  let total = 0;
  if (node.xattrs === undefined) return 0;
  for (const [name, value] of node.xattrs) {
    if (value.length > MAX_XATTR_VALUE_V5) {
      throw new UsageError(
        `xattr "${name}" has a value of ${value.length} bytes, limit ${MAX_XATTR_VALUE_V5}`,
        { exitCode: 1 },
      );
    }
    total += 4 + name.length + 1 + value.length;
  }
  return total;
}

function nameOf(node: WriterNode): Buffer {
  return node.index === 1 ? ROOT_NAME : node.name;
}

function recordSize(node: WriterNode): number {
  const total = xattrTotal(node);
  return (
    INODE5_SIZE +
    alignUp(nameOf(node).length, 8) +
    alignUp(node.target?.length ?? 0, 8) +
    (total === 0 ? 0 : 8 + alignUp(total, 8)) +
    chunkRecord.size * node.chunks.length
  );
}

/** v5 size of a directory: as it came from its source, else by the formula (5.6). */
function directorySize(node: WriterNode): number {
  if (node.dirSize5 !== undefined) return node.dirSize5;
  let sum = 0;
  for (const child of node.children ?? []) sum += child.name.length + 8;
  return Math.max(4096, alignUp(sum, 4096));
}

/** The blob table: entries with one NUL between ids, padded to 8 bytes. */
function encodeBlobTable(blobs: readonly WriterBlob[]): Buffer {
  const parts: Buffer[] = [];
  blobs.forEach((blob, i) => {
    if (i > 0) parts.push(Buffer.of(0));
    parts.push(
      blobEntry5.encode({ readaheadOffset: blob.readaheadOffset, readaheadSize: blob.readaheadSize }),
      Buffer.from(blob.id),
    );
  });
  const table = Buffer.concat(parts);
  return Buffer.concat([table, Buffer.alloc(alignUp(table.length, 8) - table.length)]);
}

/** Offsets of all records by index: depth-first, a node before its children (3.11). */
function placeRecords(tree: WriterTree, start: number): { offsets: Float64Array; end: number } {
  const offsets = new Float64Array(tree.nodes.length + 1);
  let end = start;
  const stack: WriterNode[] = tree.nodes.slice(0, 1);
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    offsets[node.index] = end;
    end += recordSize(node);
    const children = node.children ?? [];
    for (let i = children.length - 1; i >= 0; i--) stack.push(children[i] as WriterNode);
  }
  return { offsets, end };
}

/** Writes the inode records of one bootstrap. */
class RecordWriter {
  readonly #out: Buffer;
  readonly #view: DataView;
  readonly #tree: WriterTree;
  readonly #digests: Buffer;
  readonly #options: WriterOptions;

  constructor(out: Buffer, view: DataView, tree: WriterTree, digests: Buffer, options: WriterOptions) {
    this.#out = out;
    this.#view = view;
    this.#tree = tree;
    this.#digests = digests;
    this.#options = options;
  }

  write(node: WriterNode, offset: number): void {
    const name = nameOf(node);
    const target = node.target ?? Buffer.alloc(0);
    if (target.length > MAX_SYMLINK_V5) {
      throw new UsageError(
        `symlink "${name.toString()}" has a target of ${target.length} bytes, limit ${MAX_SYMLINK_V5}`,
        { exitCode: 1 },
      );
    }
    const total = xattrTotal(node);
    const type = node.mode & S_IFMT;
    const isDir = type === S_IFDIR;
    const size = isDir ? directorySize(node) : node.size;
    const parent = this.#tree.parents[node.index] as number;
    inode5.write(this.#view, offset, {
      digest: this.#digests.subarray(node.index * 32, node.index * 32 + 32),
      parent: parent === 0 ? 0 : (this.#tree.nodes[parent - 1] as WriterNode).ino,
      ino: node.ino,
      uid: this.#options.explicitUidGid ? node.uid : 0,
      gid: this.#options.explicitUidGid ? node.gid : 0,
      mode: node.mode,
      size,
      blocks: node.blocks5 ?? Math.ceil((size + alignUp(total, 8)) / SECTOR),
      flags:
        (type === S_IFLNK ? InodeFlag5.symlink : 0) |
        (node.hardlinkFlag === true ? InodeFlag5.hardlink : 0) |
        (total > 0 ? InodeFlag5.xattr : 0),
      nlink: node.nlink,
      childIndex: isDir ? (this.#tree.childIndexes[node.index] as number) : 0,
      childCount: isDir ? (node.children?.length ?? 0) : node.chunks.length,
      nameSize: name.length,
      symlinkSize: target.length,
      rdev: node.rdev,
      mtimeNsec: node.mtimeNsec,
      mtime: node.mtime,
    });
    let at = offset + INODE5_SIZE;
    this.#out.set(name, at);
    at += alignUp(name.length, 8);
    this.#out.set(target, at);
    at += alignUp(target.length, 8);
    if (total > 0 && node.xattrs !== undefined) at = this.#writeXattrs(at, total, node.xattrs);
    for (const chunk of node.chunks) {
      chunkRecord.write(this.#view, at, chunk);
      at += chunkRecord.size;
    }
  }

  #writeXattrs(offset: number, total: number, xattrs: Map<string, Buffer>): number {
    this.#view.setUint32(offset, total, true);
    let at = offset + 8;
    // latin1 text sorts like the bytes it stands for
    for (const name of [...xattrs.keys()].toSorted()) {
      const value = xattrs.get(name) as Buffer;
      this.#view.setUint32(at, name.length + 1 + value.length, true);
      this.#out.write(name, at + 4, 'latin1');
      this.#out.set(value, at + 4 + name.length + 1);
      at += 4 + name.length + 1 + value.length;
    }
    return offset + 8 + alignUp(total, 8);
  }
}

function superFlags(tree: WriterTree, options: WriterOptions): number {
  let flags = COMPRESSOR_FLAG[options.compressor];
  flags |= options.digester === 'blake3' ? SuperFlag.hashBlake3 : SuperFlag.hashSha256;
  if (options.explicitUidGid) flags |= SuperFlag.explicitUidGid;
  if (tree.nodes.some((node) => node.xattrs !== undefined && node.xattrs.size > 0))
    flags |= SuperFlag.hasXattr;
  return flags;
}

/**
 * A complete v5 bootstrap.
 *
 * @param prefetch entries of the prefetch table in order
 * @throws UsageError a count or size is beyond what the format holds
 */
export function encodeBootstrap5(
  tree: WriterTree,
  blobs: readonly WriterBlob[],
  options: WriterOptions,
  prefetch: readonly WriterNode[],
): Buffer {
  if (blobs.length > MAX_BLOBS_V5)
    throw new UsageError(`image has ${blobs.length} blobs, limit ${MAX_BLOBS_V5}`, { exitCode: 1 });
  const entries = tree.nodes.length;
  const prefetchTable = SUPERBLOCK5_SIZE + alignUp(4 * entries, 8);
  const blobTable = prefetchTable + alignUp(4 * prefetch.length, 8);
  const blobBytes = encodeBlobTable(blobs);
  const extendedTable = blobTable + blobBytes.length;
  const { offsets, end } = placeRecords(tree, extendedTable + extendedBlob5.size * blobs.length);
  if (end > MAX_BOOTSTRAP_V5) {
    throw new UsageError(`the metadata takes ${end} bytes, a v5 image holds ${MAX_BOOTSTRAP_V5}`, {
      exitCode: 1,
      hint: 'build with --fs-version 6',
    });
  }
  const out = Buffer.alloc(end);
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  superblock5.write(view, 0, {
    magic: RAFS5_MAGIC,
    fsVersion: RAFS5_VERSION,
    sbSize: SUPERBLOCK5_SIZE,
    blockSize: options.chunkSize,
    flags: superFlags(tree, options),
    inodesCount: tree.inodes,
    inodeTableOffset: SUPERBLOCK5_SIZE,
    prefetchTableOffset: prefetchTable,
    blobTableOffset: blobTable,
    inodeTableEntries: entries,
    prefetchTableEntries: prefetch.length,
    blobTableSize: blobBytes.length,
    extendedBlobTableEntries: blobs.length,
    extendedBlobTableOffset: extendedTable,
  });
  for (let index = 1; index <= entries; index++) {
    view.setUint32(SUPERBLOCK5_SIZE + 4 * (index - 1), (offsets[index] as number) / 8, true);
  }
  prefetch.forEach((node, i) => view.setUint32(prefetchTable + 4 * i, node.ino, true));
  out.set(blobBytes, blobTable);
  blobs.forEach((blob, i) => extendedBlob5.write(view, extendedTable + i * extendedBlob5.size, blob));
  const records = new RecordWriter(out, view, tree, inodeDigests(tree, options.digester), options);
  for (const node of tree.nodes) records.write(node, offsets[node.index] as number);
  return out;
}
