// A target whose blobs go to a storage backend: only documents and the bootstrap reach the image.
// Source: nydus-image-and-nydusify.md 7.2, 9.1.
import { rm } from 'node:fs/promises';
import { UsageError } from '../../base/errors.ts';
import type { Reference } from '../../registry/reference.ts';
import { hexOf, MediaType, type Descriptor } from '../oci.ts';
import type { LayerInput } from '../source.ts';
import { copyAsFile, type BlobStreamTarget, type ImageTarget } from '../target.ts';
import type { BlobStore } from './blob-store.ts';

class BackendTarget implements ImageTarget {
  readonly name: string;
  readonly ordered: boolean;
  readonly blobDir: string;
  readonly keeps: boolean;
  readonly blobsElsewhere = true;
  readonly reference: Reference | undefined;
  readonly #image: ImageTarget;
  readonly #store: BlobStore;
  readonly #force: boolean;

  constructor(image: ImageTarget, store: BlobStore, force: boolean) {
    this.name = image.name;
    this.ordered = image.ordered;
    this.blobDir = image.blobDir;
    this.keeps = image.keeps;
    this.reference = image.reference;
    this.#image = image;
    this.#store = store;
    this.#force = force;
  }

  has(descriptor: Descriptor, signal: AbortSignal): Promise<boolean> {
    const { mediaType, digest, size } = descriptor;
    return mediaType === MediaType.nydusBlob
      ? this.#store.has(hexOf(digest), size, signal)
      : this.#image.has(descriptor, signal);
  }

  /** An object is named by its digest before its first byte is sent: blobs are built as files. */
  openBlob(): Promise<BlobStreamTarget | undefined> {
    return Promise.resolve(undefined);
  }

  async putFile(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    if (descriptor.mediaType !== MediaType.nydusBlob) return this.#image.putFile(file, descriptor, signal);
    if (this.#force || !(await this.has(descriptor, signal)))
      await this.#store.put(hexOf(descriptor.digest), file, descriptor.size, signal);
    await rm(file, { force: true });
  }

  copyBlob(
    descriptor: Descriptor,
    input: LayerInput,
    from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    return descriptor.mediaType === MediaType.nydusBlob
      ? copyAsFile(this, descriptor, input, signal)
      : this.#image.copyBlob(descriptor, input, from, signal);
  }

  read(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    if (descriptor.mediaType === MediaType.nydusBlob)
      throw new UsageError(`blobs of ${this.#store.name} are not read back`, { exitCode: 1 });
    return this.#image.read(descriptor, signal);
  }

  putDocument(bytes: Uint8Array, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    return this.#image.putDocument(bytes, descriptor, signal);
  }

  finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void> {
    return this.#image.finish(bytes, root, signal);
  }

  async close(): Promise<void> {
    await this.#store.close();
    await this.#image.close();
  }
}

/**
 * An image whose blobs go to a store. The target closes both.
 *
 * @param force put blobs also when they are there
 */
export function backendTarget(image: ImageTarget, store: BlobStore, force: boolean): ImageTarget {
  return new BackendTarget(image, store, force);
}
