// Tells the two bootstrap versions apart. Source: rafs-metadata.md section 1.
import { viewOf } from '../base/bytes.ts';
import { openRafs5, type OpenOptions } from './rafs5/reader.ts';
import { RAFS5_MAGIC, RAFS5_VERSION, superblock5 } from './rafs5/layout.ts';
import { openRafs6 } from './rafs6/reader.ts';
import { EROFS_MAGIC, EROFS_SUPER_OFFSET, superblock6 } from './rafs6/layout.ts';
import { superblockError } from './super-flags.ts';
import type { RafsImage } from './image.ts';

/** Version of a bootstrap by its magic numbers, undefined when it has neither. `head` needs 1028 bytes. */
export function detectVersion(head: Uint8Array): 5 | 6 | undefined {
  const view = viewOf(head);
  if (
    head.length >= 8 &&
    superblock5.field.magic(view, 0) === RAFS5_MAGIC &&
    superblock5.field.fsVersion(view, 0) === RAFS5_VERSION
  ) {
    return 5;
  }
  if (
    head.length >= EROFS_SUPER_OFFSET + 4 &&
    superblock6.field.magic(view, EROFS_SUPER_OFFSET) === EROFS_MAGIC
  )
    return 6;
  return undefined;
}

/**
 * Open a bootstrap of either version.
 *
 * @throws FormatError `invalid RAFS superblock: ...` when it is neither or its superblock breaks a rule
 */
export function openImage(bytes: Uint8Array, options: OpenOptions = {}): RafsImage {
  switch (detectVersion(bytes)) {
    case 5:
      return openRafs5(bytes, options);
    case 6:
      return openRafs6(bytes, options);
    case undefined: {
      const magic = bytes.length >= 4 ? `0x${viewOf(bytes).getUint32(0, true).toString(16)}` : 'nothing';
      throw superblockError(
        { struct: 'superblock', field: 'magic', offset: 0 },
        `neither RAFS v5 nor v6: ${bytes.length} bytes that start with ${magic}`,
      );
    }
  }
}
