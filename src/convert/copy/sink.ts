// Where copied parts go: a registry, into which they stream, or a layout on disk.
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { formatReference, type Reference } from '../../registry/reference.ts';
import { Repository } from '../../registry/repository.ts';
import type { RegistryTransport } from '../../registry/transport.ts';
import { hexOf, isIndexType, isManifestType, type Descriptor } from '../oci.ts';
import type { ImageTarget } from '../target.ts';

/** How a part got to its place. */
export type CopyEnd = 'exists' | 'mounted' | 'copied';

/** Opens the bytes of a part from the start, as often as it is asked; they are verified. */
export type OpenPart = () => AsyncIterable<Uint8Array>;

export interface CopySink {
  readonly name: string;
  /** parts must come one after the other */
  readonly ordered: boolean;
  putBlob(descriptor: Descriptor, open: OpenPart, signal: AbortSignal): Promise<CopyEnd>;
  putDocument(bytes: Uint8Array, descriptor: Descriptor, signal: AbortSignal): Promise<void>;
  finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export interface RegistrySinkOptions {
  reference: Reference;
  /** the sink owns it and closes it */
  transport: RegistryTransport;
  /** repositories of the same registry that have the blobs */
  mountFrom: readonly string[];
  /** bytes of one request for blobs that are larger; 0 = every blob in one */
  chunkSize: number;
}

class RegistrySink implements CopySink {
  readonly name: string;
  readonly ordered = false;
  readonly #options: RegistrySinkOptions;
  readonly #repository: Repository;

  constructor(options: RegistrySinkOptions) {
    this.#options = options;
    this.name = formatReference(options.reference);
    this.#repository = new Repository(options.transport, options.reference.repository);
  }

  async putBlob({ digest, size }: Descriptor, open: OpenPart, signal: AbortSignal): Promise<CopyEnd> {
    const { mountFrom, chunkSize } = this.#options;
    const chunked = chunkSize > 0 && size > chunkSize;
    const end = await this.#repository.pushBlob(
      { digest, size, open },
      { mountFrom, signal, ...(chunked ? { chunkSize } : {}) },
    );
    return end === 'uploaded' ? 'copied' : end;
  }

  async putDocument(bytes: Uint8Array, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    const { mediaType } = descriptor;
    if (isManifestType(mediaType) || isIndexType(mediaType))
      await this.#repository.putManifest(mediaType, bytes, undefined, signal);
    else await this.#repository.pushBytes(bytes, { signal });
  }

  async finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void> {
    await this.#repository.putManifest(root.mediaType, bytes, this.#options.reference.tag, signal);
  }

  async close(): Promise<void> {
    await this.#options.transport.close();
  }
}

/** The image that a reference names, in its registry. */
export function registrySink(options: RegistrySinkOptions): CopySink {
  return new RegistrySink(options);
}

/** A layout or archive; blobs are written to its scratch directory first. */
export function targetSink(target: ImageTarget): CopySink {
  return {
    name: target.name,
    ordered: target.ordered,
    putBlob: async (descriptor, open, signal) => {
      const file = join(target.blobDir, `copy-${hexOf(descriptor.digest)}`);
      await pipeline(open(), createWriteStream(file, { highWaterMark: 1024 * 1024 }), { signal });
      await target.putFile(file, descriptor, signal);
      return 'copied';
    },
    putDocument: (bytes, descriptor, signal) => target.putDocument(bytes, descriptor, signal),
    finish: (bytes, root, signal) => target.finish(bytes, root, signal),
    close: () => target.close(),
  };
}
