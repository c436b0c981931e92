// The work directory: made when it is missing and then removed at the end; one that was there is kept, only our own
// folder in it goes. Source: nydus-image-and-nydusify.md 8.1.
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, rmdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
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

/** Says who works here. */
const OWNER_FILE = 'owner';
/**
 * Of a work directory that a run has made, so that the run after a kill, at whatever moment, knows it for one and removes it. Nobody
 * else sets the sticky bit where nobody else may write.
 */
const MADE_MODE = 0o1700;

async function makeMarked(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await mkdir(path, MADE_MODE).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
}

async function isMarked(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found !== undefined && (found.mode & 0o7777) === MADE_MODE;
}

interface Claimed {
  folder: string;
  unique: string;
}

/** Take the folder of a name; another one when a run of that name is at work. */
async function claim(path: string, key: string, log: Logger): Promise<Claimed> {
  const unique = createHash('sha256').update(key).digest('hex').slice(0, 16);
  const folder = join(path, `nydusify-${unique}`);
  try {
    await mkdir(folder, { mode: 0o700 });
    await writeFile(join(folder, OWNER_FILE), `${processMark()}\n`, { mode: 0o600 });
    return { folder, unique };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const owner = await readFile(join(folder, OWNER_FILE), 'utf8').catch(() => '');
  if (processRuns(owner)) {
    log.debug('the same conversion is at work in this work directory: this one starts from nothing');
    const other = await mkdtemp(join(path, 'nydusify-'));
    return { folder: other, unique: other.slice(other.lastIndexOf('-') + 1) };
  }
  await writeFile(join(folder, OWNER_FILE), `${processMark()}\n`, { mode: 0o600 });
  return { folder, unique };
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
    await makeMarked(path);
    claimed = await claim(path, key, log);
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
      if (await isMarked(path)) await rmdir(path).catch(() => {});
    }
  }
}
