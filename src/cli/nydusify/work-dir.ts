// The work directory: made when it is missing and then removed at the end; one that was there is kept, only our own
// folder in it goes. Source: nydus-image-and-nydusify.md 8.1.
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { processMark, processRuns } from '../../build/temporary-file.ts';
import { ConvertState } from '../../convert/state.ts';

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

/** A folder of one run, which the next run of the same name goes on with if this one is killed. */
export interface RunDirectory {
  /** files of this run; empty when it starts */
  scratch: string;
  state: ConvertState;
  /** names what this run leaves beside its target while it works */
  unique: string;
  /** set to true: a failure leaves the state as a kill does */
  keep: boolean;
}

/** First line: who works here. Second line: `made` when that run made the work directory. */
const OWNER_FILE = 'owner';

interface Claimed {
  folder: string;
  unique: string;
  made: boolean;
}

/** Take the folder of a name; another one when a run of that name is at work. */
async function claim(path: string, key: string, made: boolean, log: Logger): Promise<Claimed> {
  const unique = createHash('sha256').update(key).digest('hex').slice(0, 16);
  const folder = join(path, `nydusify-${unique}`);
  const mark = (byUs: boolean): string => `${processMark()}\n${byUs ? 'made' : 'found'}\n`;
  try {
    await mkdir(folder, { mode: 0o700 });
    await writeFile(join(folder, OWNER_FILE), mark(made), { mode: 0o600 });
    return { folder, unique, made };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const [owner = '', how] = (await readFile(join(folder, OWNER_FILE), 'utf8').catch(() => '')).split('\n');
  if (processRuns(owner)) {
    log.debug('the same conversion is at work in this work directory: this one starts from nothing');
    const other = await mkdtemp(join(path, 'nydusify-'));
    return { folder: other, unique: other.slice(other.lastIndexOf('-') + 1), made };
  }
  await writeFile(join(folder, OWNER_FILE), mark(how === 'made'), { mode: 0o600 });
  return { folder, unique, made: made || how === 'made' };
}

/**
 * Run work with a folder below `path` that outlives a kill: the next run of the same `key` finds its state.
 *
 * @param key what the work is; kept as a digest only
 */
export async function withResumableDir<T>(
  path: string,
  key: string,
  log: Logger,
  work: (run: RunDirectory) => Promise<T>,
): Promise<T> {
  let claimed: Claimed;
  let run: RunDirectory;
  try {
    const made = (await mkdir(path, { recursive: true })) !== undefined;
    claimed = await claim(path, key, made, log);
    const scratch = join(claimed.folder, 'scratch');
    await rm(scratch, { recursive: true, force: true });
    await mkdir(scratch, { mode: 0o700 });
    run = { scratch, state: await ConvertState.open(claimed.folder), unique: claimed.unique, keep: false };
  } catch (error) {
    throw new UsageError(`cannot use work directory ${path}: ${messageOf(error)}`, {
      exitCode: 1,
      cause: error,
    });
  }
  let failed = true;
  try {
    const result = await work(run);
    failed = false;
    return result;
  } finally {
    if (failed && run.keep && run.state.size > 0) {
      await rm(run.scratch, { recursive: true, force: true });
      log.info(
        `${run.state.size} layers are done: the same command goes on from there, with what is in ${path}`,
      );
    } else {
      await rm(claimed.folder, { recursive: true, force: true });
      // not recursively: another run may work there by now
      if (claimed.made) await rmdir(path).catch(() => {});
    }
  }
}
