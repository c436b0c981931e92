// Bytes of a RAFS v6 bootstrap from a numbered tree. Source: rafs-metadata.md section 4, order of writing 4.16.
import { alignUp } from '../../base/bytes.ts';
import { UsageError } from '../../base/errors.ts';
import { MAX_BLOBS_V6, MAX_SYMLINK_V6 } from '../../base/limits.ts';
import { COMPRESSORS, DIGESTERS } from '../../codec/algorithms.ts';
import { chunkRecord } from '../chunk-record.ts';
import { BlobFeature, COMPRESSOR_FLAG, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SuperFlag } from '../flags.ts';
import type { WriterBlob, WriterNode, WriterOptions, WriterTree } from '../writer-input.ts';
import {
  BLOCK_SIZE,
  blobRecord6,
  CHUNK_FORMAT_INDEXES,
  chunkIndex6,
  COMPAT_RAFS6,
  DEVICE_SLOTS_OFFSET,
  deviceSlot6,
  EROFS_MAGIC,
  EROFS_SUPER_OFFSET,
  EXTENDED_SUPER_OFFSET,
  extendedSuper6,
  INCOMPAT_RAFS6,
  inodeExtended6,
  InodeLayout6,
  NID_SHIFT,
  superblock6,
} from './layout.ts';
import { SpaceAllocator } from './space.ts';
import { distinctChunks, writeChunkRecord } from './writer-chunk-table.ts';
import { direntSize, writeDirents } from './writer-dirents.ts';
import { writeXattrs, xattrAreaSize, xattrIcount } from './writer-xattrs.ts';

/** Bootstrap and blobs as one flat device: each blob starts at a multiple of this (rafs-metadata 4.5). */
const FLAT_DEVICE_ALIGNMENT = 0x8_0000;
const BLOCK_BITS = 12;
const MAX_BLOCK_NUMBER = 0xffff_ffff;

/** Where everything of each entry lies, addressed by index; positions relative to the metadata area. */
interface Places {
  inode: Float64Array;
  data: Float64Array;
  inline: Uint8Array;
  /** dirent bytes, file size or target length */
  size: Float64Array;
  end: number;
}

/** Space for all inodes and their data (rafs-metadata 4.15). */
function placeTree(tree: WriterTree): Places {
  const slots = tree.nodes.length + 1;
  const places: Places = {
    inode: new Float64Array(slots),
    data: new Float64Array(slots),
    inline: new Uint8Array(slots),
    size: new Float64Array(slots),
    end: 0,
  };
  const space = new SpaceAllocator(BLOCK_SIZE);
  const placeData = (node: WriterNode, size: number): void => {
    const place = space.placeWithData(inodeExtended6.size + xattrAreaSize(node.xattrs), size);
    places.inode[node.index] = place.inode;
    places.data[node.index] = place.data;
    places.inline[node.index] = place.inline ? 1 : 0;
    places.size[node.index] = size;
  };
  const placeLeaf = (node: WriterNode): void => {
    const type = node.mode & S_IFMT;
    if (type === S_IFLNK) {
      const length = node.target?.length ?? 0;
      if (length === 0 || length > MAX_SYMLINK_V6) {
        throw new UsageError(
          `symlink "${node.name.toString()}" has a target of ${length} bytes, a v6 image takes 1 to ${MAX_SYMLINK_V6}`,
          {
            exitCode: 1,
          },
        );
      }
      placeData(node, length);
    } else if (type === S_IFREG) {
      if (node.ino === node.index) {
        const head = alignUp(inodeExtended6.size + xattrAreaSize(node.xattrs), 8);
        places.inode[node.index] = space.placeFile(head + chunkIndex6.size * node.chunks.length);
        places.size[node.index] = node.size;
      } else {
        // placement follows the order of numbers among files: the first link has its place by now
        places.inode[node.index] = places.inode[node.ino] as number;
        places.size[node.index] = places.size[node.ino] as number;
      }
    } else {
      places.inode[node.index] = space.placeSpecial(inodeExtended6.size + xattrAreaSize(node.xattrs));
    }
  };
  const layout = (dir: WriterNode): void => {
    const children = dir.children ?? [];
    placeData(dir, direntSize(children, BLOCK_SIZE));
    for (const child of children) if (child.children === undefined) placeLeaf(child);
  };
  const root = tree.nodes[0];
  if (root === undefined) throw new UsageError('a tree without a root', { exitCode: 1 });
  layout(root);
  const stack: { dir: WriterNode; next: number }[] = [{ dir: root, next: 0 }];
  for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
    const child = top.dir.children?.[top.next++];
    if (child === undefined) stack.pop();
    else if (child.children !== undefined) {
      layout(child);
      stack.push({ dir: child, next: 0 });
    }
  }
  places.end = space.end;
  return places;
}

