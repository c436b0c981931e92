// The chunk dictionary of a conversion: the bootstrap of an image whose chunks are not stored again.
// Source: nydus-image-and-nydusify.md 7.2, 8.2 (`--chunk-dict`).
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, messageOf } from '../base/errors.ts';
import { extractBootstrap } from './mount/bootstrap-files.ts';
import {
  Annotation,
  documentType,
  isIndexType,
  MediaType,
  parseIndex,
  parseManifest,
  type Descriptor,
} from './oci.ts';
import { matchesPlatform, type PlatformSpec } from './platform.ts';
import type { ImageSource } from './source.ts';

export interface Dictionary {
  /** path of the bootstrap */
  bootstrap: string;
  /** sha256 of it: builds with another dictionary give other blobs */
  digest: string;
  /** blobs of the image, where it came from a registry */
  blobs: readonly Descriptor[];
  /** the image they can be read from */
  source: ImageSource | undefined;
}

async function digestOf(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

/** A bootstrap on this machine. @throws UsageError it cannot be read */
export async function localDictionary(path: string): Promise<Dictionary> {
  try {
    return { bootstrap: path, digest: await digestOf(path), blobs: [], source: undefined };
  } catch (error) {
    throw new UsageError(`chunk dict ${path} cannot be read: ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
}

/**
 * The dictionary in an image.
 *
 * @param platforms which entry of an index; the first that matches, else the first
 * @param dir       where the bootstrap goes
 * @throws UsageError it is no nydus image
 */
export async function imageDictionary(
  source: ImageSource,
  platforms: readonly PlatformSpec[] | undefined,
  dir: string,
  signal: AbortSignal,
): Promise<Dictionary> {
  let { descriptor, bytes } = await source.resolve(signal);
  let type = documentType(bytes, descriptor.mediaType);
  if (isIndexType(type)) {
    const entries = parseIndex(bytes, type).manifests;
    const fits = ({ platform }: Descriptor): boolean =>
      platform !== undefined && (platforms ?? []).some((wish) => matchesPlatform(wish, platform));
    const entry = entries.find(fits) ?? entries[0];
    if (entry === undefined)
      throw new UsageError(`chunk dict ${source.name}: the index is empty`, { exitCode: 1 });
    bytes = await source.document(entry, signal);
    descriptor = entry;
    type = documentType(bytes, entry.mediaType);
  }
  const { layers } = parseManifest(bytes, type);
  const last = layers.at(-1);
  if (last === undefined || last.annotations?.[Annotation.bootstrap] !== 'true')
    throw new UsageError(`chunk dict ${source.name} is no nydus image`, {
      exitCode: 1,
      hint: 'name an image that nydusify convert or chunkdict generate made',
    });
  const { bootstrap } = await extractBootstrap(source.layer(last), join(dir, 'dictionary'), signal);
  const blobs = layers.filter(({ mediaType }) => mediaType === MediaType.nydusBlob);
  return { bootstrap, digest: await digestOf(bootstrap), blobs, source };
}
