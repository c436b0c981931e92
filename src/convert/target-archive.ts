// One OCI-layout tar as target. Members are appended as they come; the file gets its name when it is complete.
// Source: OCI image-spec 1.1, image-layout.md; nydus-image-and-nydusify.md 9.1.
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { FormatError, UsageError, messageOf } from '../base/errors.ts';
import { writeParts } from '../build/blob-output.ts';
import { temporaryName } from '../build/temporary-file.ts';
import { hexOf, type Descriptor } from './oci.ts';
import { memberHeader, padding, TAR_END } from './tar-writer.ts';
import { indexWith, LAYOUT_MARK } from './target-layout.ts';
import type { ImageTarget } from './target.ts';

class ArchiveTarget implements ImageTarget {
  readonly name: string;
  readonly ordered = true;
  readonly blobDir: string;
  readonly #imageName: string;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #written = new Set<string>();
  /** appends wait for each other */
  #tail: Promise<unknown> = Promise.resolve();
  #finished = false;

  constructor(path: string, imageName: string, blobDir: string, file: FileHandle, temporary: string) {
    this.name = path;
    this.#imageName = imageName;
    this.blobDir = blobDir;
    this.#file = file;
    this.#temporary = temporary;
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
  }

  /** False when it is there already. */
  #isNew(descriptor: Descriptor): boolean {
    if (this.#written.has(descriptor.digest)) return false;
    this.#written.add(descriptor.digest);
    return true;
  }

  putFile(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    return this.#next(async () => {
      if (this.#isNew(descriptor)) {
        const { size } = await stat(file);
        const chunks = createReadStream(file, { highWaterMark: 1024 * 1024, signal });
        await this.#append(
          `blobs/sha256/${hexOf(descriptor.digest)}`,
          chunks as AsyncIterable<Uint8Array>,
          size,
        );
      }
      await rm(file);
    });
  }

  putDocument(bytes: Uint8Array, descriptor: Descriptor): Promise<void> {
    return this.#next(async () => {
      if (this.#isNew(descriptor))
        await this.#append(`blobs/sha256/${hexOf(descriptor.digest)}`, [bytes], bytes.length);
    });
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

/**
 * Open a tar file as target.
 *
 * @param blobDir where blobs are built before they are appended
 */
export async function archiveTarget(path: string, imageName: string, blobDir: string): Promise<ImageTarget> {
  const temporary = temporaryName(path);
  let file: FileHandle;
  try {
    file = await open(temporary, 'wx', 0o644);
  } catch (error) {
    throw new UsageError(`cannot write "${path}": ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
  await writeParts(file, [
    memberHeader({ name: 'blobs/', mode: 0o755, type: 'directory', size: 0 }),
    memberHeader({ name: 'blobs/sha256/', mode: 0o755, type: 'directory', size: 0 }),
  ]);
  return new ArchiveTarget(path, imageName, blobDir, file, temporary);
}
