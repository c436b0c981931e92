// An image in a registry. Layers stream into the build as they come; nothing of them is stored.
// Source: nydus-image-and-nydusify.md 8.1, 9.1.
import { FormatError } from '../base/errors.ts';
import { formatReference, type Reference } from '../registry/reference.ts';
import { Repository } from '../registry/repository.ts';
import type { RegistryTransport } from '../registry/transport.ts';
import { isIndexType, isManifestType, MAX_DOCUMENT, type Descriptor } from './oci.ts';
import { verifyBytes, type ImageSource, type LayerInput } from './source.ts';

class RegistrySource implements ImageSource {
  readonly name: string;
  readonly remote = true;
  readonly reference: Reference;
  readonly #transport: RegistryTransport;
  readonly #repository: Repository;

  constructor(reference: Reference, transport: RegistryTransport) {
    this.name = formatReference(reference);
    this.reference = reference;
    this.#transport = transport;
    this.#repository = new Repository(transport, reference.repository);
  }

  async resolve(signal: AbortSignal): Promise<{ descriptor: Descriptor; bytes: Uint8Array }> {
    const { digest: wanted, tag = 'latest' } = this.reference;
    const { mediaType, digest, bytes } = await this.#repository.manifest(wanted ?? tag, signal);
    return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
  }

  async document(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
    const { mediaType, digest, size } = descriptor;
    const what = `${this.name}: ${digest}`;
    if (size > MAX_DOCUMENT)
      throw new FormatError({ struct: what }, `has ${size} bytes, limit ${MAX_DOCUMENT}`);
    const bytes =
      isManifestType(mediaType) || isIndexType(mediaType)
        ? (await this.#repository.manifest(digest, signal)).bytes
        : await this.#collect(descriptor, signal);
    verifyBytes(bytes, descriptor, what);
    return bytes;
  }

  async #collect({ digest, size }: Descriptor, signal: AbortSignal): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    for await (const piece of this.#repository.blob(digest, size, signal)) pieces.push(piece);
    return Buffer.concat(pieces);
  }

  layer({ digest, size }: Descriptor): LayerInput {
    return {
      open: (signal) => this.#repository.blob(digest, size, signal),
    };
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }
}

/** The image that a reference names. The source owns the transport and closes it. */
export function registrySource(reference: Reference, transport: RegistryTransport): ImageSource {
  return new RegistrySource(reference, transport);
}
