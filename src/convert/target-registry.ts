// A registry as target. What it has already is not sent; the manifest comes last, so that a tag never names parts that
// are missing. Source: nydus-image-and-nydusify.md 9.1.
import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { RegistryError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatReference, type Reference } from '../registry/reference.ts';
import { Repository } from '../registry/repository.ts';
import { backoff, pause } from '../registry/retry.ts';
import type { RegistryTransport } from '../registry/transport.ts';
import { isManifestType, type Descriptor } from './oci.ts';
import type { LayerInput } from './source.ts';
import type { BlobStreamTarget, ImageTarget } from './target.ts';
import { exhausted } from './exhausted.ts';

/** Longest wait between two uploads of one thing. */
const MAX_WAIT_MS = 60_000;

export interface RegistryTargetOptions {
  reference: Reference;
  /** the target owns it and closes it */
  transport: RegistryTransport;
  /** where blobs are built before they are pushed */
  blobDir: string;
  /** times that a failed upload is tried again */
  retries: number;
  /** wait before the first of them; it doubles */
  retryDelayMs: number;
  logger: Logger;
}

class RegistryTarget implements ImageTarget {
  readonly name: string;
  readonly ordered = false;
  readonly blobDir: string;
  readonly keeps = true;
  readonly blobsElsewhere = false;
  readonly reference: Reference;
  /** the target's tag is taken: then its blobs are likely the ones we make, and are asked for before they are sent */
  #taken: Promise<boolean> | undefined;
  readonly #options: RegistryTargetOptions;
  readonly #repository: Repository;

  constructor(options: RegistryTargetOptions) {
    this.name = formatReference(options.reference);
    this.reference = options.reference;
    this.blobDir = options.blobDir;
    this.#options = options;
    this.#repository = new Repository(options.transport, options.reference.repository);
  }

  async #push(what: string, signal: AbortSignal, work: () => Promise<unknown>): Promise<void> {
    const { retries, retryDelayMs, logger } = this.#options;
    for (let failed = 1; ; failed++) {
      try {
        await work();
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof RegistryError) || !error.retryable) throw error;
        if (failed > retries) throw exhausted(error);
        const wait = error.retryAfterMs ?? backoff(failed, retryDelayMs, MAX_WAIT_MS, Math.random());
        logger.warn(
          `push of ${what} failed: ${error.message}; retry ${failed} of ${retries} in ${Math.round(wait)} ms`,
        );
        await pause(wait, signal);
      }
    }
  }

  has({ digest }: Descriptor, signal: AbortSignal): Promise<boolean> {
    return this.#repository.hasBlob(digest, signal);
  }

  async #isTaken(signal: AbortSignal): Promise<boolean> {
    const { tag } = this.#options.reference;
    if (tag === undefined) return false;
    try {
      return (await this.#repository.findManifest(tag, signal)) !== undefined;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof RegistryError)) throw error;
      // who may only push cannot ask; the push will say what is wrong otherwise
      return false;
    }
  }

  async openBlob(signal: AbortSignal, digested: boolean): Promise<BlobStreamTarget | undefined> {
    this.#taken ??= this.#isTaken(signal);
    return (await this.#taken) ? undefined : this.#repository.openUpload({ signal, digested });
  }

  async putFile(file: string, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    const { digest, size } = descriptor;
    const open = (): AsyncIterable<Uint8Array> =>
      createReadStream(file, { highWaterMark: 256 * 1024, signal }) as AsyncIterable<Uint8Array>;
    await this.#push(digest, signal, () => this.#repository.pushBlob({ digest, size, open }, { signal }));
    await rm(file);
  }

  async copyBlob(
    { digest, size }: Descriptor,
    input: LayerInput,
    from: Reference | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const mountFrom = from?.host === this.#options.reference.host ? [from.repository] : [];
    await this.#push(digest, signal, () =>
      this.#repository.pushBlob({ digest, size, open: () => input.open(signal) }, { mountFrom, signal }),
    );
  }

  read({ digest, size }: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#repository.blob(digest, size, signal);
  }

  async putDocument(bytes: Uint8Array, descriptor: Descriptor, signal: AbortSignal): Promise<void> {
    const { mediaType, digest } = descriptor;
    await this.#push(digest, signal, () =>
      isManifestType(mediaType)
        ? this.#repository.putManifest(mediaType, bytes, undefined, signal)
        : this.#repository.pushBytes(bytes, { signal }),
    );
  }

  async finish(bytes: Uint8Array, root: Descriptor, signal: AbortSignal): Promise<void> {
    const { tag } = this.#options.reference;
    await this.#push(this.name, signal, () =>
      this.#repository.putManifest(root.mediaType, bytes, tag, signal),
    );
  }

  /** Blobs that were pushed stay: a registry collects what nothing names, and a second try finds them. */
  async close(): Promise<void> {
    await this.#options.transport.close();
  }
}

/** The image that a reference names, in its registry. */
export function registryTarget(options: RegistryTargetOptions): ImageTarget {
  return new RegistryTarget(options);
}
