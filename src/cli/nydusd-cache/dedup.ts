// The database of shared chunks beside a cache directory: what the commands of `nydusd cache` do in it.
import { realpathSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { UsageError } from '../../base/errors.ts';
import { ChunkDatabase } from '../../storage/dedup/chunk-database.ts';
import type { CommandContext, Options } from '../command.ts';

export const dedupOptions = {
  'dedup-db': {
    type: 'string',
    value: 'FILE',
    help: 'the database of shared chunks, as daemons were given it with --dedup-db',
  },
} as const satisfies Options;

/** What the database has of a cache directory. */
export class CacheRows {
  readonly #database: ChunkDatabase;
  readonly #dir: string;

  constructor(database: ChunkDatabase, workDir: string) {
    this.#database = database;
    this.#dir = realpathSync(workDir);
  }

  #path(blobId: string): string {
    return join(this.#dir, `${blobId}.blob.data`);
  }

  /** Chunks of a blob that other images may copy. */
  count(blobId: string): number {
    return this.#database.count(this.#path(blobId));
  }

  /** A blob is about to be deleted. */
  forget(blobId: string): void {
    this.#database.removeFile(this.#path(blobId));
  }

  /** Chunks of a blob are not what they should be. @param ids see `chunkIdOf` */
  refute(blobId: string, ids: readonly string[]): void {
    this.#database.remove(this.#path(blobId), ids);
  }

  /** Forget the cache files that are gone, in whatever directory. */
  prune(): void {
    this.#database.prune();
  }
}

/**
 * Do something with the database; with undefined when none is named.
 *
 * @throws UsageError exit 1  there is no such file, or it cannot be opened
 */
export async function withRows<T>(
  ctx: CommandContext,
  path: string | undefined,
  workDir: string,
  action: (rows: CacheRows | undefined) => T | Promise<T>,
): Promise<T> {
  if (path === undefined) return action(undefined);
  if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) {
    const hint = 'name the file that daemons were given with --dedup-db';
    throw new UsageError(`there is no dedup database ${path}`, { exitCode: 1, hint });
  }
  const warn = (message: string): void => void ctx.stderr.write(`${message}\n`);
  const logger = { error: warn, warn, info: warn, debug: () => {}, trace: () => {} };
  const database = ChunkDatabase.open(resolve(path), logger);
  try {
    return await action(new CacheRows(database, workDir));
  } finally {
    database.close();
  }
}
