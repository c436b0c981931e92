// Blobs as files of a directory. Source: blob-and-cache.md 21.6; nydus-image-and-nydusify.md 9.1.
import { constants } from 'node:fs';
import { copyFile, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, messageOf } from '../../base/errors.ts';
import { temporaryName } from '../../build/temporary-file.ts';
import type { BlobStore } from './blob-store.ts';

class LocalfsStore implements BlobStore {
  readonly name: string;
  readonly #dir: string;

  constructor(dir: string) {
    this.name = dir;
    this.#dir = dir;
  }

  async has(id: string, size: number): Promise<boolean> {
    const found = await stat(join(this.#dir, id)).catch(() => undefined);
    return found?.isFile() === true && found.size === size;
  }

  async put(id: string, file: string): Promise<void> {
    const path = join(this.#dir, id);
    try {
      await sync(file);
      await rename(file, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
      // another file system: the blob gets its name when all of it is there
      const temporary = temporaryName(path);
      try {
        await copyFile(file, temporary, constants.COPYFILE_EXCL);
        await sync(temporary);
        await rename(temporary, path);
      } catch (failure) {
        await rm(temporary, { force: true });
        throw failure;
      }
    }
  }

  async close(): Promise<void> {}
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Open a directory; it is made when it is missing. @throws UsageError exit 1 */
export async function localfsStore(config: Readonly<Record<string, unknown>>): Promise<BlobStore> {
  const dir = config['dir'];
  if (typeof dir !== 'string' || dir === '')
    throw new UsageError('the configuration of backend localfs has no dir', {
      exitCode: 1,
      hint: 'write {"dir": "/path/of/blobs"}',
    });
  try {
    await mkdir(dir, { recursive: true });
  } catch (error) {
    throw new UsageError(`cannot use ${dir}: ${messageOf(error)}`, { exitCode: 1, cause: error });
  }
  return new LocalfsStore(dir);
}
