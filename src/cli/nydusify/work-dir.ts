// The work directory: made when it is missing and then removed at the end; one that was there is kept, only our own
// folder in it goes. Source: nydus-image-and-nydusify.md 8.1.
import { mkdir, mkdtemp, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, messageOf } from '../../base/errors.ts';

/** Run work with an empty folder below `path`. */
export async function withWorkDir<T>(path: string, work: (folder: string) => Promise<T>): Promise<T> {
  const existed = (await stat(path).catch(() => undefined)) !== undefined;
  let folder: string;
  try {
    await mkdir(path, { recursive: true });
    folder = await mkdtemp(join(path, 'nydusify-'));
  } catch (error) {
    throw new UsageError(`cannot use work directory ${path}: ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
    // not recursively: another run may work there by now
    if (!existed) await rmdir(path).catch(() => {});
  }
}
