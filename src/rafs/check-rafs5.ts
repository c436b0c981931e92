// The v5 part of a check: every record, its place in the tree, link counts, chunk lists and digests.
// Source: rafs-metadata.md 3.3, 3.9, 3.10, 3.13, 5.2.
import { toHex, viewOf } from '../base/bytes.ts';
import { digestOf } from '../codec/digest.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { BlobFeature, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../format/flags.ts';
import { compareRanges } from '../format/names.ts';
import { INODE5_SIZE, InodeFlag5, inode5, type Inode5 } from '../format/rafs5/layout.ts';
import type { Rafs5Image } from '../format/rafs5/reader.ts';
import { chunkProblem } from './check-chunks.ts';
import type { Findings } from './check.ts';
import { ByteBudget } from './walk.ts';

const DIGEST_SIZE = 32;
const NANOSECONDS = 1_000_000_000;

interface Entry extends Inode5 {
  index: number;
  offset: number;
  chunksOffset: number;
  path: Buffer;
}

interface Links {
  expected: number;
  found: number;
  path: string;
  directory: boolean;
}

/** Check the tree of a v5 image. */
export function checkTree5(image: Rafs5Image, findings: Findings): void {
  const links = new Map<number, Links>();
  const parents = new Uint32Array(image.entries + 1);
  const budget = new ByteBudget(image.bytes.length);
  // directories by index: the tree is walked without recursion, and depth is bounded because children come after parents
  const pending: { index: number; path: Buffer }[] = [{ index: 1, path: Buffer.from('/') }];
  parents[1] = 1;
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    const place = at.path.toString();
    const { index, path } = at;
    const entry = findings.try(place, () => readEntry(image, index, path));
    if (entry === undefined) continue;
    findings.report.entries++;
    findings.try(place, () => checkEntry(image, entry, findings, budget));
    countLinks(entry, links);
    if ((entry.mode & S_IFMT) !== S_IFDIR) continue;
    findings.try(place, () => checkChildNames(image, entry));
    for (let i = entry.childCount - 1; i >= 0; i--) {
      const child = entry.childIndex + i;
      if (parents[child] !== 0) {
        findings.add(place, `entry ${child} is a child of ${parents[child]} already`);
        break;
      }
      parents[child] = entry.index;
      pending.push({ index: child, path: childPath(image, child, entry.path) });
    }
  }
  for (let index = 1; index <= image.entries; index++) {
    if (parents[index] === 0) findings.add(`entry ${index}`, 'is in no directory');
  }
  checkLinks(image, links, findings);
  checkTables(image, findings);
}

function readEntry(image: Rafs5Image, index: number, path: Buffer): Entry {
  const { offset, chunksOffset } = image.entry(index);
  return { ...inode5.read(viewOf(image.bytes), offset), index, offset, chunksOffset, path };
}

/** Path of a child for messages: its name may be damaged, so it is only taken when its bytes are in the file. */
function childPath(image: Rafs5Image, index: number, parent: Buffer): Buffer {
  let name = Buffer.from(`<entry ${index}>`);
  try {
    const offset = image.recordOffset(index);
    const size = inode5.field.nameSize(viewOf(image.bytes), offset);
    const start = offset + INODE5_SIZE;
    if (size > 0 && start + size <= image.bytes.length)
      name = Buffer.from(image.bytes.subarray(start, start + size));
  } catch {
    // the same error is reported when the entry is read
  }
  return Buffer.concat([parent, Buffer.from(parent.length === 1 ? '' : '/'), name]);
}

function checkChildNames(image: Rafs5Image, dir: Entry): void {
  let previous: { start: number; end: number } | undefined;
  for (let i = 0; i < dir.childCount; i++) {
    const { offset } = image.entry(dir.childIndex + i);
    const start = offset + INODE5_SIZE;
    const end = start + inode5.field.nameSize(viewOf(image.bytes), offset);
    if (previous !== undefined && compareRanges(image.bytes, previous.start, previous.end, start, end) >= 0) {
      throw image.damage(
        'name',
        offset,
        `child ${dir.childIndex + i} of ${dir.index} is not above the one before`,
      );
    }
    previous = { start, end };
  }
}

function checkEntry(image: Rafs5Image, entry: Entry, findings: Findings, budget: ByteBudget): void {
  const place = entry.path.toString();
  const type = entry.mode & S_IFMT;
  budget.spend(image.entry(entry.index).end - entry.offset, entry.path);
  if (entry.mtimeNsec >= NANOSECONDS) findings.add(place, `mtimeNsec is ${entry.mtimeNsec}`);
  if (((entry.flags & InodeFlag5.symlink) !== 0) !== (type === S_IFLNK))
    findings.add(place, `flags 0x${entry.flags.toString(16)} do not fit mode 0${entry.mode.toString(8)}`);
  if (entry.ino !== entry.index) checkLink(image, entry, findings);
  // later links have the xattrs of the first
  if (entry.ino === entry.index) findings.report.xattrs += [...image.xattrs(entry.ino)].length;
  if (type === S_IFDIR) checkParents(image, entry, findings);
  if (type === S_IFREG) {
    if (entry.ino === entry.index) findings.report.chunks += entry.childCount;
    checkChunks(image, entry, findings);
  }
  if (type === S_IFLNK && entry.size !== entry.symlinkSize) {
    findings.add(place, `size is ${entry.size}, the target has ${entry.symlinkSize} bytes`);
  }
  const expected = inodeDigest(image, entry);
  if (!expected.equals(entry.digest)) {
    findings.add(place, `digest is ${toHex(entry.digest)}, its content has ${toHex(expected)}`);
  }
}

