// Puts a finished bootstrap where it was asked for: complete or not at all. Survives a kill: the name appears by rename.
import { createHash, randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { messageOf, UsageError } from '../base/errors.ts';

/**
 * Write a bootstrap to a file, or into a directory under the SHA-256 of its bytes.
 *
 * @returns the path written
 * @throws UsageError exit 1  neither target is given, or it cannot be written
 */
export async function placeBootstrap(
  bytes: Uint8Array,
  path: string | undefined,
  directory: string | undefined,
): Promise<string> {
  const target =
    path ??
    (directory === undefined ? undefined : join(directory, createHash('sha256').update(bytes).digest('hex')));
  if (target === undefined) {
    throw new UsageError(
      'both --bootstrap and --blob-dir are missing, please specify one to store the generated metadata blob file',
      { exitCode: 1 },
    );
  }
  const temporary = join(dirname(target), `.${randomBytes(8).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx', 0o644);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new UsageError(`failed to write bootstrap "${target}": ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
  return target;
}
