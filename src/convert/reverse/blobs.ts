// The blobs of a nydus image on disk, each with the bootstrap it carries: what layers are made from again.
// Source: nydus-image-and-nydusify.md 7.2, 9.2.
import { createWriteStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { FormatError, UsageError } from '../../base/errors.ts';
import { openImage } from '../../format/detect.ts';
import { effectiveBlobId } from '../../rafs/blob-id.ts';
import { carriesBootstrap, loadInlineBootstrap } from '../../rafs/open-inline.ts';
import type { OpenedBootstrap } from '../../rafs/open.ts';
import { hexOf, type Descriptor } from '../oci.ts';
import type { ImageSource } from '../source.ts';

/** Blobs by digest, fetched once; the directory serves as a local backend. */
export class BlobFolder {
  readonly dir: string;
  readonly #source: ImageSource;
  readonly #signal: AbortSignal;
  readonly #fetched = new Map<string, Promise<void>>();

  private constructor(dir: string, source: ImageSource, signal: AbortSignal) {
    this.dir = dir;
    this.#source = source;
    this.#signal = signal;
  }

  static async create(dir: string, source: ImageSource, signal: AbortSignal): Promise<BlobFolder> {
    await mkdir(dir, { mode: 0o700 });
    return new BlobFolder(dir, source, signal);
  }

  pathOf({ digest }: Descriptor): string {
    return join(this.dir, hexOf(digest));
  }

  /** @throws IntegrityError the blob is not what its descriptor says */
  fetch(layer: Descriptor): Promise<void> {
    const known = this.#fetched.get(layer.digest);
    if (known !== undefined) return known;
    const file = createWriteStream(this.pathOf(layer), { flags: 'wx', highWaterMark: 1024 * 1024 });
    const work = pipeline(this.#source.layer(layer).open(this.#signal), file, { signal: this.#signal });
    this.#fetched.set(layer.digest, work);
    return work;
  }
}

/**
 * The image of one layer, from the bootstrap that its blob carries; undefined when it carries none.
 *
 * @throws FormatError it is damaged
 */
export async function openLayerImage(path: string): Promise<OpenedBootstrap | undefined> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const read = async (start: number, end: number): Promise<Buffer> => {
      const bytes = Buffer.alloc(end - start);
      for (let done = 0; done < bytes.length;) {
        const { bytesRead } = await file.read(bytes, done, bytes.length - done, start + done);
        if (bytesRead === 0)
          throw new FormatError({ struct: 'blob', offset: start + done }, `ends before byte ${end}`);
        done += bytesRead;
      }
      return bytes;
    };
    if (!(await carriesBootstrap(read, size))) return undefined;
    const image = openImage((await loadInlineBootstrap(read, size)).bytes);
    return { image, path, close: () => {} };
  } finally {
    await file.close();
  }
}

/** A blob that is a layer of the image. */
export interface BlobLayer {
  layer: Descriptor;
  image: OpenedBootstrap;
}

/**
 * Tell layers from blobs of a chunk dictionary, which layers refer to: those are data of others, and no layers.
 *
 * @throws UsageError exit 1  a layer does not carry its bootstrap
 */
export async function layersOf(blobs: readonly Descriptor[], folder: BlobFolder): Promise<BlobLayer[]> {
  const found: { layer: Descriptor; image: OpenedBootstrap | undefined }[] = [];
  const foreign = new Set<string>();
  for (const layer of blobs) {
    const image = await openLayerImage(folder.pathOf(layer));
    found.push({ layer, image });
    for (const blob of image?.image.blobs ?? []) {
      const id = effectiveBlobId(blob, image?.path);
      if (id !== hexOf(layer.digest)) foreign.add(id);
    }
  }
  return found
    .filter(({ layer }) => !foreign.has(hexOf(layer.digest)))
    .map(({ layer, image }) => {
      if (image !== undefined) return { layer, image };
      throw new UsageError(`layer ${layer.digest} does not carry its bootstrap`, {
        exitCode: 1,
        hint: 'it was made by an old converter; only images whose layers carry their metadata can be turned back',
      });
    });
}
