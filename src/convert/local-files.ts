// Files of an image on disk, by path: a directory, or the members of a tar archive, which are read in place.
import { createReadStream } from 'node:fs';
import { open, realpath, stat, type FileHandle } from 'node:fs/promises';
import { join, posix, sep } from 'node:path';
import { FormatError, messageOf, UsageError } from '../base/errors.ts';
import { MAX_TAR_LONG_NAME, MAX_TAR_PAX } from '../base/limits.ts';
import { parsePax, parseTarHeader, TAR_BLOCK, TarType } from '../format/tar/archive-header.ts';

/** Bytes of one read of a layer. */
const READ_SIZE = 1024 * 1024;
/** Members of an archive that are remembered: an image has a few per layer. */
const MAX_MEMBERS = 100_000;
/** Links followed from one name to the data. */
const MAX_LINKS = 16;

/** A range of a file on disk; `whole` when nothing else is in that file. */
export interface FileRange {
  file: string;
  start: number;
  /** exclusive */
  end: number;
  whole: boolean;
}

export interface LocalFiles {
  /** for messages */
  readonly name: string;
  /** where a file is; undefined when there is none of that path */
  find(path: string): Promise<FileRange | undefined>;
}

/** Stream a range. */
export function readRange(range: FileRange, signal: AbortSignal): AsyncIterable<Uint8Array> {
  if (range.start === range.end) return (async function* () {})();
  return createReadStream(range.file, {
    start: range.start,
    end: range.end - 1,
    highWaterMark: READ_SIZE,
    signal,
  }) as AsyncIterable<Uint8Array>;
}

/** A small file as a whole. @throws FormatError it is missing or larger than `limit` */
export async function readSmall(files: LocalFiles, path: string, limit: number): Promise<Buffer> {
  const range = await files.find(path);
  if (range === undefined) throw new FormatError({ struct: files.name }, `${path} is missing`);
  const size = range.end - range.start;
  if (size > limit)
    throw new FormatError({ struct: files.name }, `${path} has ${size} bytes, limit ${limit}`);
  const file = await open(range.file, 'r');
  try {
    return await readExactly(file, range.start, size, files.name);
  } finally {
    await file.close();
  }
}

async function readExactly(file: FileHandle, start: number, size: number, name: string): Promise<Buffer> {
  const bytes = Buffer.alloc(size);
  for (let filled = 0; filled < size;) {
    const { bytesRead } = await file.read(bytes, filled, size - filled, start + filled);
    if (bytesRead === 0)
      throw new FormatError({ struct: name, offset: start + filled }, `ends ${size - filled} bytes early`);
    filled += bytesRead;
  }
  return bytes;
}

/** Files below a directory; links that lead out of it are refused. */
class DirectoryFiles implements LocalFiles {
  readonly name: string;
  readonly #root: string;

  constructor(name: string, root: string) {
    this.name = name;
    this.#root = root;
  }