/** A second or later link refers back to a first one of the same kind. */
function checkLink(image: Rafs5Image, entry: Entry, findings: Findings): void {
  const first = readEntry(image, entry.ino, entry.path);
  if (first.ino !== entry.ino || (first.mode & S_IFMT) !== (entry.mode & S_IFMT)) {
    findings.add(entry.path.toString(), `is a link to entry ${entry.ino}, which is another kind of inode`);
  } else if (Buffer.compare(first.digest, entry.digest) !== 0) {
    findings.add(entry.path.toString(), `is a link to entry ${entry.ino}, which has another digest`);
  }
}

function checkParents(image: Rafs5Image, dir: Entry, findings: Findings): void {
  const view = viewOf(image.bytes);
  for (let i = 0; i < dir.childCount; i++) {
    const child = dir.childIndex + i;
    const parent = inode5.field.parent(view, image.recordOffset(child));
    if (parent !== dir.ino) findings.add(dir.path.toString(), `child ${child} names ${parent} as its parent`);
  }
}

function checkChunks(image: Rafs5Image, entry: Entry, findings: Findings): void {
  const view = viewOf(image.bytes);
  const counted = image.superblock.extendedBlobTableEntries > 0;
  const loose = (entry.flags & InodeFlag5.hasHole) !== 0 || image.blobs.some(isGenerated);
  let left = entry.size;
  for (let i = 0; i < entry.childCount; i++) {
    const record = chunkRecord.read(view, entry.chunksOffset + chunkRecord.size * i);
    const place = `${entry.path.toString()} chunk ${i}`;
    const problem = chunkProblem(image, record, counted);
    if (problem !== undefined) findings.add(place, problem);
    if (loose) continue;
    const offset = i * image.super.chunkSize;
    const size = Math.min(left, image.super.chunkSize);
    left -= size;
    if (record.fileOffset !== offset)
      findings.add(place, `its file offset is ${record.fileOffset}, expected ${offset}`);
    if (record.uncompressedSize !== size)
      findings.add(place, `it has ${record.uncompressedSize} bytes, expected ${size}`);
  }
}

function isGenerated(blob: { features: number }): boolean {
  return (blob.features & BlobFeature.isChunkdictGenerated) !== 0;
}

/** Digest of the content as rafs-metadata 3.9 has it; for a directory from the digests of its children. */
function inodeDigest(image: Rafs5Image, entry: Entry): Buffer {
  const view = viewOf(image.bytes);
  const type = entry.mode & S_IFMT;
  const digester = image.super.digester;
  if (type === S_IFLNK) {
    const start = entry.chunksOffset - linkTail(image, entry);
    return digestOf(digester, image.bytes.subarray(start, start + entry.symlinkSize));
  }
  if (type !== S_IFDIR && type !== S_IFREG) return digestOf(digester, new Uint8Array(0));
  const digests = Buffer.alloc(DIGEST_SIZE * entry.childCount);
  for (let i = 0; i < entry.childCount; i++) {
    const digest =
      type === S_IFDIR
        ? inode5.field.digest(view, image.entry(entry.childIndex + i).offset)
        : chunkRecord.field.digest(view, entry.chunksOffset + chunkRecord.size * i);
    digests.set(digest, DIGEST_SIZE * i);
  }
  return digestOf(digester, digests);
}

/** Bytes from the start of the target of a symlink to the end of its record. */
function linkTail(image: Rafs5Image, entry: Entry): number {
  const targetStart = entry.offset + INODE5_SIZE + 8 * Math.ceil(entry.nameSize / 8);
  return image.entry(entry.index).chunksOffset - targetStart;
}

function countLinks(entry: Entry, links: Map<number, Links>): void {
  const known = links.get(entry.ino);
  if (known === undefined) {
    links.set(entry.ino, {
      expected: entry.nlink,
      found: 1,
      path: entry.path.toString(),
      directory: (entry.mode & S_IFMT) === S_IFDIR,
    });
  } else known.found++;
  if ((entry.mode & S_IFMT) !== S_IFDIR || entry.index === 1) return;
  const parent = links.get(entry.parent);
  if (parent?.directory === true) parent.found++;
}

function checkLinks(image: Rafs5Image, links: Map<number, Links>, findings: Findings): void {
  findings.report.inodes = links.size;
  for (const { expected, found, path, directory } of links.values()) {
    // a directory has its name, its own `.` and the `..` of each child directory
    const count = directory ? found + 1 : found;
    if (count !== expected) findings.add(path, `nlink is ${expected}, it has ${count} links`);
  }
  const stated = image.superblock.inodesCount;
  // builders of 2022 and 2023 did not count the root
  if (stated !== links.size && stated !== links.size - 1) {
    findings.add('superblock', `inodesCount is ${stated}, the tree has ${links.size} inodes`);
  }
}

function checkTables(image: Rafs5Image, findings: Findings): void {
  for (const ino of image.prefetchInos()) findings.try('prefetch table', () => image.entry(ino));
}
