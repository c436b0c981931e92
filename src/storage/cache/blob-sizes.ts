// Sizes and refusals that follow from the blob table row alone. Source: blob-and-cache.md 2 and 3.5.
import { UsageError } from '../../base/errors.ts';
import { BlobFeature } from '../../format/flags.ts';
import type { BlobInfo } from '../../format/image.ts';

/** True when the blob has a compression information section. */
export function hasCi(blob: BlobInfo): boolean {
  return blob.ciCompressedSize > 0 && blob.ciUncompressedSize > 0;
}

/**
 * Refuse blobs that are not served yet, by name.
 *
 * @throws UsageError EINVAL
 */
export function refuseUnsupported(blob: BlobInfo, version: 5 | 6): void {
  const kinds: [boolean, string][] = [
    [(blob.features & BlobFeature.encrypted) !== 0 || blob.cipher !== 0, 'encrypted'],
    [(blob.features & BlobFeature.zran) !== 0, 'zran (targz-ref, estargz-ref)'],
    [(blob.features & BlobFeature.tarfs) !== 0, 'tarfs'],
    [(blob.features & BlobFeature.external) !== 0, 'external'],
    [(blob.features & BlobFeature.separate) !== 0, 'tar-ref (separate metadata)'],
    [
      version === 6 && blob.compressor === 'gzip' && (blob.features & BlobFeature.chunkInfoV2) === 0,
      'legacy stargz',
    ],
  ];
  for (const [found, name] of kinds) {
    if (found) throw new UsageError(`blob ${blob.id} is of a kind that is not supported yet: ${name}`);
  }
}
