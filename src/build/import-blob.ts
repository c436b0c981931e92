// Blob table rows taken over from another image. Source: blob-and-cache.md 16.5, rafs-metadata.md 2.9.
import { basename } from 'node:path';
import { BlobFeature } from '../format/flags.ts';
import type { TreeBlob } from '../tree/node.ts';

/** What the blob file itself tells, when it is at hand. */
export interface BlobFacts {
  /** bytes of the file */
  size: number;
  /** SHA-256 of the table of contents and its length with the tar header; undefined when the blob has none */
  tocDigest: Uint8Array | undefined;
  tocSize: number;
}

/** Blob id that a file name stands for: the base name without any of its extensions. */
export function blobIdOfFile(path: string): string {
  const name = basename(path);
  const dot = name.indexOf('.', 1);
  return dot < 0 ? name : name.slice(0, dot);
}

/**
 * A row as the new image holds it: an embedded bootstrap does not know its blob's id and size, the file does.
 *
 * @param path  file the bootstrap was read from
 * @param facts of the blob, undefined when only the bootstrap is at hand
 */
export function importBlob(blob: TreeBlob, path: string, facts: BlobFacts | undefined): TreeBlob {
  const row: TreeBlob = { ...blob };
  const separate = (row.features & BlobFeature.separate) !== 0;
  const inlined = (row.features & BlobFeature.inlinedFsMeta) !== 0;
  if (inlined) {
    row.features = (row.features & ~BlobFeature.inlinedFsMeta) >>> 0;
    if (separate) {
      row.metaDigest = digestBytes(blobIdOfFile(path)) ?? row.metaDigest;
    } else {
      row.id = blobIdOfFile(path);
    }
    if (facts !== undefined) addFacts(row, facts, separate);
  }
  return row;
}

function addFacts(row: TreeBlob, facts: BlobFacts, separate: boolean): void {
  if (separate) {
    row.metaSize = Buffer.alloc(8);
    Buffer.from(row.metaSize.buffer, row.metaSize.byteOffset, 8).writeBigUInt64LE(BigInt(facts.size));
  } else {
    row.compressedSize = facts.size;
  }
  if (facts.tocDigest !== undefined) {
    row.tocDigest = facts.tocDigest;
    row.tocSize = facts.tocSize;
  }
}

/** 32 bytes of a 64-digit hex id, undefined when it is none. */
export function digestBytes(hex: string): Buffer | undefined {
  return /^[0-9a-fA-F]{64}$/.test(hex) ? Buffer.from(hex, 'hex') : undefined;
}
