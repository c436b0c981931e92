// Where a converted image goes: blobs, documents, and at last the name that makes them an image.
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Reference } from '../registry/reference.ts';
import { hexOf, type Descriptor } from './oci.ts';
import type { LayerInput } from './source.ts';

/** Takes one blob as it is made; its digest is known at the end. */
export interface BlobStreamTarget {
  /** the bytes are taken or copied when this resolves */
  write(parts: readonly Uint8Array[]): Promise<void>;
  /**
   * Everything was given: the blob is in the target when this resolves.
   *
   * @param known `sha256:<hex>` of it, when the stream was opened for bytes that the caller digests
   */
  finish(known?: string): Promise<{ digest: string; size: number }>;
  cancel(): Promise<void>;
}

/** Takes the parts of an image. Whatever was put is nothing to readers until `finish`. */
export interface ImageTarget {
  /** for messages */
  readonly name: string;
  /** parts must come in a fixed order, because the result shows in which they came */
  readonly ordered: boolean;
  /** directory in which blobs are built: from there `putFile` takes them over cheaply */
  readonly blobDir: string;
  /** what was put stays when the run fails: the next one finds it */
  readonly keeps: boolean;
  /** blobs are not part of the image: a storage backend has them */
  readonly blobsElsewhere: boolean;
  /** repository that blobs of this image may be mounted from */
  readonly reference?: Reference | undefined;
  /** Is a blob there already? */
  has(descriptor: Descriptor, signal: AbortSignal): Promise<boolean>;
  /**
   * Take a blob as it is made; undefined: build a file, and put that.
   *
   * @param digested the caller digests the bytes and says so at the end
   */
  openBlob(signal: AbortSignal, digested: boolean): Promise<BlobStreamTarget | undefined>;
  /** Take over a file: it is moved or removed. Files that are there already are not stored again. */
  putFile(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void>;
  /**
   * Put a blob that somebody else has.
   *
   * @param from repository that it may be mounted from
   */
  copyBlob(
    descriptor: Descriptor,
    input: LayerInput,
    from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void>;
  /** Bytes of a blob that was put. */
  read(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** A config, or a manifest that an index will name. */
  putDocument(bytes: Uint8Array, descriptor: Descriptor, signal: AbortSignal): Promise<void>;
  /** Publish a manifest or index under the target's name. */
  finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void>;
  /** Take back what this run put, unless the target keeps it; after `finish` only scratch space is removed. */
  close(): Promise<void>;
}

/** Put a blob into a target that takes files, unless it is there. */
export async function copyAsFile(
  target: ImageTarget,
  descriptor: Descriptor,
  input: LayerInput,
  signal: AbortSignal,
): Promise<void> {
  if (await target.has(descriptor, signal)) return;
  const file = join(target.blobDir, `copy-${hexOf(descriptor.digest)}`);
  await pipeline(input.open(signal), createWriteStream(file, { highWaterMark: 1024 * 1024 }), { signal });
  await target.putFile(file, descriptor, signal);
}
