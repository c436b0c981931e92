// The v6 part of a check: every inode, directory blocks, link counts, chunk addresses against the chunk table, and what
// the kernel driver would refuse. Source: rafs-metadata.md 4.9-4.14, 4.18, 4.19, 5.2.
import { viewOf } from '../base/bytes.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { BlobFeature, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, SuperFlag } from '../format/flags.ts';
import { isDot, isDotDot } from '../format/names.ts';
import { FileType6, InodeLayout6, inodeCompact6, inodeExtended6 } from '../format/rafs6/layout.ts';
import type { Rafs6Image } from '../format/rafs6/reader.ts';
import { MAX_TREE_DEPTH } from '../base/limits.ts';
import { chunkProblem } from './check-chunks.ts';
import type { Findings } from './check.ts';
import { newAttr, newChunkRef } from '../format/image.ts';
import { ByteBudget } from './walk.ts';

const NANOSECONDS = 1_000_000_000;

interface Directory {
  nid: number;
  parent: number;
  path: Buffer;
  depth: number;
}

interface Links {
  nlink: number;
  /** names in directories, not counting `.` and `..` */
  names: number;
  childDirs: number;
  /** inode number in tree order, shared by links that old builders gave slots of their own */
  order: number;
  isDir: boolean;
  path: string;
}

/** Check the tree of a v6 image. */
export function checkTree6(image: Rafs6Image, findings: Findings): void {
  new TreeCheck6(image, findings).run();
}

class TreeCheck6 {
  readonly #image: Rafs6Image;
  readonly #findings: Findings;
  readonly #view: DataView;
  readonly #budget: ByteBudget;
  readonly #links = new Map<number, Links>();
  readonly #attr = newAttr();
  readonly #ref = newChunkRef();
  readonly #tarfs: boolean;

  constructor(image: Rafs6Image, findings: Findings) {
    this.#image = image;
    this.#findings = findings;
    this.#view = viewOf(image.bytes);
    this.#budget = new ByteBudget(image.bytes.length);
    this.#tarfs = (image.super.flags & SuperFlag.tarfsMode) !== 0;
  }

  run(): void {
    const { rootIno } = this.#image;
    const pending: Directory[] = [{ nid: rootIno, parent: rootIno, path: Buffer.from('/'), depth: 0 }];
    this.#checkChunkTable();
    this.#findings.report.entries = 1;
    this.#meet(rootIno, Buffer.from('/'));
    for (let dir = pending.pop(); dir !== undefined; dir = pending.pop()) {
      const directory = dir;
      const children: Directory[] = [];
      this.#findings.try(directory.path.toString(), () => this.#directory(directory, children));
      for (let i = children.length - 1; i >= 0; i--) pending.push(children[i] as Directory);
    }
    this.#checkLinks();
    for (const nid of this.#image.prefetchInos()) {
      this.#findings.try('prefetch table', () => this.#image.inode(nid));
    }
  }

