// Reads a v6 bootstrap in place: an inode is its nid, its bytes are looked at when they are asked for and checked then.
// Source of the bytes: a mapped file. Layout and rules: rafs-metadata.md section 4.
import { FormatError } from '../../base/errors.ts';
import { alignUp, viewOf } from '../../base/bytes.ts';
import { MAX_SYMLINK_V6 } from '../../base/limits.ts';
import { chunkRecord } from '../chunk-record.ts';
import { buildChunkLocator, type ChunkLocator } from '../chunk-locator.ts';
import { BlobFeature, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SuperFlag } from '../flags.ts';
import {
  MAX_STORED_NAME,
  compareName,
  compareRanges,
  fileTypeOf,
  hasForbiddenByte,
  isDot,
  isDotDot,
} from '../names.ts';
import type { BlobInfo, ChunkRef, DirVisitor, InodeAttr, RafsImage, SuperInfo } from '../image.ts';
import {
  FileType6,
  InodeLayout6,
  XATTR_PREFIXES6,
  chunkIndex6,
  dirent6,
  inodeCompact6,
  inodeExtended6,
  xattrEntry6,
  xattrHeader6,
} from './layout.ts';
import { readBlobs6, readSuperblocks6, superInfo6, type Superblocks6 } from './tables.ts';

const ext = inodeExtended6.field;
const compact = inodeCompact6.field;
const DOTDOT = Uint8Array.of(0x2e, 0x2e);

/** A v6 image with the extras that checks, dumps and builders of upper layers want. */
export class Rafs6Image implements RafsImage {
  readonly super: SuperInfo;
  readonly blobs: readonly BlobInfo[];
  readonly rootIno: number;
  readonly bytes: Uint8Array;
  readonly superblocks: Superblocks6;
  /** byte offset of nid 0 */
  readonly metaOffset: number;
  /** file type in the directory entry that `readdir` visits; should be that of the inode */
  storedFileType = 0;
  private readonly view: DataView;
  private readonly blockSize: number;
  private readonly maxNid: number;
  private readonly dictionary: boolean;
  private locator: ChunkLocator | undefined;

  // the inode looked at last; plain fields so that looking at one allocates nothing
  private at = 0;
  private extended = true;
  private layout = 0;
  private mode = 0;
  private size = 0;
  private blkaddr = 0;
  /** end of header and xattr area */
  private bodyEnd = 0;
  private chunks = 0;

  // the directory block looked at last
  private blockStart = 0;
  private blockLimit = 0;
  private blockCount = 0;
  // the name looked at last
  private nameStart = 0;
  private nameEnd = 0;

