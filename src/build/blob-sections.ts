// What follows the chunk data in a blob: trailers, compression information, chunk digests, bootstrap, table of contents.
// Source: blob-and-cache.md 1.5, 3.1, 3.7 and 6.
import type { CompressorName } from '../codec/algorithms.ts';
import { COMPRESSORS } from '../codec/algorithms.ts';
import { compressBound, compressInto } from '../codec/compress-into.ts';
import { digestOf } from '../codec/digest.ts';
import { BlobFeature } from '../format/flags.ts';
import { encodeTrailer } from '../format/tar/trailer.ts';
import { Section } from '../format/toc/layout.ts';
import { encodeToc, type TocSection } from '../format/toc/writer.ts';
import type { TreeBlob } from '../tree/node.ts';
import type { BlobStream } from './blob-output.ts';
import type { CiBuilder } from './ci-builder.ts';

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
  if (options.blobToc)
    features |= BlobFeature.hasTarHeader | BlobFeature.hasToc | BlobFeature.inlinedChunkDigest;
  if (options.inlineMeta) features |= BlobFeature.inlinedFsMeta | BlobFeature.hasTarHeader;
  return features >>> 0;
}

/** Stored form of a section: compressed when that is smaller. */
function pack<C extends CompressorName>(
  compressor: C,
  data: Uint8Array,
): { stored: Uint8Array; compressor: C | 'none' } {
  const target = Buffer.allocUnsafe(compressor === 'none' ? 0 : compressBound(data.length));
  const size = compressInto(compressor, data, target);
  return size === 0 ? { stored: data, compressor: 'none' } : { stored: target.subarray(0, size), compressor };
}

/** Writes the sections behind the chunk data, in order; remembers the rows of the table of contents. */
export class SectionWriter {
  readonly #stream: BlobStream;
  readonly #options: SectionOptions;
  readonly #toc: TocSection[] = [];

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
      compressor: 'none',
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
    // gzip is no compressor of new blobs
    const tocCompressor = compressor === 'gzip' ? 'none' : compressor;
    this.#toc.push(
      {
        compressor: tocCompressor,
        name: Section.blobMeta,
        digest: digestOf('sha256', data),
        compressedOffset: offset,
        compressedSize: stored.length,
        uncompressedSize: data.length,
      },
      {
        compressor: 'none',
        name: Section.blobMetaHeader,
        digest: digestOf('sha256', header),
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
      compressor: 'none',
      name: Section.digest,
      digest: digestOf('sha256', digests),
      compressedOffset: offset,
      compressedSize: digests.length,
      uncompressedSize: digests.length,
    });
  }

  /** The embedded bootstrap: zstd when there is a table of contents to say so. */
  async addBootstrap(bootstrap: Buffer): Promise<void> {
    const offset = this.#stream.position;
    const { stored, compressor } = pack<'zstd' | 'none'>(this.#options.blobToc ? 'zstd' : 'none', bootstrap);
    await this.#stream.append([stored, encodeTrailer(Section.bootstrap, stored.length)]);
    this.#toc.push({
      compressor,
      name: Section.bootstrap,
      digest: digestOf('sha256', bootstrap),
      compressedOffset: offset,
      compressedSize: stored.length,
      uncompressedSize: bootstrap.length,
    });
  }

  /** The table of contents; its digest and size. */
  async addToc(): Promise<{ digest: Buffer; size: number }> {
    const toc = encodeToc(this.#toc);
    await this.#stream.append([toc.bytes]);
    return { digest: toc.digest, size: toc.size };
  }
}
