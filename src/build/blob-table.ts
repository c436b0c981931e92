// The blob table of an image that is being built: blobs of the parent, dictionary blobs once they are used, and the new
// blob once it has a chunk. Source: blob-and-cache.md 16.2 and 16.3.
import type { TreeBlob, TreeChunk } from '../tree/node.ts';
import { blobFeatures } from './blob-sections.ts';
import type { ChunkDictionary } from './chunk-dict.ts';
import type { CreateOptions } from './options.ts';

/** Row of the blob that a build makes; sizes and digests are filled in when they are known. */
export function newBlobRow(options: CreateOptions): TreeBlob {
  return {
    id: '',
    chunkCount: 0,
    chunkSize: options.chunkSize,
    features: blobFeatures({ ...options, batch: options.batchSize > 0 }),
    compressor: options.compressor,
    digester: options.digester,
    compressedSize: 0,
    uncompressedSize: 0,
    tocSize: 0,
    tocDigest: Buffer.alloc(32),
    metaDigest: Buffer.alloc(32),
    metaSize: Buffer.alloc(8),
    cipherIv: Buffer.alloc(8),
    cipher: 0,
    ciCompressor: 0,
    ciOffset: 0,
    ciCompressedSize: 0,
    ciUncompressedSize: 0,
    readaheadOffset: 0,
    readaheadSize: 0,
  };
}

/** Hands out rows of the table in order of first use. */
export class BlobTable {
  readonly rows: TreeBlob[];
  readonly #dictionary: ChunkDictionary | undefined;
  /** row of the dictionary -> row of this table */
  readonly #dictionaryRows = new Map<number, number>();
  readonly #own: TreeBlob;
  #ownIndex = -1;

  /** @param own row of the new blob, filled in when it is finished */
  constructor(parent: readonly TreeBlob[], dictionary: ChunkDictionary | undefined, own: TreeBlob) {
    this.rows = [...parent];
    this.#dictionary = dictionary;
    this.#own = own;
  }

  /** Row of the new blob; it enters the table now if it was not there. */
  ownIndex(): number {
    if (this.#ownIndex < 0) this.#ownIndex = this.rows.push(this.#own) - 1;
    return this.#ownIndex;
  }

  get hasOwn(): boolean {
    return this.#ownIndex >= 0;
  }

  /** Chunk of the dictionary as this image refers to it, or undefined. */
  dictionaryChunk(digest: Uint8Array, size: number): TreeChunk | undefined {
    const chunk = this.#dictionary?.lookup(digest, size);
    const blob = chunk === undefined ? undefined : this.#dictionary?.blobs[chunk.blobIndex];
    if (chunk === undefined || blob === undefined) return undefined;
    let row = this.#dictionaryRows.get(chunk.blobIndex);
    if (row === undefined) {
      const same = this.rows.findIndex((known) => known.id === blob.id);
      row = same >= 0 ? same : this.rows.push(blob) - 1;
      this.#dictionaryRows.set(chunk.blobIndex, row);
    }
    return { ...chunk, blobIndex: row };
  }
}
