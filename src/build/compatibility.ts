// Which images fit together in one: parent and build, dictionary and build, layers of a merge.
// Source: blob-and-cache.md 16.4; texts: golden cases/merge-errors.
import { UsageError } from '../base/errors.ts';
import type { CompressorName, DigesterName } from '../codec/algorithms.ts';
import { SuperFlag } from '../format/flags.ts';
import type { RafsImage } from '../format/image.ts';

/** What must agree. */
export interface ImageTraits {
  version: 5 | 6;
  chunkSize: number;
  explicitUidGid: boolean;
  tarfs: boolean;
  digester: DigesterName;
  compressor: CompressorName;
}

/** Traits of an existing image. */
export function traitsOf(image: RafsImage): ImageTraits {
  const { version, chunkSize, explicitUidGid, digester, compressor, flags } = image.super;
  return {
    version,
    chunkSize,
    explicitUidGid,
    digester,
    compressor,
    tarfs: (flags & SuperFlag.tarfsMode) !== 0,
  };
}

const DIGESTER_WORD: Record<DigesterName, string> = { blake3: 'Blake3', sha256: 'Sha256' };

function inconsistent(problem: string): never {
  throw new UsageError(`Inconsistent RAFS Filesystem: ${problem}`, { exitCode: 2 });
}

/**
 * Refuse an image that does not fit the one seen first.
 *
 * @throws UsageError exit 2, in upstream's words
 */
export function checkTraits(reference: ImageTraits, target: ImageTraits): void {
  if (reference.chunkSize !== target.chunkSize) {
    inconsistent(`Inconsistent configuration of chunk_size: ${reference.chunkSize} vs ${target.chunkSize}`);
  }
  if (reference.explicitUidGid !== target.explicitUidGid) {
    inconsistent(
      `Using inconsistent explicit_uidgid setting ${reference.explicitUidGid}, target explicit_uidgid setting ${target.explicitUidGid}`,
    );
  }
  if (reference.version !== target.version) {
    inconsistent(
      `Using inconsistent RAFS version V${reference.version}, target RAFS version Ok(V${target.version})`,
    );
  }
  if (reference.version === 5 && reference.digester !== target.digester) {
    inconsistent(
      `RAFS v5 can not support different digest algorithm due to inode digest, ${DIGESTER_WORD[reference.digester]} vs ${DIGESTER_WORD[target.digester]}`,
    );
  }
  if (reference.tarfs !== target.tarfs) {
    inconsistent(`Using inconsistent RAFS TARFS mode ${reference.tarfs}, target mode ${target.tarfs}`);
  }
  // v5 has one compression flag for all blobs: upstream lets this pass and the result cannot be read.
  if (reference.version === 5 && reference.compressor !== target.compressor) {
    inconsistent(
      `RAFS v5 can not support different compressors, ${reference.compressor} vs ${target.compressor}`,
    );
  }
}

/** As checkTraits, of two images. */
export function checkCompatible(reference: RafsImage, target: RafsImage): void {
  checkTraits(traitsOf(reference), traitsOf(target));
}
