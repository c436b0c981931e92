// Chunk dictionary: the chunks of another image that a build may refer to instead of storing them again.
// Source: rafs-metadata.md 6.5, blob-and-cache.md 16.1, 16.3-16.5.
import { readFileSync } from 'node:fs';
import { FormatError, messageOf, UsageError } from '../base/errors.ts';
import { viewOf } from '../base/bytes.ts';
import type { DigesterName } from '../codec/algorithms.ts';
import { chunkRecord } from '../format/chunk-record.ts';
import { openImage } from '../format/detect.ts';
import type { RafsImage } from '../format/image.ts';
import { EXTENDED_SUPER_OFFSET, extendedSuper6 } from '../format/rafs6/layout.ts';
import type { TreeBlob, TreeChunk, TreeNode } from '../tree/node.ts';
import { checkTraits, traitsOf, type ImageTraits } from './compatibility.ts';
import { importBlob } from './import-blob.ts';
import { unreadable } from './merge-source.ts';
import { loadBlobs, loadImage, readChunk } from './load-image.ts';

/**
 * Path of a `--chunk-dict` argument: `bootstrap=PATH` or just the path.
 *
 * @throws UsageError exit 1, in upstream's words, for another type
 */
export function parseChunkDictArgument(argument: string): string {
  const equals = argument.indexOf('=');
  if (equals < 0) return argument;
  const type = argument.slice(0, equals);
  if (type !== 'bootstrap') throw new UsageError(`invalid chunk dict type ${type}`, { exitCode: 1 });
  return argument.slice(equals + 1);
}

/** Chunks by digest, and the blobs they are in. `blobIndex` of a chunk is a row of `blobs`. */
export interface ChunkDictionary {
  readonly image: RafsImage;
  readonly blobs: readonly TreeBlob[];
  /** distinct chunks */
  readonly size: number;
  /** The chunk of that digest and size, or undefined. Its blob enters the output's table when it is used first. */
  lookup(digest: Uint8Array, uncompressedSize: number): TreeChunk | undefined;
}

/** Key of a digest: 32 characters, one a byte. */
export function digestKey(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1');
}

/** First insertion wins (blob-and-cache 16.1). */
export class ChunkIndex {
  readonly #chunks = new Map<string, TreeChunk>();

  get size(): number {
    return this.#chunks.size;
  }

  add(chunk: TreeChunk): void {
    const key = digestKey(chunk.digest);
    if (!this.#chunks.has(key)) this.#chunks.set(key, chunk);
  }

  /** A hit needs the size recorded to be 0 or equal. */
  lookup(digest: Uint8Array, uncompressedSize: number): TreeChunk | undefined {
    const chunk = this.#chunks.get(digestKey(digest));
    return chunk !== undefined &&
      (chunk.uncompressedSize === 0 || chunk.uncompressedSize === uncompressedSize)
      ? chunk
      : undefined;
  }
}

/** Chunks of all files of a tree, in depth-first order: how parent images seed deduplication. */
export function addTreeChunks(root: TreeNode, index: ChunkIndex): void {
  const stack = [root];
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    for (const chunk of node.chunks) index.add(chunk);
    const children = node.children ?? [];
    for (let i = children.length - 1; i >= 0; i--) stack.push(children[i] as TreeNode);
  }
}

/** Chunks of a v6 image from its chunk table: also those of a generated dictionary, whose one file has no true size. */
function addTableChunks(image: RafsImage, index: ChunkIndex): void {
  const view = viewOf(image.bytes);
  const start = extendedSuper6.field.chunkTableOffset(view, EXTENDED_SUPER_OFFSET);
  const size = extendedSuper6.field.chunkTableSize(view, EXTENDED_SUPER_OFFSET);
  if (size > 0 && start + size > view.byteLength) {
    throw new FormatError(
      { struct: 'chunkTable6', offset: start },
      `${size} bytes reach past the end of the file`,
    );
  }
  for (let at = start; at + chunkRecord.size <= start + size; at += chunkRecord.size) {
    const chunk = readChunk(view, at);
    if (chunk.blobIndex >= image.blobs.length) {
      throw new FormatError(
        { struct: 'chunkRecord', field: 'blobIndex', offset: at },
        `is ${chunk.blobIndex}, there are ${image.blobs.length} blobs`,
      );
    }
    index.add(chunk);
  }
}

/**
 * Dictionary of an image. An image with another digest algorithm gives an empty one: its digests cannot be compared.
 *
 * @param path of the bootstrap: blob ids it does not know itself are taken from the file name
 */
export function chunkDictionary(image: RafsImage, path: string, digester: DigesterName): ChunkDictionary {
  const index = new ChunkIndex();
  if (image.super.digester === digester) {
    if (image.super.version === 5) addTreeChunks(loadImage(image, 0, 'ignored').root, index);
    else addTableChunks(image, index);
  }
  return {
    image,
    blobs: loadBlobs(image).map((blob) => importBlob(blob, path)),
    get size() {
      return index.size;
    },
    lookup: (digest, size) => index.lookup(digest, size),
  };
}

/**
 * Bootstrap of a dictionary.
 *
 * @throws UsageError exit 1, in upstream's words
 */
export function openDictionary(path: string): RafsImage {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new UsageError(`load chunk dict bootstrap "${path}"`, {
      exitCode: 1,
      cause: unreadable(path, error),
    });
  }
  return openImage(bytes, { dictionary: true });
}

/** A dictionary that a build cannot use. It is told for itself: nothing was built yet. */
export class DictionaryError extends UsageError {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? { exitCode: 1 } : { exitCode: 1, cause });
  }
}

/**
 * Bootstrap of the dictionary of a build.
 *
 * @param traits of the image to build; a v6 image may use a dictionary with any compressor, v5 has one for all blobs
 * @throws DictionaryError in upstream's words
 */
export function openBuildDictionary(path: string, traits: ImageTraits): RafsImage {
  let image: RafsImage;
  try {
    image = openDictionary(path);
  } catch (error) {
    let cause: unknown = error;
    while (cause instanceof UsageError && cause.cause !== undefined) cause = cause.cause;
    throw new DictionaryError(`failed to open bootstrap file "${path}"`, cause);
  }
  const { compressor } = image.super;
  try {
    checkTraits(traits.version === 5 ? traits : { ...traits, compressor }, traitsOf(image));
  } catch (error) {
    throw new DictionaryError(messageOf(error));
  }
  return image;
}
