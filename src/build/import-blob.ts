// Blob table rows taken over from another image. Source: blob-and-cache.md 16.5, rafs-metadata.md 2.9.
import { basename } from 'node:path';
import { BlobFeature } from '../format/flags.ts';
import type { TreeBlob } from '../tree/node.ts';

/** Blob id that a file name stands for: the base name without any of its extensions. */
export function blobIdOfFile(path: string): string {
  const name = basename(path);
  const dot = name.indexOf('.', 1);
  return dot < 0 ? name : name.slice(0, dot);
}

/**
 * A row as the new image holds it: an embedded bootstrap does not know its blob's id, the file name does.
 * Sizes and TOC fields stay as embedded even where the blob is at hand (golden layers-*-merge-inline, -toc).
 *
 * @param path file the bootstrap was read from
 */
export function importBlob(blob: TreeBlob, path: string): TreeBlob {
  if ((blob.features & BlobFeature.inlinedFsMeta) === 0) return { ...blob };
  const row: TreeBlob = { ...blob, features: (blob.features & ~BlobFeature.inlinedFsMeta) >>> 0 };
  if ((row.features & BlobFeature.separate) === 0) row.id = blobIdOfFile(path);
  else row.metaDigest = digestBytes(blobIdOfFile(path)) ?? row.metaDigest;
  return row;
}

/** 32 bytes of a 64-digit hex id, undefined when it is none. */
export function digestBytes(hex: string): Buffer | undefined {
  return /^[0-9a-fA-F]{64}$/.test(hex) ? Buffer.from(hex, 'hex') : undefined;
}
