// Opens a bootstrap file: mapped, not read, so that every process shares its pages and opening costs no more for a big one.
import { BackendError, FormatError, messageOf } from '../base/errors.ts';
import { MAX_BOOTSTRAP_V6 } from '../base/limits.ts';
import { openImage } from '../format/detect.ts';
import { superblockError } from '../format/super-flags.ts';
import type { RafsImage } from '../format/image.ts';
import type { OpenOptions } from '../format/rafs5/reader.ts';
import { mapFd, type Mapping } from '../native/mmap.ts';
import { closeSync, fstatSync, openSync } from 'node:fs';

/** Every bootstrap has at least this many bytes: upstream reads them before it looks at the version (rafs-metadata 1). */
const MIN_BOOTSTRAP = 8192;

/** A mapped bootstrap. */
export interface OpenedBootstrap {
  readonly image: RafsImage;
  readonly path: string;
  /** unmap; the image and every view it gave out must not be touched afterwards */
  close(): void;
}

/**
 * Map and open a bootstrap.
 *
 * @throws BackendError the file cannot be opened or mapped
 * @throws FormatError  `invalid RAFS superblock: ...`, or a broken table; the message ends with the path
 */
export function openBootstrap(path: string, options: OpenOptions = {}): OpenedBootstrap {
  const mapping = mapBootstrap(path);
  try {
    const image = openImage(mapping.bytes, options);
    let open = true;
    return {
      image,
      path,
      close: () => {
        if (open) mapping.unmap();
        open = false;
      },
    };
  } catch (error) {
    mapping.unmap();
    if (error instanceof FormatError) error.message += ` (${path})`;
    throw error;
  }
}

function mapBootstrap(path: string): Mapping {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new BackendError(`cannot open bootstrap ${path}: ${messageOf(error)}`, {
      cause: error,
      hint: 'the bootstrap is the file that nydus-image create --bootstrap wrote',
    });
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new BackendError(`bootstrap ${path} is no regular file`);
    if (stat.size < MIN_BOOTSTRAP || stat.size > MAX_BOOTSTRAP_V6) {
      throw superblockError(
        { struct: 'superblock' },
        `the file has ${stat.size} bytes, expected ${MIN_BOOTSTRAP} to ${MAX_BOOTSTRAP_V6} (${path})`,
      );
    }
    return mapFd(fd, stat.size);
  } catch (error) {
    if (error instanceof BackendError || error instanceof FormatError) throw error;
    throw new BackendError(`cannot map bootstrap ${path}: ${messageOf(error)}`, { cause: error });
  } finally {
    closeSync(fd);
  }
}