  async find(path: string): Promise<FileRange | undefined> {
    let file: string;
    try {
      file = await realpath(join(this.#root, path));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
    if (!file.startsWith(this.#root === sep ? sep : this.#root + sep))
      throw new FormatError({ struct: this.name }, `${path} leads out of the directory, to ${file}`);
    const { size } = await stat(file);
    return { file, start: 0, end: size, whole: true };
  }
}

type Member = { start: number; size: number } | { link: string };

/** Members of a tar archive: only headers are read, data is skipped. */
class ArchiveFiles implements LocalFiles {
  readonly name: string;
  readonly #members: ReadonlyMap<string, Member>;

  constructor(name: string, members: ReadonlyMap<string, Member>) {
    this.name = name;
    this.#members = members;
  }

  find(path: string): Promise<FileRange | undefined> {
    let member = this.#members.get(posix.normalize(path));
    for (let links = 0; member !== undefined && 'link' in member; links++) {
      if (links === MAX_LINKS)
        throw new FormatError({ struct: this.name }, `${path}: more than ${MAX_LINKS} links`);
      member = this.#members.get(member.link);
    }
    if (member === undefined) return Promise.resolve(undefined);
    return Promise.resolve({
      file: this.name,
      start: member.start,
      end: member.start + member.size,
      whole: false,
    });
  }
}

/** One way to write a member's name: `./a//b` is `a/b`. */
function memberName(name: Buffer | string): string {
  return posix
    .normalize(name.toString())
    .replace(/^(\.?\/)+/, '')
    .replace(/\/$/, '');
}

async function indexArchive(file: FileHandle, name: string): Promise<Map<string, Member>> {
  const { size: end } = await file.stat();
  const members = new Map<string, Member>();
  let longName: Buffer | undefined;
  let longLink: Buffer | undefined;
  let paxSize: number | undefined;
  for (let at = 0; at + TAR_BLOCK <= end;) {
    const block = await readExactly(file, at, TAR_BLOCK, name);
    const header = at;
    at += TAR_BLOCK;
    if (block.every((byte) => byte === 0)) continue;
    const { type, name: path, link, size: headerSize } = parseTarHeader(block, header);
    const extension =
      type === TarType.paxLocal || type === TarType.gnuLongName || type === TarType.gnuLongLink;
    const size = extension ? headerSize : (paxSize ?? headerSize);
    if (at + size > end)
      throw new FormatError(
        { struct: name, offset: header },
        `member of ${size} bytes, ${end - at} are left`,
      );
    if (extension) {
      const limit = type === TarType.paxLocal ? MAX_TAR_PAX : MAX_TAR_LONG_NAME;
      if (size > limit)
        throw new FormatError(
          { struct: name, offset: header },
          `extension header of ${size} bytes, limit ${limit}`,
        );
      const body = await readExactly(file, at, size, name);
      if (type === TarType.paxLocal) {
        for (const { key, value } of parsePax(body, at)) {
          if (key === 'path') longName = Buffer.from(value);
          else if (key === 'linkpath') longLink = Buffer.from(value);
          else if (key === 'size') paxSize = Number(value.toString('latin1'));
        }
        if (paxSize !== undefined && !(Number.isSafeInteger(paxSize) && paxSize >= 0))
          throw new FormatError({ struct: name, offset: at }, 'pax size is no number');
      } else {
        const zero = body.indexOf(0);
        const text = Buffer.from(zero < 0 ? body : body.subarray(0, zero));
        if (type === TarType.gnuLongName) longName = text;
        else longLink = text;
      }
    } else {
      if (members.size >= MAX_MEMBERS)
        throw new FormatError({ struct: name }, `more than ${MAX_MEMBERS} members`);
      const key = memberName(longName ?? path);
      const target = (longLink ?? link).toString();
      if (type === TarType.symlink)
        members.set(key, { link: memberName(posix.join(posix.dirname(key), target)) });
      else if (type === TarType.hardlink) members.set(key, { link: memberName(target) });
      else if (type === TarType.regular || type === TarType.regularOld) members.set(key, { start: at, size });
      longName = undefined;
      longLink = undefined;
      paxSize = undefined;
    }
    at += Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
  }
  if (members.size === 0) throw new FormatError({ struct: name }, `${end} bytes without a file in them`);
  return members;
}

/**
 * Open a directory or a plain tar archive.
 *
 * @throws UsageError  `source archive not accessible: PATH`, or a compressed archive
 * @throws FormatError it is no tar archive
 */
export async function openLocalFiles(path: string): Promise<LocalFiles> {
  let root: string;
  let isDirectory: boolean;
  try {
    root = await realpath(path);
    isDirectory = (await stat(root)).isDirectory();
  } catch (error) {
    throw new UsageError(`source archive not accessible: ${path}`, { exitCode: 1, cause: error });
  }
  if (isDirectory) return new DirectoryFiles(path, root);
  const file = await open(root, 'r');
  try {
    const head = Buffer.alloc(4);
    await file.read(head, 0, 4, 0);
    const compressed = (head[0] === 0x1f && head[1] === 0x8b) || head.readUInt32LE(0) === 0xfd2f_b528;
    if (compressed)
      throw new UsageError(`source archive ${path} is compressed, its layers cannot be read in place`, {
        exitCode: 1,
        hint: 'decompress it first, with gunzip or zstd -d',
      });
    return new ArchiveFiles(root, await indexArchive(file, path));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw error instanceof FormatError
      ? new FormatError({ struct: path }, `is no image archive: ${messageOf(error)}`, { cause: error })
      : error;
  } finally {
    await file.close();
  }
}
