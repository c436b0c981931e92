// How manifests list the blob of a layer. Source: nydus-image-and-nydusify.md 7.1, 7.2.
import { Annotation, MediaType, type Descriptor } from './oci.ts';

/** Descriptor of a layer's blob in a manifest. */
export function blobDescriptor(digest: string, size: number): Descriptor {
  return { mediaType: MediaType.nydusBlob, digest, size, annotations: { [Annotation.blob]: 'true' } };
}
