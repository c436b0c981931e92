// The id under which a blob is asked for. Source: rafs-metadata.md 2.9, blob-and-cache.md 3.6.
import { basename } from 'node:path';
import { BlobFeature } from '../format/flags.ts';
import type { BlobInfo } from '../format/image.ts';

/** Id of a blob inside its own bootstrap, where it cannot be known yet. */
export const PLACEHOLDER_BLOB_ID = 'x'.repeat(64);

/** Base name of a bootstrap file, cut at the first dot: the id of the blob that carried it. */
export function idOfBootstrapPath(path: string): string {
  const name = basename(path);
  const dot = name.indexOf('.');
  return dot < 0 ? name : name.slice(0, dot);
}

/**
 * The real id of a blob.
 *
 * @param bootstrapPath file the bootstrap came from; undefined: the stored id is used
 */
export function effectiveBlobId(
  blob: Pick<BlobInfo, 'id' | 'features'>,
  bootstrapPath: string | undefined,
): string {
  if (bootstrapPath === undefined) return blob.id;
  const { features } = blob;
  // the file name says something only about a blob that carried its bootstrap; old builders mark nothing else
  if ((features & BlobFeature.inlinedFsMeta) === 0) return blob.id;
  const apart = (features & (BlobFeature.separate | BlobFeature.external)) !== 0;
  if (apart && (features & BlobFeature.capTarToc) !== 0) return blob.id;
  const id = idOfBootstrapPath(bootstrapPath);
  return id === '' ? blob.id : id;
}
