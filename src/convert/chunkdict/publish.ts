// A chunk dictionary as an image: the blobs it refers to as layers, and a last layer with its bootstrap.
// Source: nydus-image-and-nydusify.md 9.7; 7.2 to 7.4 (layers, config, manifest).
import { join } from 'node:path';
import { FormatError } from '../../base/errors.ts';
import { versionInfo } from '../../base/version.ts';
import { blobDescriptor } from '../blob-descriptor.ts';
import { writeBootstrapLayer } from '../bootstrap-layer.ts';
import { BOOTSTRAP_HISTORY } from '../manifest.ts';
import { Annotation, document, MediaType, type Descriptor } from '../oci.ts';
import type { Reference } from '../../registry/reference.ts';
import type { LayerInput } from '../source.ts';
import type { ImageTarget } from '../target.ts';
import type { NydusImage } from './nydus-images.ts';

/** Modes of the members of the bootstrap layer, as upstream writes it for dictionaries. */
const MODES = { directory: 0o770, file: 0o666 };

/** Where a blob can be had. */
export interface BlobPlace {
  size: number;
  input: LayerInput;
  /** repository that it may be mounted from */
  reference: Reference | undefined;
}

export interface DictionaryImage {
  /** path of the bootstrap */
  bootstrap: string;
  /** ids of the blobs it refers to */
  blobs: readonly string[];
  version: 5 | 6;
  /** whose platform and media types the image takes over */
  model: NydusImage;
  find(id: string): Promise<BlobPlace | undefined>;
}

/**
 * Put the image of a dictionary under the name of a target.
 *
 * @throws FormatError a blob is nowhere to be found
 */
export async function publishDictionary(
  dictionary: DictionaryImage,
  target: ImageTarget,
  signal: AbortSignal,
): Promise<Descriptor> {
  const { model, version } = dictionary;
  const layers: Descriptor[] = [];
  for (const id of dictionary.blobs) {
    const place = await dictionary.find(id);
    if (place === undefined)
      throw new FormatError({ struct: 'bootstrap', field: 'blobs' }, `names blob ${id}, which no source has`);
    const descriptor = blobDescriptor(`sha256:${id}`, place.size);
    await target.copyBlob(descriptor, place.input, place.reference, signal);
    layers.push(descriptor);
  }
  const file = join(target.blobDir, 'dictionary-layer');
  const layer = await writeBootstrapLayer(dictionary.bootstrap, file, signal, MODES);
  const { digest, size, diffId } = layer;
  const last: Descriptor = {
    mediaType: MediaType.dockerLayerGzip,
    digest,
    size,
    annotations: { [Annotation.bootstrap]: 'true', [Annotation.fsVersion]: String(version) },
  };
  await target.putFile(file, last, signal);
  const { os = 'linux', architecture = 'amd64', variant } = model.platform ?? {};
  const config = document(
    {
      architecture,
      os,
      ...(variant === undefined ? {} : { variant }),
      rootfs: { type: 'layers', diff_ids: [...layers.map((blob) => blob.digest), diffId] },
      history: [BOOTSTRAP_HISTORY],
    },
    model.manifest.config.mediaType,
  );
  await target.putDocument(config.bytes, config.descriptor, signal);
  const { mediaType } = model.manifest;
  const manifest = document(
    {
      schemaVersion: 2,
      mediaType,
      config: config.descriptor,
      layers: [...layers, last],
      annotations: {
        [Annotation.builderVersion]: versionInfo().package_ver,
        [Annotation.fsVersion]: String(version),
      },
    },
    mediaType,
  );
  await target.finish(manifest.bytes, manifest.descriptor, signal);
  return manifest.descriptor;
}
