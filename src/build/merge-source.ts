// One source of a merge: a bare bootstrap, or a blob that carries its bootstrap at the end. The given file is read
// directly, no backend is needed. Source: nydus-image-and-nydusify.md 3.1, blob-and-cache.md 6.5 and 6.6.
import { open, type FileHandle } from 'node:fs/promises';
import { FormatError, messageOf, UsageError } from '../base/errors.ts';
import { openImage } from '../format/detect.ts';
import type { RafsImage } from '../format/image.ts';
import { superblockError } from '../format/super-flags.ts';
import { carriesBootstrap, loadInlineBootstrap, MAX_INLINE_BOOTSTRAP } from '../rafs/open-inline.ts';

export interface MergeSource {
  path: string;
  image: RafsImage;
}

async function readRange(file: FileHandle, start: number, end: number): Promise<Buffer> {
  const bytes = Buffer.alloc(end - start);
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, start + filled);
    if (bytesRead === 0)
      throw new FormatError(
        { struct: 'blob', offset: start + filled },
        `the file ends, ${bytes.length - filled} bytes are missing`,
      );
    filled += bytesRead;
  }
  return bytes;
}

async function readImage(file: FileHandle): Promise<RafsImage> {
  const { size } = await file.stat();
  const read = (start: number, end: number): Promise<Buffer> => readRange(file, start, end);
  if (await carriesBootstrap(read, size)) return openImage((await loadInlineBootstrap(read, size)).bytes);
  if (size > MAX_INLINE_BOOTSTRAP) {
    throw superblockError(
      { struct: 'superblock' },
      `the file has ${size} bytes, limit ${MAX_INLINE_BOOTSTRAP}`,
    );
  }
  return openImage(await read(0, size));
}

/** Why a file cannot be opened, in upstream's words when it is not there. */
export function unreadable(path: string, error: unknown): UsageError {
  const absent = (error as { code?: unknown }).code === 'ENOENT';
  const message = absent ? `No such file or directory (os error 2): "${path}"` : messageOf(error);
  return new UsageError(message, { exitCode: 1, cause: error });
}

/**
 * Open a source. Its bytes are in memory afterwards, the file is closed.
 *
 * @throws UsageError exit 1  the file cannot be read
 * @throws FormatError `invalid RAFS superblock: ...`, the message ends with the path
 */
export async function openMergeSource(path: string): Promise<MergeSource> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    return { path, image: await readImage(file) };
  } catch (error) {
    if (error instanceof FormatError) error.message += ` ("${path}")`;
    throw error;
  } finally {
    await file.close();
  }
}
