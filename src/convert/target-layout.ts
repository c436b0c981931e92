// An OCI layout directory as target: blobs move in by rename, index.json is replaced last. Other images in the
// directory stay. Source: OCI image-spec 1.1, image-layout.md.
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FormatError, UsageError } from '../base/errors.ts';
import { writeWholeFile } from '../build/blob-output.ts';
import {
  Annotation,
  hexOf,
  MAX_DOCUMENT,
  MediaType,
  parseIndex,
  parseObject,
  type Descriptor,
} from './oci.ts';
import type { Reference } from '../registry/reference.ts';
import type { LayerInput } from './source.ts';
import { copyAsFile, type BlobStreamTarget, type ImageTarget } from './target.ts';
import { tagOf } from './wanted-name.ts';

const LAYOUT = '{"imageLayoutVersion":"1.0.0"}';

/** The entry of an image in index.json, named as skopeo and containerd name theirs. */
export function namedEntry(root: Descriptor, name: string): Descriptor {
  const tag = tagOf(name);
  return {
    ...root,
    annotations: {
      [Annotation.containerdImageName]: name,
      ...(tag === undefined ? {} : { [Annotation.ociRefName]: tag }),
    },
  };
}

/** index.json of a layout with one more image in place of one of the same name. */
export function indexWith(entries: readonly Descriptor[], root: Descriptor, name: string): Buffer {
  const others = entries.filter((entry) => entry.annotations?.[Annotation.containerdImageName] !== name);
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MediaType.ociIndex,
      manifests: [...others, namedEntry(root, name)],
    }),
  );
}

/** Content of the file that marks a layout. */
export const LAYOUT_MARK: Buffer = Buffer.from(LAYOUT);

class LayoutTarget implements ImageTarget {
  readonly name: string;
  readonly ordered = false;
  readonly keeps = false;
  readonly blobsElsewhere = false;
  readonly blobDir: string;
  readonly #root: string;
  readonly #imageName: string;
  readonly #madeDirectories: string[];
  readonly #added: string[] = [];
  #finished = false;

  constructor(root: string, imageName: string, scratch: string, madeDirectories: string[]) {
    this.name = root;
    this.#root = root;
    this.#imageName = imageName;
    this.blobDir = scratch;
    this.#madeDirectories = madeDirectories;
  }

  async has({ digest, size }: Descriptor): Promise<boolean> {
    const known = await stat(join(this.#root, 'blobs/sha256', hexOf(digest))).catch(() => undefined);
    // one of another size is what a crash of the machine left
    return known?.isFile() === true && known.size === size;
  }

  /** A blob is built in the layout's own file system, and moves in by rename. */
  openBlob(): Promise<BlobStreamTarget | undefined> {
    return Promise.resolve(undefined);
  }

  async #place(file: string, descriptor: Descriptor): Promise<void> {
    const path = join(this.#root, 'blobs/sha256', hexOf(descriptor.digest));
    if (await this.has(descriptor)) {
      await rm(file);
      return;
    }
    const handle = await open(file, 'r+');
    try {
      await handle.datasync();
    } finally {
      await handle.close();
    }
    this.#added.push(path);
    await rename(file, path);
  }

  putFile(file: string, descriptor: Descriptor): Promise<void> {
    return this.#place(file, descriptor);
  }

  copyBlob(
    descriptor: Descriptor,
    input: LayerInput,
    _from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    return copyAsFile(this, descriptor, input, signal);
  }

  read({ digest }: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    const path = join(this.#root, 'blobs/sha256', hexOf(digest));
    return createReadStream(path, { highWaterMark: 1024 * 1024, signal }) as AsyncIterable<Uint8Array>;
  }

  async putDocument(bytes: Uint8Array, descriptor: Descriptor): Promise<void> {
    const file = join(this.blobDir, `document-${hexOf(descriptor.digest)}`);
    await writeFile(file, bytes);
    await this.#place(file, descriptor);
  }

  async finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void> {
    await this.putDocument(bytes, root);
    const index = join(this.#root, 'index.json');
    const entries = existsSync(index) ? parseIndex(await readFile(index), MediaType.ociIndex).manifests : [];
    signal.throwIfAborted();
    if (!existsSync(join(this.#root, 'oci-layout')))
      await writeWholeFile(join(this.#root, 'oci-layout'), LAYOUT_MARK);
    await writeWholeFile(index, indexWith(entries, root, this.#imageName));
    this.#finished = true;
  }

  async close(): Promise<void> {
    await rm(this.blobDir, { recursive: true, force: true });
    if (this.#finished) return;
    for (const path of this.#added) await rm(path, { force: true });
    // only empty ones go: somebody else may have put something there meanwhile
    for (const path of this.#madeDirectories.toReversed()) await rmdir(path).catch(() => {});
  }
}

/** Make a directory and say whether it was missing. */
async function makeDirectory(path: string, made: string[]): Promise<void> {
  try {
    await mkdir(path);
    made.push(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/**
 * Open a directory as target; it is made when it is missing, its parent must be there.
 *
 * @param unique names the scratch folder: what is in it is from a run of the same name that was killed
 * @throws UsageError it holds something that is no OCI layout
 */
export async function layoutTarget(root: string, imageName: string, unique: string): Promise<ImageTarget> {
  const index = join(root, 'index.json');
  if (existsSync(index)) {
    const bytes = await readFile(index);
    if (bytes.length > MAX_DOCUMENT)
      throw new FormatError({ struct: index }, `has ${bytes.length} bytes, limit ${MAX_DOCUMENT}`);
    parseIndex(bytes, MediaType.ociIndex);
    const mark = await readFile(join(root, 'oci-layout')).catch(() => undefined);
    if (mark === undefined || typeof parseObject(mark, 'oci-layout')['imageLayoutVersion'] !== 'string')
      throw new UsageError(`${root} has an index.json but is no OCI layout`, { exitCode: 1 });
  }
  const made: string[] = [];
  await makeDirectory(root, made);
  await makeDirectory(join(root, 'blobs'), made);
  await makeDirectory(join(root, 'blobs/sha256'), made);
  const scratch = join(root, `.nydusify-${unique}`);
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { mode: 0o700 });
  return new LayoutTarget(root, imageName, scratch, made);
}
