// What a chunk dictionary is made from: the chunks and blobs of images, and the names that their directories give them.
// Source: nydus-image-and-nydusify.md 5.5; blob-and-cache.md 16.8.
import { basename, dirname, resolve } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import type { RafsImage } from '../../format/image.ts';
import type { TreeBlob, TreeChunk } from '../../tree/node.ts';
import { digestKey } from '../chunk-dict.ts';
import { importBlob } from '../import-blob.ts';
import { loadImage } from '../load-image.ts';

/** One version of an image. */
export interface DictionarySource {
  path: string;
  image: RafsImage;
  reference: string;
  version: string;
  blobs: TreeBlob[];
  /** distinct chunks by blob, then stored offset */
  chunks: TreeChunk[];
}

/**
 * Image and tag: the last two parts, between colons, of the name of the directory that holds the bootstrap.
 *
 * @throws UsageError exit 1, in upstream's words
 */
export function identityOf(path: string): { reference: string; version: string } {
  const parts = basename(dirname(resolve(path))).split(':');
  const [reference, version] = parts.slice(-2);
  if (parts.length < 2 || reference === undefined || version === undefined)
    throw new UsageError('Invalid Bootstrap directory name', {
      exitCode: 1,
      hint: `put ${path} into a directory called image:tag`,
    });
  return { reference, version };
}

function inOrder(a: TreeChunk, b: TreeChunk): number {
  return (
    a.blobIndex - b.blobIndex ||
    a.compressedOffset - b.compressedOffset ||
    a.uncompressedOffset - b.uncompressedOffset
  );
}

/** Chunks and blobs of a bootstrap. @throws FormatError it is damaged */
export function loadSource(path: string, image: RafsImage): DictionarySource {
  const { root, blobs } = loadImage(image, 0);
  const found = new Map<string, TreeChunk>();
  const stack = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    for (const chunk of node.chunks) {
      const key = `${chunk.blobIndex} ${digestKey(chunk.digest)}`;
      if (!found.has(key)) found.set(key, chunk);
    }
    stack.push(...(node.children ?? []));
  }
  return {
    path,
    image,
    ...identityOf(path),
    blobs: blobs.map((blob) => importBlob(blob, path)),
    chunks: [...found.values()].sort(inOrder),
  };
}
