// An image as a tar: members in the order of the tree, data fetched ahead in groups that reach over small files.
// Source: nydus-image-and-nydusify.md 5.3.
import { FormatError } from '../base/errors.ts';
import { MAX_BLOB_UNCOMPRESSED, MIB } from '../base/limits.ts';
import {
  majorOf,
  minorOf,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from '../format/flags.ts';
import { newAttr, type ChunkRef, type InodeAttr, type RafsImage } from '../format/image.ts';
import { TarType } from '../format/tar/archive-header.ts';
import { encodeMember, TAR_END, tarPadding, type TarMember } from '../format/tar/member.ts';
import { LOWER_LINK_XATTR } from '../tree/lower-link.ts';
import type { BlobSet, PlainChunks } from './blob-set.ts';
import { planRead, type ReadPiece } from './read-plan.ts';
import { walkTree, type WalkEntry } from './walk.ts';

/** Bytes of the tar that are fetched together. */
const GROUP_BYTES = 4 * MIB;
/** Parts of a group: small files count, too. */
const GROUP_PARTS = 4096;
/** Groups on their way while one is written. */
const GROUPS_AHEAD = 2;
const ZEROS = new Uint8Array(64 * 1024);
const SLASH = Buffer.from('/');

/** Names of owners; '' where one is not known. */
export interface OwnerNames {
  user(uid: number): string;
  group(gid: number): string;
}

export interface UnpackOptions {
  image: RafsImage;
  /** undefined: the image has no data */
  blobs: BlobSet | undefined;
  names: OwnerNames;
  signal: AbortSignal;
}

type Part = Uint8Array | ReadPiece;

interface Group {
  parts: Part[];
  refs: ChunkRef[];
}

const TYPES: Readonly<Record<number, number>> = {
  [S_IFREG]: TarType.regular,
  [S_IFDIR]: TarType.directory,
  [S_IFLNK]: TarType.symlink,
  [S_IFCHR]: TarType.char,
  [S_IFBLK]: TarType.block,
  [S_IFIFO]: TarType.fifo,
};

function* xattrsOf(image: RafsImage, ino: number): Generator<[string, Uint8Array]> {
  for (const { name, value } of image.xattrs(ino)) yield [name.toString('latin1'), value];
}

/** Turns the entries of a walk into members. */
class Members {
  readonly #image: RafsImage;
  readonly #names: OwnerNames;
  /** first path of each inode that has several */
  readonly #first = new Map<number, Buffer>();

  constructor(image: RafsImage, names: OwnerNames) {
    this.#image = image;
    this.#names = names;
  }

  /** The link leads into a layer below. */
  #isLowerLink(ino: number): boolean {
    for (const { name } of this.#image.xattrs(ino))
      if (name.toString('latin1') === LOWER_LINK_XATTR) return true;
    return false;
  }

  /** The member of an entry, undefined for what a tar has no room for: the root and sockets. */
  of(entry: WalkEntry, attr: InodeAttr): TarMember | undefined {
    const kind = attr.mode & S_IFMT;
    if (entry.depth === 0 || kind === S_IFSOCK) return undefined;
    const type = TYPES[kind];
    if (type === undefined)
      throw new FormatError(
        { struct: 'inode', field: 'mode' },
        `0${attr.mode.toString(8)} of ${entry.path.toString()} has no known file type`,
      );
    const member: TarMember = {
      path: entry.path.subarray(SLASH.length),
      type,
      mode: attr.mode,
      uid: attr.uid,
      gid: attr.gid,
      userName: this.#names.user(attr.uid),
      groupName: this.#names.group(attr.gid),
      mtime: attr.mtime,
      size: 0,
      xattrs: xattrsOf(this.#image, entry.ino),
    };
    if (kind !== S_IFDIR && attr.nlink > 1) {
      const first = this.#first.get(entry.ino);
      // upstream names the target from the root
      if (first !== undefined) return { ...member, type: TarType.hardlink, link: first };
      this.#first.set(entry.ino, entry.path);
    }
    if (kind === S_IFLNK) {
      member.link = Buffer.from(this.#image.readlink(entry.ino));
      if (this.#isLowerLink(entry.ino)) return { ...member, type: TarType.hardlink, xattrs: [] };
    }
    if (kind === S_IFCHR || kind === S_IFBLK) {
      member.major = majorOf(attr.rdev);
      member.minor = minorOf(attr.rdev);
    }
    if (kind === S_IFREG) member.size = attr.size;
    return member;
  }
}

/** Everything between two pieces of a file, and behind the last, is zero. */
function* dataParts(image: RafsImage, ino: number, size: number): Generator<{ part: Part; size: number }> {
  for (let offset = 0; offset < size; offset += GROUP_BYTES) {
    const end = Math.min(size - offset, GROUP_BYTES);
    let at = 0;
    for (const piece of planRead(image, ino, size, offset, end)) {
      yield* zeros(piece.at - at);
      yield { part: piece, size: piece.size };
      at = piece.at + piece.size;
    }
    yield* zeros(end - at);
  }
  yield* zeros(tarPadding(size));
}

function* zeros(count: number): Generator<{ part: Part; size: number }> {
  for (let left = count; left > 0; left -= ZEROS.length) {
    const size = Math.min(left, ZEROS.length);
    yield { part: ZEROS.subarray(0, size), size };
  }
}

/** The parts of the whole tar. */
function* allParts(image: RafsImage, names: OwnerNames): Generator<{ part: Part; size: number }> {
  const members = new Members(image, names);
  const attr = newAttr();
  for (const entry of walkTree(image)) {
    image.attr(entry.ino, attr);
    const member = members.of(entry, attr);
    if (member === undefined) continue;
    if (member.size > MAX_BLOB_UNCOMPRESSED)
      throw new FormatError(
        { struct: 'inode', field: 'size' },
        `of ${entry.path.toString()} is ${member.size}, limit ${MAX_BLOB_UNCOMPRESSED}`,
      );
    const part = encodeMember(member);
    yield { part, size: part.length };
    if (member.size > 0) yield* dataParts(image, entry.ino, member.size);
  }
  yield { part: TAR_END, size: TAR_END.length };
}

function* groupsOf(parts: Iterable<{ part: Part; size: number }>): Generator<Group> {
  let group: Group = { parts: [], refs: [] };
  let bytes = 0;
  for (const { part, size } of parts) {
    group.parts.push(part);
    if (!(part instanceof Uint8Array)) group.refs.push(part.ref);
    bytes += size;
    if (bytes < GROUP_BYTES && group.parts.length < GROUP_PARTS) continue;
    yield group;
    group = { parts: [], refs: [] };
    bytes = 0;
  }
  yield group;
}

function bytesOf(part: Part, chunks: PlainChunks): Uint8Array {
  if (part instanceof Uint8Array) return part;
  const { ref, from, size } = part;
  const bytes = chunks
    .get(ref.blobIndex)
    ?.get(ref.chunkIndex)
    ?.subarray(from, from + size);
  if (bytes?.length !== size)
    throw new FormatError(
      { struct: 'chunk' },
      `${ref.chunkIndex} of blob ${ref.blobIndex} has ${bytes?.length ?? 0} bytes at ${from}, ${size} are wanted`,
    );
  return bytes;
}

async function load(group: Group, { blobs, signal }: UnpackOptions): Promise<Uint8Array[]> {
  const { parts, refs } = group;
  if (refs.length > 0 && blobs === undefined)
    throw new FormatError({ struct: 'chunk' }, 'an image without blobs names chunks');
  const chunks: PlainChunks = (await blobs?.fetch(refs, signal)) ?? new Map();
  return parts.map((part) => bytesOf(part, chunks));
}

/**
 * The tar of an image, part by part. Data is verified before it is given out.
 *
 * @throws FormatError EINVAL  the image is damaged
 * @throws IntegrityError EIO  a chunk failed its digest
 * @throws BackendError EIO    a chunk could not be fetched
 */
export async function* unpackImage(options: UnpackOptions): AsyncGenerator<Uint8Array[]> {
  const { image, names, signal } = options;
  const queue: Promise<Uint8Array[]>[] = [];
  try {
    for (const group of groupsOf(allParts(image, names))) {
      signal.throwIfAborted();
      const loading = load(group, options);
      // its failure is told when its turn comes
      loading.catch(() => {});
      queue.push(loading);
      if (queue.length > GROUPS_AHEAD) yield (await queue.shift()) ?? [];
    }
    for (const loading of queue.splice(0)) yield await loading;
  } finally {
    await Promise.allSettled(queue);
  }
}