/** Chunk format word of a file: one big EROFS chunk when its chunks lie one after the other in one blob (4.13). */
function chunkFormat(node: WriterNode, chunkSize: number): number {
  const first = node.chunks[0];
  let size = chunkSize;
  if (node.size > chunkSize && first !== undefined) {
    const contiguous = node.chunks.every(
      (chunk, i) =>
        chunk.blobIndex === first.blobIndex &&
        chunk.uncompressedOffset === first.uncompressedOffset + i * chunkSize,
    );
    if (contiguous) size = 2 ** Math.ceil(Math.log2(node.size));
  }
  return CHUNK_FORMAT_INDEXES | (Math.log2(size) - BLOCK_BITS);
}

/** Writes the inodes of one bootstrap. */
class InodeWriter {
  readonly #out: Buffer;
  readonly #view: DataView;
  readonly #tree: WriterTree;
  readonly #places: Places;
  readonly #meta: number;
  readonly #options: WriterOptions;
  hasXattr = false;

  constructor(
    out: Buffer,
    view: DataView,
    tree: WriterTree,
    places: Places,
    meta: number,
    options: WriterOptions,
  ) {
    this.#out = out;
    this.#view = view;
    this.#tree = tree;
    this.#places = places;
    this.#meta = meta;
    this.#options = options;
  }

  readonly #nidOf = (node: WriterNode): number => (this.#places.inode[node.index] as number) / 2 ** NID_SHIFT;

