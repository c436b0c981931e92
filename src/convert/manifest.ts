// Config, manifest and index of a converted image. Source: nydus-image-and-nydusify.md 7.2 to 7.5.
import { versionInfo } from '../base/version.ts';
import type { BootstrapLayer } from './bootstrap-layer.ts';
import {
  Annotation,
  document,
  isIndexType,
  MediaType,
  type Descriptor,
  type ImageConfig,
  type Platform,
} from './oci.ts';
import type { SelectedImage } from './select.ts';

/** History entry of the layer that the converter adds. `--reverse` finds it by these two texts. */
export const BOOTSTRAP_HISTORY = { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' };

export interface ManifestOptions {
  version: 5 | 6;
  /** OCI media types whatever the source has */
  oci: boolean;
  /** name the source manifest as subject */
  withReferrer: boolean;
  /** full name of the source image */
  sourceReference: string;
  /** blobs are in a storage backend: the image is the bootstrap layer alone */
  blobsElsewhere: boolean;
  /** the image goes into an index beside its source */
  merged: boolean;
}

export interface Documents {
  config: { bytes: Buffer; descriptor: Descriptor };
  manifest: { bytes: Buffer; descriptor: Descriptor };
}

function convertedConfig(
  config: ImageConfig,
  blobs: readonly Descriptor[],
  bootstrap: BootstrapLayer,
  blobsElsewhere: boolean,
): ImageConfig {
  return {
    ...config,
    rootfs: { ...config.rootfs, diff_ids: [...blobs.map((blob) => blob.digest), bootstrap.diffId] },
    history: [...(blobsElsewhere ? [] : (config.history ?? [])), BOOTSTRAP_HISTORY],
  };
}

/**
 * Config and manifest of a converted image.
 *
 * @param layers one descriptor for each source layer, in source order, then blobs of the dictionary
 */
export function imageDocuments(
  image: SelectedImage,
  layers: readonly Descriptor[],
  bootstrap: BootstrapLayer,
  options: ManifestOptions,
): Documents {
  const blobs = options.blobsElsewhere ? [] : layers;
  const oci = options.oci || image.descriptor.mediaType === MediaType.ociManifest;
  const config = document(
    convertedConfig(image.config, blobs, bootstrap, options.blobsElsewhere),
    options.merged ? MediaType.nydusConfig : oci ? MediaType.ociConfig : MediaType.dockerConfig,
  );
  const mediaType = oci ? MediaType.ociManifest : MediaType.dockerManifest;
  const version = String(options.version);
  const last: Descriptor = {
    mediaType: oci ? MediaType.ociLayerGzip : MediaType.dockerLayerGzip,
    digest: bootstrap.digest,
    size: bootstrap.size,
    annotations: { [Annotation.bootstrap]: 'true', [Annotation.fsVersion]: version },
  };
  const manifest = document(
    {
      schemaVersion: 2,
      mediaType,
      ...(options.merged ? { artifactType: MediaType.nydusArtifact } : {}),
      config: config.descriptor,
      layers: [...blobs, last],
      ...(options.withReferrer ? { subject: image.descriptor } : {}),
      annotations: {
        [Annotation.builderVersion]: versionInfo().package_ver,
        [Annotation.fsVersion]: version,
        [Annotation.sourceDigest]: image.descriptor.digest,
        [Annotation.sourceReference]: options.sourceReference,
      },
    },
    mediaType,
  );
  return { config, manifest };
}

/** Index of several converted images. */
export function indexDocument(
  entries: readonly { manifest: Descriptor; platform: Platform | undefined }[],
  sourceType: string | undefined,
  oci: boolean,
): { bytes: Buffer; descriptor: Descriptor } {
  const mediaType =
    !oci && sourceType !== undefined && isIndexType(sourceType) ? sourceType : MediaType.ociIndex;
  const manifests = entries.map(({ manifest, platform }) => ({
    ...manifest,
    ...(platform === undefined ? {} : { platform }),
  }));
  return document({ schemaVersion: 2, mediaType, manifests }, mediaType);
}
