// Where the bytes of a data blob go: a file, a FIFO, a directory, or nowhere. Strictly sequential; nothing that looks
// finished is left behind by a build that failed. Source: nydus-image-and-nydusify.md 2.4, blob-and-cache.md 3.6.
import { createHash, type Hash } from 'node:crypto';
import { constants, existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import { open, rename, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UsageError, messageOf } from '../base/errors.ts';
import { sweepAbandoned, temporaryName } from './temporary-file.ts';

/** What is done with bytes in order. */
export interface ByteTarget {
  write(parts: Uint8Array[]): Promise<void>;
  /** the build succeeded; `name` is the blob id, undefined when no blob is published */
  publish(name: string | undefined): Promise<void>;
  /** the build failed: remove what was written */
  discard(): Promise<void>;
}

/**
 * Bytes of one write call. A larger one makes the page cache ask for folios of several MiB, and where memory is
 * fragmented the kernel then compacts it first: 4 MiB writes went at 0.2 to 0.4 GB/s, these at 3 GB/s.
 */
const WRITE_SIZE = 512 * 1024;
/** Buffers of one write call; IOV_MAX is 1024. */
const WRITE_PARTS = 512;

/** Write all bytes of all parts, also where a write is short. */
export async function writeParts(file: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  let index = 0;
  /** bytes of `parts[index]` that are written */
  let done = 0;
  while (index < parts.length) {
    const batch: Uint8Array[] = [];
    let size = 0;
    for (
      let i = index, from = done;
      i < parts.length && size < WRITE_SIZE && batch.length < WRITE_PARTS;
      i++
    ) {
      const part = parts[i] as Uint8Array;
      const length = Math.min(part.length - from, WRITE_SIZE - size);
      if (length > 0) batch.push(length === part.length ? part : part.subarray(from, from + length));
      size += length;
      from = 0;
    }
    if (size === 0) return;
    const first = batch[0] as Uint8Array;
    const { bytesWritten } = batch.length === 1 ? await file.write(first) : await file.writev(batch);
    for (done += bytesWritten; index < parts.length; index++) {
      const { length } = parts[index] as Uint8Array;
      if (done < length) break;
      done -= length;
    }
  }
}

/** True for a path that is written in place: a FIFO, character device or socket cannot be replaced by a rename. */
export function isStreamPath(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && !stat.isFile();
}

/** The file behind a symlink, so that a rename replaces that one. */
function resolved(path: string): string {
  return existsSync(path) ? realpathSync(path) : path;
}

/** Opens a file to write; UsageError with the path when it cannot be. */
export async function openOutput(path: string, flags: number): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o644);
  } catch (error) {
    throw new UsageError(`cannot write "${path}": ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
}

/** A FIFO or device: opening waits for its reader. */
class StreamTarget implements ByteTarget {
  readonly #file: FileHandle;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  write(parts: Uint8Array[]): Promise<void> {
    return writeParts(this.#file, parts);
  }

  async publish(): Promise<void> {
    await this.#file.close();
  }

  async discard(): Promise<void> {
    await this.#file.close();
  }
}

/** A file that appears under its name when it is complete. */
class RenamedTarget implements ByteTarget {
  readonly #file: FileHandle;
  readonly #temporary: string;
  readonly #nameOf: (blobId: string | undefined) => string | undefined;

  constructor(
    file: FileHandle,
    temporary: string,
    nameOf: (blobId: string | undefined) => string | undefined,
  ) {
    this.#file = file;
    this.#temporary = temporary;
    this.#nameOf = nameOf;
  }

  write(parts: Uint8Array[]): Promise<void> {
    return writeParts(this.#file, parts);
  }

  async publish(blobId: string | undefined): Promise<void> {
    await this.#file.close();
    const name = this.#nameOf(blobId);
    if (name === undefined) rmSync(this.#temporary, { force: true });
    else await rename(this.#temporary, name);
  }

  async discard(): Promise<void> {
    await this.#file.close().catch(() => {});
    rmSync(this.#temporary, { force: true });
  }
}

const CREATE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** Output to one path (`--blob`): without chunks the file is there and empty. */
export async function fileTarget(path: string): Promise<ByteTarget> {
  if (isStreamPath(path)) return new StreamTarget(await openOutput(path, constants.O_WRONLY));
  const target = resolved(path);
  sweepAbandoned(dirname(target));
  const temporary = temporaryName(target);
  return new RenamedTarget(await openOutput(temporary, CREATE), temporary, () => target);
}

/** Output to a directory (`--blob-dir`), named by blob id; a blob that is there already is kept. */
export async function directoryTarget(directory: string): Promise<ByteTarget> {
  sweepAbandoned(directory);
  const temporary = temporaryName(join(directory, 'blob'));
  return new RenamedTarget(await openOutput(temporary, CREATE), temporary, (id) => {
    if (id === undefined) return undefined;
    const name = join(directory, id);
    return existsSync(name) ? undefined : name;
  });
}

/** Write a whole file that appears under its name when it is complete; a FIFO or device is written in place. */
export async function writeWholeFile(path: string, bytes: Uint8Array): Promise<void> {
  const target = await fileTarget(path);
  try {
    await target.write([bytes]);
  } catch (error) {
    await target.discard();
    throw error;
  }
  await target.publish(undefined);
}

/** The byte stream of a blob: position and running SHA-256 over what is written. */
export class BlobStream {
  readonly #target: ByteTarget | undefined;
  readonly #hash: Hash = createHash('sha256');
  /** over all bytes; from the first one on that the other hash leaves out */
  #whole: Hash | undefined;
  position = 0;

  /** @param target undefined: only position and hash are kept */
  constructor(target: ByteTarget | undefined) {
    this.#target = target;
  }

  /** Append parts. `hashed` false only for the chunk digest array (blob-and-cache 3.6). */
  async append(parts: Uint8Array[], hashed = true): Promise<void> {
    if (parts.length === 0) return;
    const writing = this.#target?.write(parts);
    if (!hashed) this.#whole ??= this.#hash.copy();
    for (const part of parts) {
      if (hashed) this.#hash.update(part);
      this.#whole?.update(part);
      this.position += part.length;
    }
    await writing;
  }

  /** SHA-256 of what was hashed so far; the stream goes on. */
  digest(): Buffer {
    return this.#hash.copy().digest();
  }

  /** SHA-256 of everything so far: the digest that a registry has of the blob. */
  wholeDigest(): Buffer {
    return (this.#whole ?? this.#hash).copy().digest();
  }
}
