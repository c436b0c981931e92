// `--merge-platform`: one index of the source images and their nydus images. The source images get an empty layer in
// front, so that containerd does not take the two for one. Source: nydus-image-and-nydusify.md 7.5.
import { gzipSync } from 'node:zlib';
import { Annotation, document, MediaType, type Descriptor } from './oci.ts';
import type { SelectedImage } from './select.ts';
import { sha256Of } from '../registry/verify.ts';

/** Two zero blocks: a tar without members. */
const EMPTY_TAR = Buffer.alloc(1024);
export const EMPTY_DIFF_ID = 'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef';
const EMPTY_HISTORY = { created_by: 'Nydus Converter', comment: 'Nydus Empty Layer' };

/** A source image as the index has it. */
export interface RewrittenSource {
  empty: { bytes: Buffer; descriptor: Descriptor };
  config: { bytes: Buffer; descriptor: Descriptor };
  manifest: { bytes: Buffer; descriptor: Descriptor };
}

/** The source image with an empty layer in front. @param oci media types of OCI whatever the source has */
export function rewriteSource(image: SelectedImage, oci: boolean): RewrittenSource {
  const asOci = oci || image.manifest.mediaType === MediaType.ociManifest;
  const bytes = gzipSync(EMPTY_TAR);
  const empty: Descriptor = {
    mediaType: asOci ? MediaType.ociLayerGzip : MediaType.dockerLayerGzip,
    digest: sha256Of(bytes),
    size: bytes.length,
    annotations: { [Annotation.emptyLayer]: 'true' },
  };
  const { rootfs, history } = image.config;
  const config = document(
    {
      ...image.config,
      rootfs: { ...rootfs, diff_ids: [EMPTY_DIFF_ID, ...rootfs.diff_ids] },
      history: [EMPTY_HISTORY, ...(history ?? [])],
    },
    image.manifest.config.mediaType,
  );
  const { mediaType } = image.manifest;
  const annotations = { [Annotation.sourceDigest]: image.descriptor.digest };
  const manifest = document(
    {
      schemaVersion: 2,
      mediaType,
      config: config.descriptor,
      layers: [empty, ...image.manifest.layers],
      annotations,
    },
    mediaType,
  );
  const platform = image.platform === undefined ? {} : { platform: image.platform };
  return {
    empty: { bytes, descriptor: empty },
    config,
    manifest: { bytes: manifest.bytes, descriptor: { ...manifest.descriptor, ...platform, annotations } },
  };
}

/** Entry of a nydus image in the index: told from the source image by its artifact type. */
export function nydusEntry(
  manifest: Descriptor,
  image: SelectedImage,
): Descriptor & { artifactType: string } {
  const { 'os.features': _, ...platform } = image.platform ?? { os: 'linux', architecture: 'amd64' };
  return {
    ...manifest,
    artifactType: MediaType.nydusArtifact,
    annotations: { [Annotation.sourceDigest]: image.descriptor.digest },
    platform: platform as NonNullable<Descriptor['platform']>,
  };
}