  /** Header, xattrs, and dirents, target or chunk indexes of one entry. */
  write(node: WriterNode): void {
    const { inode, data, inline, size } = this.#places;
    const first = this.#tree.nodes[node.ino - 1] as WriterNode;
    const offset = this.#meta + (inode[node.index] as number);
    const type = node.mode & S_IFMT;
    const xattrSize = xattrAreaSize(first.xattrs);
    const isInline = inline[node.index] === 1;
    const body = offset + inodeExtended6.size + xattrSize;
    let layout: number = InodeLayout6.flatPlain;
    let u = node.rdev;
    if (type === S_IFREG) {
      layout = InodeLayout6.chunkBased;
      u = chunkFormat(first, this.#options.chunkSize);
      this.#writeChunkIndexes(alignUp(body, 8), first);
    } else if (type === S_IFDIR || type === S_IFLNK) {
      if (isInline) layout = InodeLayout6.flatInline;
      const start = this.#meta + (data[node.index] as number);
      u = Math.floor(start / BLOCK_SIZE);
      if (type === S_IFDIR) this.#writeDirectory(node, body, start, isInline);
      else this.#out.set(node.target as Buffer, isInline ? body : start);
    }
    inodeExtended6.write(this.#view, offset, {
      format: 1 | (layout << 1),
      xattrIcount: xattrIcount(xattrSize),
      mode: node.mode,
      size: size[node.index] as number,
      u,
      ino: node.ino,
      uid: this.#options.explicitUidGid ? node.uid : 0,
      gid: this.#options.explicitUidGid ? node.gid : 0,
      mtime: node.mtime,
      mtimeNsec: node.mtimeNsec,
      nlink: node.nlink,
    });
    if (xattrSize > 0 && first.xattrs !== undefined) {
      writeXattrs(this.#out, this.#view, offset + inodeExtended6.size, first.xattrs);
      this.hasXattr = true;
    }
  }

  #writeDirectory(dir: WriterNode, body: number, start: number, isInline: boolean): void {
    const parent = this.#tree.nodes[Math.max(1, this.#tree.parents[dir.index] as number) - 1] as WriterNode;
    const lastBlock = Math.ceil((this.#places.size[dir.index] as number) / BLOCK_SIZE) - 1;
    writeDirents(this.#out, this.#view, dir, parent, BLOCK_SIZE, this.#nidOf, (block) =>
      isInline && block === lastBlock ? body : start + block * BLOCK_SIZE,
    );
  }

  #writeChunkIndexes(offset: number, node: WriterNode): void {
    const { put } = chunkIndex6;
    let at = offset;
    for (const chunk of node.chunks) {
      put.indexLow(this.#view, at, chunk.index & 0xffff);
      put.deviceId(this.#view, at, (chunk.blobIndex + 1) | ((chunk.index >>> 16) << 8));
      put.blkaddr(this.#view, at, chunk.uncompressedOffset / BLOCK_SIZE);
      at += chunkIndex6.size;
    }
  }
}

/** Device slots and their blocks in all. */
function writeDevices(view: DataView, blobs: readonly WriterBlob[], fileSize: number): number {
  let position = fileSize;
  let total = 0;
  blobs.forEach((blob, i) => {
    const blocks = Math.floor(blob.uncompressedSize / BLOCK_SIZE);
    const mapped = alignUp(position, FLAT_DEVICE_ALIGNMENT) / BLOCK_SIZE;
    position = (mapped + blocks) * BLOCK_SIZE;
    total += blocks;
    if (position / BLOCK_SIZE > MAX_BLOCK_NUMBER) {
      throw new UsageError(
        `blobs end at block ${position / BLOCK_SIZE}, a v6 image holds ${MAX_BLOCK_NUMBER}`,
        { exitCode: 1 },
      );
    }
    deviceSlot6.write(view, DEVICE_SLOTS_OFFSET + i * deviceSlot6.size, {
      tag: blob.id,
      blocks,
      mappedBlkaddr: mapped,
    });
  });
  return total;
}

function writeBlobTable(view: DataView, offset: number, blobs: readonly WriterBlob[]): void {
  blobs.forEach((blob, i) => {
    blobRecord6.write(view, offset + i * blobRecord6.size, {
      blobId: Buffer.from(blob.id),
      blobIndex: i,
      chunkSize: blob.chunkSize,
      chunkCount: blob.chunkCount,
      compressor: COMPRESSORS.indexOf(blob.compressor),
      digester: DIGESTERS.indexOf(blob.digester),
      features: blob.features,
      compressedSize: blob.compressedSize,
      uncompressedSize: blob.uncompressedSize,
      tocSize: blob.tocSize,
      ciCompressor: blob.ciCompressor,
      ciOffset: blob.ciOffset,
      ciCompressedSize: blob.ciCompressedSize,
      ciUncompressedSize: blob.ciUncompressedSize,
      tocDigest: blob.tocDigest,
      metaDigest: blob.metaDigest,
      metaSize: blob.metaSize,
      cipherIv: blob.cipherIv,
      cipher: blob.cipher,
    });
  });
}

function superFlags(blobs: readonly WriterBlob[], options: WriterOptions, hasXattr: boolean): number {
  let flags = COMPRESSOR_FLAG[options.compressor];
  flags |= options.digester === 'blake3' ? SuperFlag.hashBlake3 : SuperFlag.hashSha256;
  if (options.explicitUidGid) flags |= SuperFlag.explicitUidGid;
  if (hasXattr || options.alwaysHasXattr === true) flags |= SuperFlag.hasXattr;
  if (blobs.every((blob) => (blob.features & BlobFeature.inlinedChunkDigest) !== 0))
    flags |= SuperFlag.inlinedChunkDigest;
  flags |= options.encrypted === true ? SuperFlag.encryptionAes128Xts : SuperFlag.encryptionNone;
  return flags >>> 0;
}

/**
 * A complete v6 bootstrap.
 *
 * @param prefetch entries of the prefetch table in order
 * @throws UsageError a count or size is beyond what the format holds
 */
export function encodeBootstrap6(
  tree: WriterTree,
  blobs: readonly WriterBlob[],
  options: WriterOptions,
  prefetch: readonly WriterNode[],
): Buffer {
  if (blobs.length > MAX_BLOBS_V6)
    throw new UsageError(`image has ${blobs.length} blobs, a v6 image holds ${MAX_BLOBS_V6}`, {
      exitCode: 1,
    });
  const places = placeTree(tree);
  const hasBlobs = blobs.length > 0;
  const blobTable = alignUp(DEVICE_SLOTS_OFFSET + deviceSlot6.size * blobs.length, BLOCK_SIZE);
  const prefetchTable = blobTable + blobRecord6.size * blobs.length;
  const prefetchSize = hasBlobs ? 4 * prefetch.length : 0;
  const meta = hasBlobs ? alignUp(prefetchTable + prefetchSize, BLOCK_SIZE) : 0;
  const chunkTable = alignUp(meta + places.end, BLOCK_SIZE);
  const chunks = distinctChunks(tree.nodes, blobs);
  const fileSize = alignUp(chunkTable + chunkRecord.size * chunks.length, BLOCK_SIZE);

  const out = Buffer.alloc(fileSize);
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const inodes = new InodeWriter(out, view, tree, places, meta, options);
  for (const node of tree.nodes) inodes.write(node);
  if (prefetchSize > 0) {
    prefetch.forEach((node, i) =>
      view.setUint32(prefetchTable + 4 * i, (places.inode[node.index] as number) / 32, true),
    );
  }
  chunks.forEach((chunk, i) => writeChunkRecord(view, chunkTable + i * chunkRecord.size, chunk));
  const blocks = writeDevices(view, blobs, fileSize);
  writeBlobTable(view, blobTable, blobs);
  superblock6.write(view, EROFS_SUPER_OFFSET, {
    magic: EROFS_MAGIC,
    featureCompat: COMPAT_RAFS6,
    blkszbits: BLOCK_BITS,
    rootNid: (places.inode[1] as number) / 32,
    inos: tree.nodes.length,
    blocks,
    metaBlkaddr: meta / BLOCK_SIZE,
    featureIncompat: INCOMPAT_RAFS6,
    extraDevices: blobs.length,
    devtSlotoff: DEVICE_SLOTS_OFFSET / deviceSlot6.size,
  });
  extendedSuper6.write(view, EXTENDED_SUPER_OFFSET, {
    flags: superFlags(blobs, options, inodes.hasXattr),
    blobTableOffset: blobTable,
    blobTableSize: blobRecord6.size * blobs.length,
    chunkSize: options.chunkSize,
    chunkTableOffset: chunkTable,
    chunkTableSize: chunkRecord.size * chunks.length,
    prefetchTableOffset: prefetchSize > 0 ? prefetchTable : 0,
    prefetchTableSize: prefetchSize,
  });
  return out;
}
