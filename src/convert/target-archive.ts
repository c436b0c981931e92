// One OCI-layout tar as target. Members are appended as they come; the file gets its name when it is complete. A run
// that was killed leaves it beside the target, and the next one goes on behind the last whole member.
// Source: OCI image-spec 1.1, image-layout.md; nydus-image-and-nydusify.md 9.1.
import { constants, createReadStream } from 'node:fs';
import { open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FormatError, UsageError, messageOf } from '../base/errors.ts';
import { writeParts } from '../build/blob-output.ts';
import { hexOf, type Descriptor } from './oci.ts';
import { TAR_BLOCK } from '../format/tar/archive-header.ts';
import { memberHeader, padding, TAR_END } from './tar-writer.ts';
import { indexWith, LAYOUT_MARK } from './target-layout.ts';
import type { ConvertState } from './state.ts';
import type { Reference } from '../registry/reference.ts';
import { readRange } from './local-files.ts';
import type { LayerInput } from './source.ts';
import { copyAsFile, type BlobStreamTarget, type ImageTarget } from './target.ts';

class ArchiveTarget implements ImageTarget {
  readonly name: string;
  readonly ordered = true;
  readonly keeps = false;
  readonly blobsElsewhere = false;
  readonly blobDir: string;
  readonly #imageName: string;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #state: ConvertState;
  readonly #written: Set<string>;
  #end: number;
  /** appends wait for each other */
  #tail: Promise<unknown> = Promise.resolve();
  #finished = false;

  constructor(options: ArchiveTargetOptions, file: FileHandle, temporary: string, end: number) {
    this.name = options.path;
    this.#imageName = options.imageName;
    this.blobDir = options.blobDir;
    this.#state = options.state;
    this.#file = file;
    this.#temporary = temporary;
    this.#end = end;
    this.#written = new Set(options.state.members.map(({ digest }) => digest));
  }

  has({ digest }: Descriptor): Promise<boolean> {
    return Promise.resolve(this.#written.has(digest));
  }

  /** A member's size stands before its bytes: blobs are built as files. */
  openBlob(): Promise<BlobStreamTarget | undefined> {
    return Promise.resolve(undefined);
  }

  #next(work: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(work);
    this.#tail = done.catch(() => {});
    return done;
  }

  async #append(
    name: string,
    chunks: AsyncIterable<Uint8Array> | readonly Uint8Array[],
    size: number,
  ): Promise<void> {
    await writeParts(this.#file, [memberHeader({ name, mode: 0o644, type: 'file', size })]);
    let written = 0;
    for await (const chunk of chunks) {
      await writeParts(this.#file, [chunk]);
      written += chunk.length;
    }
    if (written !== size) throw new FormatError({ struct: name }, `has ${written} bytes, expected ${size}`);
    await writeParts(this.#file, [padding(size)]);
    this.#end += TAR_BLOCK + size + padding(size).length;
  }

  /** Append a blob, unless it is there. */
  async #appendBlob(
    { digest }: Descriptor,
    chunks: () => AsyncIterable<Uint8Array> | readonly Uint8Array[],
    size: number,
  ): Promise<void> {
    if (this.#written.has(digest)) return;
    await this.#append(`blobs/sha256/${hexOf(digest)}`, chunks(), size);
    this.#written.add(digest);
    this.#state.addMember(digest, this.#end);
  }

  putFile(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    return this.#next(async () => {
      const { size } = await stat(file);
      const chunks = (): AsyncIterable<Uint8Array> =>
        createReadStream(file, { highWaterMark: 1024 * 1024, signal }) as AsyncIterable<Uint8Array>;
      await this.#appendBlob(descriptor, chunks, size);
      await rm(file);
    });
  }

  copyBlob(
    descriptor: Descriptor,
    input: LayerInput,
    _from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    return copyAsFile(this, descriptor, input, signal);
  }

  read({ digest, size }: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const member = this.#state.members.find((known) => known.digest === digest);
    if (member === undefined) throw new FormatError({ struct: this.name }, `${digest} is missing`);
    const start = member.end - size - padding(size).length;
    return readRange({ file: this.#temporary, start, end: start + size, whole: false }, signal);
  }

  putDocument(bytes: Uint8Array, descriptor: Descriptor): Promise<void> {
    return this.#next(() => this.#appendBlob(descriptor, () => [bytes], bytes.length));
  }

  async finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void> {
    await this.putDocument(bytes, root);
    const index = indexWith([], root, this.#imageName);
    await this.#append('index.json', [index], index.length);
    await this.#append('oci-layout', [LAYOUT_MARK], LAYOUT_MARK.length);
    await writeParts(this.#file, [TAR_END]);
    await this.#file.datasync();
    signal.throwIfAborted();
    await rename(this.#temporary, this.name);
    this.#finished = true;
  }

  async close(): Promise<void> {
    await this.#tail;
    await this.#file.close();
    if (!this.#finished) await rm(this.#temporary, { force: true });
  }
}

export interface ArchiveTargetOptions {
  path: string;
  imageName: string;
  /** where blobs are built before they are appended */
  blobDir: string;
  state: ConvertState;
  /** names the unfinished file: one that is there is from a run of the same name that was killed */
  unique: string;
}

/** Open a tar file as target, or go on with one that was not finished. */
export async function archiveTarget(options: ArchiveTargetOptions): Promise<ImageTarget> {
  const { path, state, unique } = options;
  const temporary = join(dirname(path), `.${basename(path)}.nydusify-${unique}`);
  let file: FileHandle;
  try {
    file = await open(temporary, constants.O_RDWR | constants.O_CREAT, 0o644);
  } catch (error) {
    throw new UsageError(`cannot write "${path}": ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
  const { size } = await file.stat();
  const end = state.members.at(-1)?.end ?? 0;
  if (end > 0 && size >= end) {
    await file.truncate(end);
    return new ArchiveTarget(options, await atEnd(file, temporary), temporary, end);
  }
  state.members.length = 0;
  await file.truncate(0);
  const heads = ['blobs/', 'blobs/sha256/'].map((name) =>
    memberHeader({ name, mode: 0o755, type: 'directory', size: 0 }),
  );
  const appending = await atEnd(file, temporary);
  await writeParts(appending, heads);
  return new ArchiveTarget(options, appending, temporary, heads.length * TAR_BLOCK);
}

/** The same file, writing at its end. */
async function atEnd(file: FileHandle, path: string): Promise<FileHandle> {
  await file.close();
  return open(path, constants.O_WRONLY | constants.O_APPEND);
}
