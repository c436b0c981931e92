// Opens the image that a command names: a bootstrap, or a data blob with the metadata inside.
// Source: nydus-image 3.1, 4.1.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Logger } from '../../base/log.ts';
import { detectVersion, openImage } from '../../format/detect.ts';
import type { BlobInfo, RafsImage } from '../../format/image.ts';
import { effectiveBlobId } from '../../rafs/blob-id.ts';
import { carriesBootstrap, loadInlineBootstrap } from '../../rafs/open-inline.ts';
import { openBootstrap, type OpenedBootstrap } from '../../rafs/open.ts';
import { superFlagNames } from './flag-names.ts';

/** Bytes that tell a bootstrap from a blob. */
const HEAD_SIZE = 2048;

/** An image as a command looks at it. */
export interface ImageFile {
  readonly path: string;
  readonly image: RafsImage;
  /** id of a blob, which the file name may tell */
  blobId(blob: BlobInfo): string;
  close(): void;
}

function readRange(fd: number, start: number, end: number): Buffer {
  const bytes = Buffer.alloc(end - start);
  const count = readSync(fd, bytes, 0, bytes.length, start);
  return bytes.subarray(0, count);
}

/** The metadata inside a data blob, taken into memory; undefined when the file is a bootstrap itself. */
async function loadInline(path: string): Promise<RafsImage | undefined> {
  const fd = openSync(path, 'r');
  try {
    const { size } = fstatSync(fd);
    const read = async (start: number, end: number): Promise<Buffer> => readRange(fd, start, end);
    if (!(await carriesBootstrap(read, size)) && detectVersion(readRange(fd, 0, HEAD_SIZE)) !== undefined) {
      return undefined;
    }
    return openImage((await loadInlineBootstrap(read, size)).bytes);
  } finally {
    closeSync(fd);
  }
}

/**
 * Open an image.
 *
 * @param stored ids are those of the blob table, as the deprecated `-B` form wants them; else a blob that carries its
 *               metadata is known by its file name
 * @throws system errors, FormatError
 */
export async function openImageFile(path: string, logger: Logger, stored = false): Promise<ImageFile> {
  const inline = await loadInline(path);
  const opened = inline === undefined ? openBootstrap(path) : undefined;
  const image = inline ?? (opened as OpenedBootstrap).image;
  const flags = superFlagNames(image.super.flags).join(' | ');
  logger.info(
    image.super.version === 6 ? `RAFS features: ${flags}` : `RAFS v5 super block features: ${flags}`,
  );
  return {
    path,
    image,
    blobId: (blob) => effectiveBlobId(blob, stored ? undefined : path),
    close: () => opened?.close(),
  };
}