  #directory(dir: Directory, children: Directory[]): void {
    const place = dir.path.toString();
    const prefix = dir.path.length === 1 ? dir.path : Buffer.concat([dir.path, Buffer.from('/')]);
    let dot = false;
    let dotDot = false;
    this.#image.attr(dir.nid, this.#attr);
    this.#budget.spend(this.#attr.size, dir.path);
    if (dir.depth > MAX_TREE_DEPTH) {
      this.#findings.add(place, `is nested deeper than ${MAX_TREE_DEPTH}`);
      return;
    }
    this.#image.readdir(dir.nid, 0, (nid, name, fileType) => {
      const stored = this.#image.storedFileType;
      if (isDot(name, 0, name.length)) {
        dot = true;
        return true;
      }
      if (isDotDot(name, 0, name.length)) {
        dotDot = true;
        if (nid !== dir.parent) this.#findings.add(place, `.. points to ${nid}, its parent is ${dir.parent}`);
        return true;
      }
      const path = Buffer.concat([prefix, name]);
      this.#findings.report.entries++;
      if (stored !== fileType)
        this.#findings.add(path.toString(), `the entry has file type ${stored}, the inode ${fileType}`);
      const first = this.#meet(nid, path);
      if (fileType !== FileType6.directory) return true;
      if (!first) this.#findings.add(path.toString(), `directory ${nid} is reached twice`);
      else {
        const own = this.#links.get(dir.nid);
        if (own !== undefined) own.childDirs++;
        children.push({ nid, parent: dir.nid, path, depth: dir.depth + 1 });
      }
      return true;
    });
    if (!dot) this.#findings.add(place, 'has no entry .');
    if (!dotDot) this.#findings.add(place, 'has no entry ..');
  }

  /** Note a name of an inode; its content is checked at the first one. Returns whether it was the first. */
  #meet(nid: number, path: Buffer): boolean {
    const known = this.#links.get(nid);
    if (known !== undefined) {
      known.names++;
      return false;
    }
    const place = path.toString();
    this.#findings.try(place, () => {
      const image = this.#image;
      image.attr(nid, this.#attr);
      const { offset, extended } = image.inode(nid);
      const order = extended
        ? inodeExtended6.field.ino(this.#view, offset)
        : inodeCompact6.field.ino(this.#view, offset);
      const isDir = (this.#attr.mode & S_IFMT) === S_IFDIR;
      this.#links.set(nid, { nlink: this.#attr.nlink, names: 1, childDirs: 0, order, isDir, path: place });
    });
    this.#findings.try(place, () => this.#checkInode(nid, path));
    return true;
  }

  #checkInode(nid: number, path: Buffer): void {
    const image = this.#image;
    const place = path.toString();
    const inode = image.inode(nid);
    image.attr(nid, this.#attr);
    const { mode, size, mtimeNsec } = this.#attr;
    const type = mode & S_IFMT;
    const blockSize = image.super.blockSize;
    // the entries of a directory, inlined or not, are counted when they are read
    this.#budget.spend((type === S_IFDIR ? inode.bodyEnd : inode.end) - inode.offset, path);
    if (mtimeNsec >= NANOSECONDS) this.#findings.add(place, `mtimeNsec is ${mtimeNsec}`);
    if (inode.layout === InodeLayout6.flatInline && (type === S_IFDIR || type === S_IFLNK)) {
      const lastBlock = Math.floor((inode.end - 1) / blockSize);
      if (Math.floor(inode.bodyEnd / blockSize) !== lastBlock) {
        this.#findings.add(place, 'its inlined tail crosses a block boundary: the kernel refuses it');
      }
    }
    const xattrs = [...image.xattrs(nid)].length;
    this.#findings.report.xattrs += xattrs;
    if (xattrs > 0 && !image.super.hasXattr)
      this.#findings.add(place, 'has xattrs, the superblock says there are none');
    if (type === S_IFLNK && image.readlink(nid).includes(0))
      this.#findings.add(place, 'its target holds a NUL');
    if (type === S_IFREG) this.#checkChunks(nid, size, place);
  }

  #checkChunks(nid: number, size: number, place: string): void {
    const image = this.#image;
    const count = image.chunkCount(nid);
    const ref = this.#ref;
    const hasTable = image.superblocks.extended.chunkTableSize > 0;
    this.#findings.report.chunks += count;
    if (size > 0 && image.blobs.length === 0)
      this.#findings.add(place, `has ${size} bytes, the image has no blobs`);
    for (let position = 0; position < count; position++) {
      const chunk = `${place} chunk ${position}`;
      if (this.#findings.try(chunk, () => image.chunk(nid, position, ref) ?? true) === undefined) continue;
      const blob = image.blobs[ref.blobIndex];
      const generated = blob !== undefined && (blob.features & BlobFeature.isChunkdictGenerated) !== 0;
      if (this.#tarfs || generated) continue;
      const record = image.chunkRecordOffset(ref.blobIndex, ref.chunkIndex);
      if (record === 0) {
        const reason = hasTable ? 'the chunk table has no record of it' : 'the image has no chunk table';
        this.#findings.add(chunk, `is chunk ${ref.chunkIndex} of blob ${ref.blobIndex}: ${reason}`);
        continue;
      }
      this.#compare(chunk, record);
    }
  }

  #compare(place: string, record: number): void {
    const ref = this.#ref;
    const offset = chunkRecord.field.uncompressedOffset(this.#view, record);
    const size = chunkRecord.field.uncompressedSize(this.#view, record);
    if (offset !== ref.uncompressedOffset) {
      this.#findings.add(
        place,
        `is at ${ref.uncompressedOffset} of blob ${ref.blobIndex}, its record says ${offset}`,
      );
    }
    if (size !== ref.uncompressedSize) {
      this.#findings.add(place, `covers ${ref.uncompressedSize} bytes of the file, its record has ${size}`);
    }
  }

  #checkChunkTable(): void {
    if (this.#tarfs) return;
    const { chunkTableOffset: start, chunkTableSize: size } = this.#image.superblocks.extended;
    for (let record = start; record < start + size; record += chunkRecord.size) {
      const place = `chunk table row ${(record - start) / chunkRecord.size}`;
      this.#findings.try(place, () => {
        const problem = chunkProblem(this.#image, chunkRecord.read(this.#view, record), true);
        if (problem !== undefined) this.#findings.add(place, problem);
      });
    }
  }

  #checkLinks(): void {
    const { inos } = this.#image.superblocks.erofs;
    this.#findings.report.inodes = this.#links.size;
    const { entries } = this.#findings.report;
    if (entries !== inos)
      this.#findings.add('superblock', `inos is ${inos}, the tree has ${entries} entries`);
    const byOrder = new Map<number, number>();
    for (const { order, names, isDir } of this.#links.values()) {
      if (!isDir) byOrder.set(order, (byOrder.get(order) ?? 0) + names);
    }
    for (const { nlink, names, childDirs, isDir, order, path } of this.#links.values()) {
      const count = isDir ? 2 + childDirs : names;
      // builders before v2.1 gave every link an inode of its own with the same number
      if (nlink !== count && (isDir || nlink !== byOrder.get(order))) {
        this.#findings.add(path, `nlink is ${nlink}, it has ${count} links`);
      }
    }
  }
}