  constructor(bytes: Uint8Array, options: { dictionary?: boolean } = {}) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.superblocks = readSuperblocks6(this.view);
    this.super = superInfo6(this.superblocks);
    this.blockSize = this.super.blockSize;
    this.blobs = readBlobs6(this.view, this.superblocks, options.dictionary === true);
    const generated = this.blobs.some(({ features }) => (features & BlobFeature.isChunkdictGenerated) !== 0);
    this.dictionary = options.dictionary === true || generated;
    this.rootIno = this.superblocks.erofs.rootNid;
    this.metaOffset = this.superblocks.erofs.metaBlkaddr * this.blockSize;
    this.maxNid = Math.floor((bytes.length - this.metaOffset) / 32);
    this.loadDir(this.rootIno);
  }

  /** Byte offset of an inode. */
  inodeOffset(nid: number): number {
    if (!(nid > 0 && nid < this.maxNid)) {
      throw new FormatError(
        { struct: 'inode6' },
        `no inode ${nid}, the last slot of the file is ${this.maxNid - 1}`,
      );
    }
    return this.metaOffset + 32 * nid;
  }

  /**
   * Check an inode as reading it would, and tell where its parts are.
   *
   * @throws FormatError the inode breaks a rule that needs no other inode
   */
  inode(nid: number): { offset: number; extended: boolean; layout: number; bodyEnd: number; end: number } {
    this.load(nid);
    const type = this.mode & S_IFMT;
    let end = this.bodyEnd;
    if (type === S_IFREG) end = this.at + alignUp(this.bodyEnd - this.at, 8) + chunkIndex6.size * this.chunks;
    else if ((type === S_IFDIR || type === S_IFLNK) && this.layout === InodeLayout6.flatInline) {
      end += this.size - this.wholeBlocks();
    }
    return { offset: this.at, extended: this.extended, layout: this.layout, bodyEnd: this.bodyEnd, end };
  }

  lookup(dir: number, name: Uint8Array): number {
    this.loadDir(dir);
    if (isDot(name, 0, name.length)) return dir;
    if (isDotDot(name, 0, name.length)) return this.parentOf(dir);
    return this.find(name);
  }

  attr(nid: number, out: InodeAttr): void {
    this.load(nid);
    const { view, at } = this;
    const type = this.mode & S_IFMT;
    out.ino = nid;
    out.mode = this.mode;
    out.size = this.size;
    out.blocks = Math.ceil(this.size / 512);
    out.rdev = type === S_IFCHR || type === S_IFBLK ? this.blkaddr : 0;
    if (this.extended) {
      out.nlink = ext.nlink(view, at);
      out.uid = ext.uid(view, at);
      out.gid = ext.gid(view, at);
      out.mtime = ext.mtime(view, at);
      out.mtimeNsec = ext.mtimeNsec(view, at);
    } else {
      out.nlink = compact.nlink(view, at);
      out.uid = compact.uid(view, at);
      out.gid = compact.gid(view, at);
      out.mtime = this.superblocks.erofs.buildTime;
      out.mtimeNsec = this.superblocks.erofs.buildTimeNsec;
    }
  }

  readdir(dir: number, cookie: number, visit: DirVisitor): void {
    this.loadDir(dir);
    const blocks = Math.ceil(this.size / this.blockSize);
    let position = 0;
    let previousStart = 0;
    let previousEnd = 0;
    for (let k = 0; k < blocks; k++) {
      this.loadBlock(k);
      const count = this.blockCount;
      if (position + count <= cookie) {
        position += count;
        continue;
      }
      for (let j = Math.max(0, cookie - position); j < count; j++) {
        this.loadName(j);
        const { nameStart, nameEnd } = this;
        // upstream writes `/chunkdict` as the name of the one file of a generated dictionary
        if (!this.dictionary && hasForbiddenByte(this.bytes, nameStart, nameEnd)) {
          throw this.badName('the name holds a slash or a NUL');
        }
        if (
          previousEnd !== 0 &&
          compareRanges(this.bytes, previousStart, previousEnd, nameStart, nameEnd) >= 0
        ) {
          throw this.badName('names of a directory are not in ascending order');
        }
        previousStart = nameStart;
        previousEnd = nameEnd;
        const nid = this.direntNid(j);
        if (isDot(this.bytes, nameStart, nameEnd) && nid !== dir)
          throw this.badName(`. points to ${nid}, the directory is ${dir}`);
        this.storedFileType = dirent6.field.fileType(this.view, this.blockStart + dirent6.size * j);
        this.load(nid);
        const type = fileTypeOf(this.mode);
        if (!visit(nid, this.bytes.subarray(nameStart, nameEnd), type, position + j + 1)) return;
        // visiting and loading the child moved on to other inodes
        this.loadDir(dir);
        this.loadBlock(k);
      }
      position += count;
    }
  }

  chunkCount(nid: number): number {
    this.loadFile(nid);
    return this.chunks;
  }

  chunk(nid: number, position: number, out: ChunkRef): void {
    this.loadFile(nid);
    if (!(position >= 0 && position < this.chunks)) {
      throw this.wrong('size', `the file has ${this.chunks} chunks, chunk ${position} was asked for`);
    }
    const { view } = this;
    const entry = alignUp(this.bodyEnd - this.at, 8) + this.at + chunkIndex6.size * position;
    const device = chunkIndex6.field.deviceId(view, entry);
    const blobIndex = (device & 0xff) - 1;
    const chunkIndex = chunkIndex6.field.indexLow(view, entry) | ((device >>> 8) << 16);
    const blob = this.blobs[blobIndex];
    if (blob === undefined) {
      throw new FormatError(
        { struct: 'chunkIndex6', field: 'deviceId', offset: entry },
        `names device ${blobIndex + 1}, the image has ${this.blobs.length}`,
      );
    }
    if (chunkIndex >= blob.chunkCount) {
      throw new FormatError(
        { struct: 'chunkIndex6', field: 'indexLow', offset: entry },
        `names chunk ${chunkIndex}, blob ${blobIndex} has ${blob.chunkCount} chunks`,
      );
    }
    const chunkSize = this.super.chunkSize;
    const fileOffset = position * chunkSize;
    const left = this.size - fileOffset;
    out.blobIndex = blobIndex;
    out.chunkIndex = chunkIndex;
    out.uncompressedOffset = chunkIndex6.field.blkaddr(view, entry) * this.blockSize;
    out.uncompressedSize = left < chunkSize ? left : chunkSize;
    out.fileOffset = fileOffset;
    out.recordOffset = 0;
  }

  readlink(nid: number): Uint8Array {
    this.load(nid);
    if ((this.mode & S_IFMT) !== S_IFLNK)
      throw this.wrong('mode', `inode ${nid} is no symlink: 0${this.mode.toString(8)}`);
    const { bytes, size, bodyEnd } = this;
    if (this.layout === InodeLayout6.flatPlain) {
      const start = this.blkaddr * this.blockSize;
      return bytes.subarray(start, start + size);
    }
    const whole = this.wholeBlocks();
    if (whole === 0) return bytes.subarray(bodyEnd, bodyEnd + size);
    // 512-byte blocks only: the leading blocks are apart from the tail
    const start = this.blkaddr * this.blockSize;
    return Buffer.concat([
      bytes.subarray(start, start + whole),
      bytes.subarray(bodyEnd, bodyEnd + size - whole),
    ]);
  }

  *xattrs(nid: number): Iterable<{ name: Buffer; value: Uint8Array }> {
    this.load(nid);
    let at = this.at + (this.extended ? inodeExtended6.size : inodeCompact6.size);
    const end = this.bodyEnd;
    if (at === end) return;
    at += xattrHeader6.size;
    while (at < end) {
      const place = { struct: 'xattrEntry6', offset: at };
      const nameLen = xattrEntry6.field.nameLen(this.view, at);
      const valueSize = xattrEntry6.field.valueSize(this.view, at);
      const index = xattrEntry6.field.nameIndex(this.view, at);
      const start = at + xattrEntry6.size;
      if (start + nameLen + valueSize > end) {
        throw new FormatError(place, `needs ${nameLen + valueSize} bytes, ${end - start} are left`);
      }
      const prefix = XATTR_PREFIXES6[index];
      if (prefix === undefined) throw new FormatError(place, `unknown name prefix ${index}`);
      const name = Buffer.concat([
        Buffer.from(prefix, 'latin1'),
        this.bytes.subarray(start, start + nameLen),
      ]);
      yield { name, value: this.bytes.subarray(start + nameLen, start + nameLen + valueSize) };
      at = alignUp(start + nameLen + valueSize, 4);
    }
  }

  xattr(nid: number, name: Uint8Array): Uint8Array | undefined {
    for (const entry of this.xattrs(nid)) if (entry.name.equals(name)) return entry.value;
    return undefined;
  }

  parentOf(dir: number): number {
    this.loadDir(dir);
    if (dir === this.rootIno) return dir;
    const parent = this.find(DOTDOT);
    if (parent === 0) throw new FormatError({ struct: 'dirent6' }, `directory ${dir} has no entry ..`);
    this.loadDir(parent);
    return parent;
  }

  prefetchInos(): number[] {
    const { prefetchTableOffset: start, prefetchTableSize: size } = this.superblocks.extended;
    const nids: number[] = [];
    if (start === 0) return nids;
    for (let at = start; at < start + size; at += 4) {
      const nid = this.view.getUint32(at, true);
      if (nid === 0) break;
      nids.push(nid);
    }
    return nids;
  }

  chunkRecordOffset(blobIndex: number, chunkIndex: number): number {
    // tarfs digests are all zero, so its table lost most of the records
    if ((this.super.flags & SuperFlag.tarfsMode) !== 0) return 0;
    const { chunkTableOffset: start, chunkTableSize: size } = this.superblocks.extended;
    this.locator ??= buildChunkLocator(this.blobs.length, (each) => {
      for (let row = 0; row < size / chunkRecord.size; row++) {
        const record = start + chunkRecord.size * row;
        each(
          chunkRecord.field.blobIndex(this.view, record),
          chunkRecord.field.index(this.view, record),
          row + 1,
        );
      }
    });
    const row = this.locator(blobIndex, chunkIndex);
    return row === 0 ? 0 : start + chunkRecord.size * (row - 1);
  }

  /** Binary search of the loaded directory: over blocks by their first name, then inside the block. */
  private find(name: Uint8Array): number {
    let low = 0;
    let high = Math.ceil(this.size / this.blockSize);
    // invariant: the entry, if there is one, is in blocks [low, high)
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      this.loadBlock(middle);
      this.loadName(0);
      if (compareName(name, this.bytes, this.nameStart, this.nameEnd) < 0) high = middle;
      else low = middle;
    }
    this.loadBlock(low);
    low = 0;
    high = this.blockCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      this.loadName(middle);
      const order = compareName(name, this.bytes, this.nameStart, this.nameEnd);
      if (order === 0) return this.direntNid(middle);
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return 0;
  }

  /** Locate block `k` of the loaded directory and check its head. */
  private loadBlock(k: number): void {
    const { blockSize, view } = this;
    const left = this.size - blockSize * k;
    const limit = left < blockSize ? left : blockSize;
    const inline = this.layout === InodeLayout6.flatInline && blockSize * k >= this.wholeBlocks();
    const start = inline ? this.bodyEnd : (this.blkaddr + k) * blockSize;
    const first = limit < dirent6.size ? 0 : dirent6.field.nameoff(view, start);
    if (first < dirent6.size || first % dirent6.size !== 0 || first >= limit) {
      throw new FormatError(
        { struct: 'dirent6', field: 'nameoff', offset: start },
        `the first name starts at ${first}, expected a multiple of ${dirent6.size} below ${limit}`,
      );
    }
    this.blockStart = start;
    this.blockLimit = limit;
    this.blockCount = first / dirent6.size;
  }

  /** Locate name `j` of the loaded block. */
  private loadName(j: number): void {
    const { view, blockStart, blockCount, blockLimit } = this;
    const entry = blockStart + dirent6.size * j;
    const start = dirent6.field.nameoff(view, entry);
    let end = blockLimit;
    if (j + 1 < blockCount) {
      end = dirent6.field.nameoff(view, entry + dirent6.size);
    } else {
      // the last name ends at the first zero byte or with the block
      let stop = start;
      while (stop < blockLimit && this.bytes[blockStart + stop] !== 0) stop++;
      end = stop;
    }
    this.nameStart = blockStart + start;
    this.nameEnd = blockStart + end;
    if (
      start < dirent6.size * blockCount ||
      end > blockLimit ||
      end <= start ||
      end - start > MAX_STORED_NAME
    ) {
      throw new FormatError(
        { struct: 'dirent6', field: 'nameoff', offset: entry },
        `the name is at ${start} to ${end}, the block has ${blockLimit} bytes and names have 1 to ${MAX_STORED_NAME}`,
      );
    }
  }

  private direntNid(j: number): number {
    const entry = this.blockStart + dirent6.size * j;
    const nid = dirent6.field.nid(this.view, entry);
    if (!(nid > 0 && nid < this.maxNid)) {
      throw new FormatError(
        { struct: 'dirent6', field: 'nid', offset: entry },
        `is ${nid}, the last slot of the file is ${this.maxNid - 1}`,
      );
    }
    return nid;
  }

  private badName(problem: string): FormatError {
    return new FormatError({ struct: 'dirent6', field: 'name', offset: this.nameStart }, problem);
  }

  private wrong(name: string, problem: string, errno = 'EINVAL'): FormatError {
    return new FormatError({ struct: 'inode6', field: name, offset: this.at }, problem, { errno });
  }

  /** Bytes of flat inline data that are in blocks of their own: all but the last, possibly full, block. */
  private wholeBlocks(): number {
    return (Math.ceil(this.size / this.blockSize) - 1) * this.blockSize;
  }

  private loadDir(nid: number): void {
    this.load(nid);
    if ((this.mode & S_IFMT) !== S_IFDIR) {
      throw this.wrong('mode', `inode ${nid} is no directory: 0${this.mode.toString(8)}`, 'ENOTDIR');
    }
  }

  private loadFile(nid: number): void {
    this.load(nid);
    if ((this.mode & S_IFMT) !== S_IFREG) {
      throw this.wrong('mode', `inode ${nid} is no regular file: 0${this.mode.toString(8)}`);
    }
  }

  /** Load an inode and check all that needs no other inode (rafs-metadata 4.19). */
  private load(nid: number): void {
    const at = this.inodeOffset(nid);
    const { view, bytes } = this;
    this.at = at;
    const format = ext.format(view, at);
    const layout = (format >>> 1) & 7;
    const extended = (format & 1) === 1;
    const head = at + (extended ? inodeExtended6.size : inodeCompact6.size);
    if (
      format > 0xf ||
      (layout !== InodeLayout6.flatPlain &&
        layout !== InodeLayout6.flatInline &&
        layout !== InodeLayout6.chunkBased)
    ) {
      throw this.wrong('format', `is 0x${format.toString(16)}, unknown layout`);
    }
    if (head > bytes.length)
      throw this.wrong('format', `the header ends at byte ${head}, the file at ${bytes.length}`);
    const icount = ext.xattrIcount(view, at);
    const bodyEnd = icount === 0 ? head : head + xattrHeader6.size + 4 * (icount - 1);
    if (bodyEnd > bytes.length)
      throw this.wrong('xattrIcount', `the xattrs end at byte ${bodyEnd}, the file at ${bytes.length}`);
    const mode = ext.mode(view, at);
    const type = mode & S_IFMT;
    this.extended = extended;
    this.layout = layout;
    this.mode = mode;
    this.size = extended ? ext.size(view, at) : compact.size(view, at);
    this.blkaddr = ext.u(view, at);
    this.bodyEnd = bodyEnd;
    this.chunks = 0;
    if (fileTypeOf(mode) === FileType6.unknown)
      throw this.wrong('mode', `0${mode.toString(8)} has no known file type`);
    if ((extended ? ext.nlink(view, at) : compact.nlink(view, at)) === 0) throw this.wrong('nlink', 'is 0');
    if (type === S_IFREG) this.checkFile();
    else if (type === S_IFDIR || type === S_IFLNK) this.checkFlat(type);
  }

  private checkFile(): void {
    if (this.layout !== InodeLayout6.chunkBased)
      throw this.wrong('format', `a regular file has layout ${this.layout}, expected 4`);
    this.chunks = Math.ceil(this.size / this.super.chunkSize);
    const end = this.at + alignUp(this.bodyEnd - this.at, 8) + chunkIndex6.size * this.chunks;
    if (end > this.bytes.length) {
      throw this.wrong(
        'size',
        `${this.chunks} chunk indexes end at byte ${end}, the file at ${this.bytes.length}`,
      );
    }
  }

  private checkFlat(type: number): void {
    const { size } = this;
    if (size === 0) throw this.wrong('size', 'is 0');
    if (type === S_IFLNK && size > MAX_SYMLINK_V6)
      throw this.wrong('size', `is ${size}, a target has at most ${MAX_SYMLINK_V6} bytes`);
    if (this.layout === InodeLayout6.chunkBased) throw this.wrong('format', 'layout 4 is for regular files');
    const inline = this.layout === InodeLayout6.flatInline;
    const whole = inline ? this.wholeBlocks() : size;
    const blocksEnd = this.blkaddr * this.blockSize + whole;
    if (whole > 0 && blocksEnd > this.bytes.length) {
      throw this.wrong('u', `the data ends at byte ${blocksEnd}, the file at ${this.bytes.length}`);
    }
    if (inline && this.bodyEnd + size - whole > this.bytes.length) {
      throw this.wrong(
        'size',
        `the tail ends at byte ${this.bodyEnd + size - whole}, the file at ${this.bytes.length}`,
      );
    }
  }
}

/**
 * Open a v6 bootstrap that is in memory or mapped.
 *
 * @param options.dictionary a chunk dictionary: sizes of compression information are not compared with chunk counts
 * @throws FormatError `invalid RAFS superblock: ...` or a broken blob table
 */
export function openRafs6(bytes: Uint8Array, options: { dictionary?: boolean } = {}): Rafs6Image {
  return new Rafs6Image(bytes, options);
}
