// What follows the chunk data in a blob: trailers, compression information, chunk digests, bootstrap, table of contents.
// Source: blob-and-cache.md 1.5, 3.1, 3.7 and 6.
import { createHash } from 'node:crypto';
import type { CompressorName } from '../codec/algorithms.ts';
import { COMPRESSORS } from '../codec/algorithms.ts';
import { compressBound, compressInto } from '../codec/compress-into.ts';
import { BlobFeature } from '../format/flags.ts';
import { Section, tocEntry, TocFlag, type TocEntry } from '../format/toc/layout.ts';
import type { TreeBlob } from '../tree/node.ts';
import type { BlobStream } from './blob-output.ts';
import type { CiBuilder } from './ci-builder.ts';
import { encodeTrailer } from './trailer.ts';

export interface SectionOptions {
  version: 5 | 6;
  compressor: CompressorName;
  blobToc: boolean;
  inlineMeta: boolean;
  batch: boolean;
  blobOffset: number;
}

/** Features of a new blob that has chunks (blob-and-cache 2). */
export function blobFeatures(options: SectionOptions): number {
  let features: number = BlobFeature.capTarToc;
  if (options.version === 6) features |= BlobFeature.aligned;
  if (options.batch) features |= BlobFeature.batch | BlobFeature.chunkInfoV2;
  if (options.blobToc) features |= BlobFeature.hasTarHeader | BlobFeature.hasToc | BlobFeature.inlinedChunkDigest;
  if (options.inlineMeta) features |= BlobFeature.inlinedFsMeta | BlobFeature.hasTarHeader;
  return features >>> 0;
}

function sha256(data: Uint8Array): Buffer {
  return createHash('sha256').update(data).digest();
}

/** Stored form of a section: compressed when that is smaller. */
function pack(compressor: CompressorName, data: Uint8Array): { stored: Uint8Array; compressor: CompressorName } {
  const target = Buffer.allocUnsafe(compressor === 'none' ? 0 : compressBound(data.length));
  const size = compressInto(compressor, data, target);
  return size === 0 ? { stored: data, compressor: 'none' } : { stored: target.subarray(0, size), compressor };
}

/** Writes the sections behind the chunk data, in order; remembers the rows of the table of contents. */
export class SectionWriter {
  readonly #stream: BlobStream;
  readonly #options: SectionOptions;
  readonly #toc: Partial<TocEntry>[] = [];

  constructor(stream: BlobStream, options: SectionOptions) {
    this.#stream = stream;
    this.#options = options;
  }

  get #trailers(): boolean {
    return this.#options.blobToc || this.#options.inlineMeta;
  }

  /** Ends the chunk data, which is there. */
  async endData(storedBytes: number, uncompressedSize: number): Promise<void> {
    if (!this.#trailers) return;
    await this.#stream.append([encodeTrailer(Section.blob, storedBytes)]);
    this.#toc.push({
      flags: TocFlag.none,
      name: Section.blob,
      digest: this.#stream.digest(),
      compressedOffset: this.#options.blobOffset,
      compressedSize: storedBytes,
      uncompressedSize,
    });
  }

  /** Compression information and its header; fills in the fields of the blob row that describe it. */
  async addCompressionInfo(ci: CiBuilder, row: TreeBlob): Promise<void> {
    const data = ci.data();
    const { stored, compressor } = pack(this.#options.compressor, data);
    const number = COMPRESSORS.indexOf(compressor);
    const offset = this.#stream.position;
    const header = ci.header(row.features, number, offset, stored.length);
    const parts = [stored, header];
    if (this.#trailers) parts.push(encodeTrailer(Section.blobMeta, stored.length + header.length));
    await this.#stream.append(parts);
    row.ciCompressor = number;
    row.ciOffset = offset;
    row.ciCompressedSize = stored.length;
    row.ciUncompressedSize = data.length;
    const flags = compressor === 'zstd' ? TocFlag.zstd : compressor === 'lz4_block' ? TocFlag.lz4Block : TocFlag.none;
    this.#toc.push(
      {
        flags,
        name: Section.blobMeta,
        digest: sha256(data),
        compressedOffset: offset,
        compressedSize: stored.length,
        uncompressedSize: data.length,
      },
      {
        flags: TocFlag.none,
        name: Section.blobMetaHeader,
        digest: sha256(header),
        compressedOffset: offset + stored.length,
        compressedSize: header.length,
        uncompressedSize: header.length,
      },
    );
  }

  /** The chunk digest array: the one section that the blob id does not cover. */
  async addDigests(digests: Buffer): Promise<void> {
    const offset = this.#stream.position;
    await this.#stream.append([digests], false);
    await this.#stream.append([encodeTrailer(Section.digest, digests.length)]);
    this.#toc.push({
      flags: TocFlag.none,
      name: Section.digest,
      digest: sha256(digests),
      compressedOffset: offset,
      compressedSize: digests.length,
      uncompressedSize: digests.length,
    });
  }

  /** The embedded bootstrap: zstd when there is a table of contents to say so. */
  async addBootstrap(bootstrap: Buffer): Promise<void> {
    const offset = this.#stream.position;
    const { stored, compressor } = pack(this.#options.blobToc ? 'zstd' : 'none', bootstrap);
    await this.#stream.append([stored, encodeTrailer(Section.bootstrap, stored.length)]);
    this.#toc.push({
      flags: compressor === 'zstd' ? TocFlag.zstd : TocFlag.none,
      name: Section.bootstrap,
      digest: sha256(bootstrap),
      compressedOffset: offset,
      compressedSize: stored.length,
      uncompressedSize: bootstrap.length,
    });
  }

  /** The table of contents; its digest and size. */
  async addToc(): Promise<{ digest: Buffer; size: number }> {
    const entries = Buffer.concat(this.#toc.map((entry) => tocEntry.encode(entry)));
    const toc = Buffer.concat([entries, encodeTrailer(Section.toc, entries.length)]);
    await this.#stream.append([toc]);
    return { digest: sha256(toc), size: toc.length };
  }
}
