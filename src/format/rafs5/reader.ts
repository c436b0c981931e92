// Reads a v5 bootstrap in place: an inode is a number, its record is looked at when it is asked for and checked then.
// Source of the bytes: a mapped file. Layout and rules: rafs-metadata.md section 3.
import { FormatError } from '../../base/errors.ts';
import { alignUp, viewOf } from '../../base/bytes.ts';
import { MAX_XATTR_VALUE_V5 } from '../../base/limits.ts';
import { chunkRecord } from '../chunk-record.ts';
import { buildChunkLocator, type ChunkLocator } from '../chunk-locator.ts';
import { BlobFeature, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../flags.ts';
import {
  MAX_STORED_NAME,
  compareName,
  compareRanges,
  fileTypeOf,
  hasForbiddenByte,
  isDot,
  isDotDot,
} from '../names.ts';
import { FileType6 } from '../rafs6/layout.ts';
import type { BlobInfo, ChunkRef, DirVisitor, InodeAttr, RafsImage, SuperInfo } from '../image.ts';
import { INODE5_SIZE, InodeFlag5, inode5, type Superblock5 } from './layout.ts';
import { readBlobs5, readSuperblock5, superInfo5 } from './tables.ts';

const field = inode5.field;
const chunkField = chunkRecord.field;
const DOT = Uint8Array.of(0x2e);
const DOTDOT = Uint8Array.of(0x2e, 0x2e);

/** How strict the reader is. */
export interface OpenOptions {
  /** a chunk dictionary: the number of chunks of a file need not follow from its size (rafs-metadata 6.5) */
  dictionary?: boolean;
}

/** A v5 image with the extras that checks, dumps and builders of upper layers want. */
export class Rafs5Image implements RafsImage {
  readonly super: SuperInfo;
  readonly blobs: readonly BlobInfo[];
  readonly rootIno = 1;
  readonly bytes: Uint8Array;
  readonly superblock: Superblock5;
  /** tree entries: records are numbered 1 to this */
  readonly entries: number;
  private readonly view: DataView;
  private readonly tableOffset: number;
  private readonly dictionary: boolean;
  private locator: ChunkLocator | undefined;

  // the record looked at last; plain fields so that looking at one allocates nothing
  private at = 0;
  private ino = 0;
  private mode = 0;
  private nameEnd = 0;
  private childCount = 0;
  private childIndex = 0;

  constructor(bytes: Uint8Array, options: OpenOptions = {}) {
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.superblock = readSuperblock5(this.view);
    this.super = superInfo5(this.superblock);
    this.blobs = readBlobs5(this.view, this.superblock, this.super);
    this.entries = this.superblock.inodeTableEntries;
    this.tableOffset = this.superblock.inodeTableOffset;
    // the file of a generated dictionary lists chunks, whatever its size says
    const generated = this.blobs.some(({ features }) => (features & BlobFeature.isChunkdictGenerated) !== 0);
    this.dictionary = options.dictionary === true || generated;
    this.load(1);
    if ((this.mode & S_IFMT) !== S_IFDIR)
      throw this.wrong('mode', `the root is no directory: 0${this.mode.toString(8)}`);
  }

  /**
   * Byte offset of the record of a tree entry.
   *
   * @param index 1 to `entries`; not the inode number for second and later hard links
   */
  recordOffset(index: number): number {
    if (!(index >= 1 && index <= this.entries)) {
      throw new FormatError(
        { struct: 'inodeTable5' },
        `no inode ${index}, the table has ${this.entries} entries`,
      );
    }
    const slot = this.tableOffset + 4 * (index - 1);
    const word = this.view.getUint32(slot, true);
    const at = word * 8;
    if (word <= 0x400 || word >= 0x2000_0000 || at + INODE5_SIZE > this.bytes.length) {
      throw new FormatError(
        { struct: 'inodeTable5', offset: slot },
        `entry ${index} points to byte ${at}, the file has ${this.bytes.length} bytes`,
      );
    }
    return at;
  }

  /**
   * Check the record of a tree entry as reading it would, and tell where it is.
   *
   * @param index 1 to `entries`
   * @throws FormatError the record breaks a rule that needs no other record
   */
  entry(index: number): { offset: number; chunksOffset: number; end: number } {
    this.load(index);
    const offset = this.at;
    const chunksOffset = this.chunksOffset();
    const chunks = (this.mode & S_IFMT) === S_IFREG ? this.childCount : 0;
    return { offset, chunksOffset, end: chunksOffset + chunkRecord.size * chunks };
  }

  /** A FormatError about a record that is somewhere else than where the reader looked last. */
  damage(name: string, offset: number, problem: string): FormatError {
    return new FormatError({ struct: 'inode5', field: name, offset }, problem);
  }

  lookup(dir: number, name: Uint8Array): number {
    this.loadDir(dir);
    if (isDot(name, 0, name.length)) return dir;
    if (isDotDot(name, 0, name.length)) return this.parentOf(dir);
    let low = this.childIndex;
    let high = low + this.childCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      // only the record that is found is checked as a whole: steps on the way need no more than its name
      const start = this.recordOffset(middle) + INODE5_SIZE;
      const end = start + field.nameSize(this.view, start - INODE5_SIZE);
      if (end > this.bytes.length) this.loadChild(middle, dir);
      const order = compareName(name, this.bytes, start, end);
      if (order === 0) {
        this.loadChild(middle, dir);
        return this.ino;
      }
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    return 0;
  }

  attr(ino: number, out: InodeAttr): void {
    this.loadInode(ino);
    const { view, at } = this;
    out.ino = ino;
    out.mode = this.mode;
    out.nlink = field.nlink(view, at);
    out.uid = field.uid(view, at);
    out.gid = field.gid(view, at);
    out.size = field.size(view, at);
    out.blocks = field.blocks(view, at);
    out.rdev = field.rdev(view, at);
    out.mtime = field.mtime(view, at);
    out.mtimeNsec = field.mtimeNsec(view, at);
  }

  readdir(dir: number, cookie: number, visit: DirVisitor): void {
    this.loadDir(dir);
    const first = this.childIndex;
    const end = first + this.childCount;
    if (cookie < 1 && !visit(dir, DOT, FileType6.directory, 1)) return;
    if (cookie < 2 && !visit(this.parentOf(dir), DOTDOT, FileType6.directory, 2)) return;
    const start = cookie > 2 ? first + cookie - 2 : first;
    let previous = 0;
    let previousEnd = 0;
    for (let index = start; index < end; index++) {
      this.loadChild(index, dir);
      const nameStart = this.at + INODE5_SIZE;
      const { nameEnd, ino } = this;
      if (previous !== 0 && compareRanges(this.bytes, previous, previousEnd, nameStart, nameEnd) >= 0) {
        throw this.wrong('name', 'names of a directory are not in ascending order');
      }
      previous = nameStart;
      previousEnd = nameEnd;
      const type = fileTypeOf(this.mode);
      // the loaded record may change during the call
      if (!visit(ino, this.bytes.subarray(nameStart, nameEnd), type, index - first + 3)) return;
    }
  }

  chunkCount(ino: number): number {
    this.loadFile(ino);
    return this.childCount;
  }

  chunk(ino: number, position: number, out: ChunkRef): void {
    this.loadFile(ino);
    if (!(position >= 0 && position < this.childCount)) {
      throw this.wrong(
        'childCount',
        `the file has ${this.childCount} chunks, chunk ${position} was asked for`,
      );
    }
    const hole = (field.flags(this.view, this.at) & InodeFlag5.hasHole) !== 0;
    const record = this.chunksOffset() + chunkRecord.size * position;
    this.readChunk(record, out);
    if (!hole && !this.dictionary && out.fileOffset !== position * this.super.chunkSize) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'fileOffset', offset: record },
        `is ${out.fileOffset}, chunk ${position} starts at ${position * this.super.chunkSize}`,
      );
    }
  }

  readlink(ino: number): Uint8Array {
    this.loadInode(ino);
    if ((this.mode & S_IFMT) !== S_IFLNK)
      throw this.wrong('mode', `inode ${ino} is no symlink: 0${this.mode.toString(8)}`);
    const start = this.at + INODE5_SIZE + alignUp(field.nameSize(this.view, this.at), 8);
    return this.bytes.subarray(start, start + field.symlinkSize(this.view, this.at));
  }

  *xattrs(ino: number): Iterable<{ name: Buffer; value: Uint8Array }> {
    this.loadInode(ino);
    const area = this.xattrArea();
    let at = area.start;
    while (at < area.end) {
      if (area.end - at < 4)
        throw new FormatError({ struct: 'xattr5', offset: at }, 'the table ends inside a length word');
      const size = this.view.getUint32(at, true);
      const start = at + 4;
      if (size > area.end - start) {
        throw new FormatError(
          { struct: 'xattr5', offset: at },
          `needs ${size} bytes, ${area.end - start} are left`,
        );
      }
      const nul = this.bytes.subarray(start, start + Math.min(size, MAX_STORED_NAME)).indexOf(0);
      if (nul <= 0)
        throw new FormatError({ struct: 'xattr5', offset: start }, 'its name is empty or does not end');
      if (size - nul - 1 > MAX_XATTR_VALUE_V5) {
        throw new FormatError(
          { struct: 'xattr5', offset: start },
          `its value has ${size - nul - 1} bytes, at most ${MAX_XATTR_VALUE_V5} are allowed`,
        );
      }
      const name = Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, nul);
      yield { name, value: this.bytes.subarray(start + nul + 1, start + size) };
      at = start + size;
    }
  }

  xattr(ino: number, name: Uint8Array): Uint8Array | undefined {
    for (const entry of this.xattrs(ino)) if (entry.name.equals(name)) return entry.value;
    return undefined;
  }

  parentOf(dir: number): number {
    this.loadDir(dir);
    if (dir === 1) return 1;
    const parent = field.parent(this.view, this.at);
    this.loadDir(parent);
    return parent;
  }

  prefetchInos(): number[] {
    const inos: number[] = [];
    for (let i = 0; i < this.superblock.prefetchTableEntries; i++) {
      const ino = this.view.getUint32(this.superblock.prefetchTableOffset + 4 * i, true);
      if (ino === 0) break;
      inos.push(ino);
    }
    return inos;
  }

  chunkRecordOffset(blobIndex: number, chunkIndex: number): number {
    this.locator ??= buildChunkLocator(this.blobs.length, (each) => this.walkChunks(each));
    return 8 * this.locator(blobIndex, chunkIndex);
  }

  /** Range of the xattr pairs of the loaded record, without the length word. */
  private xattrArea(): { start: number; end: number } {
    const { view, at } = this;
    if ((field.flags(view, at) & InodeFlag5.xattr) === 0) return { start: 0, end: 0 };
    const start = this.xattrOffset() + 8;
    return { start, end: start + view.getUint32(start - 8, true) };
  }

  private xattrOffset(): number {
    const { view, at } = this;
    return at + INODE5_SIZE + alignUp(field.nameSize(view, at), 8) + alignUp(field.symlinkSize(view, at), 8);
  }

  /** First byte after the xattr table of the loaded record; the table was checked by load. */
  private chunksOffset(): number {
    const { view, at } = this;
    const start = this.xattrOffset();
    if ((field.flags(view, at) & InodeFlag5.xattr) === 0) return start;
    return start + 8 + alignUp(view.getUint32(start, true), 8);
  }

  private readChunk(record: number, out: ChunkRef): void {
    const { view } = this;
    const blobIndex = chunkField.blobIndex(view, record);
    const size = chunkField.uncompressedSize(view, record);
    const blob = this.blobs[blobIndex];
    if (blob === undefined) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'blobIndex', offset: record },
        `is ${blobIndex}, the blob table has ${this.blobs.length} rows`,
      );
    }
    if (size === 0 || size > this.super.chunkSize) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'uncompressedSize', offset: record },
        `is ${size}, expected 1 to ${this.super.chunkSize}`,
      );
    }
    const chunkIndex = chunkField.index(view, record);
    // without an extended table the count is unknown
    if (this.superblock.extendedBlobTableEntries > 0 && chunkIndex >= blob.chunkCount) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'index', offset: record },
        `is ${chunkIndex}, blob ${blobIndex} has ${blob.chunkCount} chunks`,
      );
    }
    out.blobIndex = blobIndex;
    out.chunkIndex = chunkIndex;
    out.uncompressedOffset = chunkField.uncompressedOffset(view, record);
    out.uncompressedSize = size;
    out.fileOffset = chunkField.fileOffset(view, record);
    out.recordOffset = record;
  }

  private walkChunks(each: (blobIndex: number, chunkIndex: number, place: number) => void): void {
    // records of a valid image do not overlap, so more chunks than fit into the file means a hostile one
    let left = Math.floor(this.bytes.length / chunkRecord.size);
    for (let index = 1; index <= this.entries; index++) {
      this.load(index);
      if ((this.mode & S_IFMT) !== S_IFREG || this.ino !== index) continue;
      const first = this.chunksOffset();
      left -= this.childCount;
      if (left < 0) throw this.wrong('childCount', 'the chunk lists of the image overlap');
      for (let i = 0; i < this.childCount; i++) {
        const record = first + chunkRecord.size * i;
        each(chunkField.blobIndex(this.view, record), chunkField.index(this.view, record), record / 8);
      }
    }
  }

  private wrong(name: string, problem: string, errno = 'EINVAL'): FormatError {
    return new FormatError({ struct: 'inode5', field: name, offset: this.at }, problem, { errno });
  }

  /** Load the record that answers for an inode number: that of the first link. */
  private loadInode(ino: number): void {
    this.load(ino);
    if (this.ino !== ino) throw this.wrong('ino', `is ${this.ino}, so ${ino} is no inode number`);
  }

  private loadDir(ino: number): void {
    this.loadInode(ino);
    if ((this.mode & S_IFMT) !== S_IFDIR) {
      throw this.wrong('mode', `inode ${ino} is no directory: 0${this.mode.toString(8)}`, 'ENOTDIR');
    }
  }

  private loadFile(ino: number): void {
    this.loadInode(ino);
    if ((this.mode & S_IFMT) !== S_IFREG) {
      throw this.wrong('mode', `inode ${ino} is no regular file: 0${this.mode.toString(8)}`);
    }
  }

  /** Load a tree entry found below `dir`. */
  private loadChild(index: number, dir: number): void {
    this.load(index);
    const parent = field.parent(this.view, this.at);
    if (parent !== dir) throw this.wrong('parent', `is ${parent}, but entry ${index} is a child of ${dir}`);
  }

  /** Load the record of a tree entry and check all that needs no other record (rafs-metadata 3.13). */
  private load(index: number): void {
    const at = this.recordOffset(index);
    const { view, bytes } = this;
    this.at = at;
    const ino = field.ino(view, at);
    const mode = field.mode(view, at);
    const nameSize = field.nameSize(view, at);
    const childCount = field.childCount(view, at);
    const childIndex = field.childIndex(view, at);
    const symlinkSize = field.symlinkSize(view, at);
    const nlink = field.nlink(view, at);
    const parent = field.parent(view, at);
    this.ino = ino;
    this.mode = mode;
    this.childCount = childCount;
    this.childIndex = childIndex;
    if (ino < 1 || ino > index) throw this.wrong('ino', `is ${ino}, entry ${index} may have 1 to ${index}`);
    if (nlink === 0) throw this.wrong('nlink', 'is 0');
    const type = mode & S_IFMT;
    if (fileTypeOf(mode) === FileType6.unknown)
      throw this.wrong('mode', `0${mode.toString(8)} has no known file type`);
    if (nameSize < 1 || nameSize > MAX_STORED_NAME)
      throw this.wrong('nameSize', `is ${nameSize}, expected 1 to ${MAX_STORED_NAME}`);
    const nameStart = at + INODE5_SIZE;
    const nameEnd = nameStart + nameSize;
    this.nameEnd = nameEnd;
    let end = nameStart + alignUp(nameSize, 8) + alignUp(symlinkSize, 8);
    if (end > bytes.length)
      throw this.wrong('nameSize', `the record ends at byte ${end}, the file at ${bytes.length}`);
    if (ino === 1) {
      if (index !== 1) throw this.wrong('ino', `entry ${index} claims to be the root`);
    } else {
      if (parent === 0 || (parent >= ino && (type === S_IFDIR || nlink === 1))) {
        throw this.wrong('parent', `is ${parent}, expected 1 to ${ino - 1}`);
      }
      // upstream writes `/chunkdict` as the name of the one file of a generated dictionary
      if (!this.dictionary && hasForbiddenByte(bytes, nameStart, nameEnd)) {
        throw this.wrong('name', 'holds a slash or a NUL');
      }
      if (isDot(bytes, nameStart, nameEnd) || isDotDot(bytes, nameStart, nameEnd)) {
        throw this.wrong('name', 'is . or ..');
      }
    }
    if ((field.flags(view, at) & InodeFlag5.xattr) !== 0) end = this.xattrEnd(end);
    if (type === S_IFDIR) {
      if (ino !== index)
        throw this.wrong('ino', `is ${ino}, but a directory has no hard links and this is entry ${index}`);
      if (childCount > 0 && (childIndex <= ino || childIndex + childCount - 1 > this.entries)) {
        throw this.wrong(
          'childIndex',
          `children ${childIndex} to ${childIndex + childCount - 1}, expected ${ino + 1} to ${this.entries}`,
        );
      }
    } else if (type === S_IFREG) {
      if (end + chunkRecord.size * childCount > bytes.length) {
        throw this.wrong(
          'childCount',
          `${childCount} chunks end past the end of the file, byte ${bytes.length}`,
        );
      }
      const size = field.size(view, at);
      const needed = Math.ceil(size / this.super.chunkSize);
      if (childCount !== needed && !this.dictionary && (field.flags(view, at) & InodeFlag5.hasHole) === 0) {
        throw this.wrong('childCount', `is ${childCount}, a file of ${size} bytes has ${needed} chunks`);
      }
    } else if (type === S_IFLNK && symlinkSize === 0) {
      throw this.wrong('symlinkSize', 'is 0');
    }
  }

  /** End of the xattr table that starts at `start`, checked against the file. */
  private xattrEnd(start: number): number {
    const { view, bytes } = this;
    if (start + 8 > bytes.length) throw this.wrong('flags', 'the xattr table is outside the file');
    const size = view.getUint32(start, true);
    const end = start + 8 + alignUp(size, 8);
    if (view.getUint32(start + 4, true) !== 0 || end > bytes.length) {
      throw new FormatError(
        { struct: 'xattr5', offset: start },
        `${size} bytes of xattrs end past the end of the file`,
      );
    }
    return end;
  }
}

/**
 * Open a v5 bootstrap that is in memory or mapped.
 *
 * @throws FormatError `invalid RAFS superblock: ...` or a broken blob table
 */
export function openRafs5(bytes: Uint8Array, options: OpenOptions = {}): Rafs5Image {
  return new Rafs5Image(bytes, options);
}
