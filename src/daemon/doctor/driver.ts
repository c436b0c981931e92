// A driver, tried as the daemon uses it: a small image is mounted with a fresh cache, read, and unmounted.
// Source: DESIGN 2: a probe, not a version check.
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, NydusError, UsageError } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import type { RafsInstance } from '../../rafs/instance.ts';
import { discardRecord } from '../../serve/erofs/left.ts';
import { PROBE_FILE, probeImage } from '../../serve/erofs/probe-image.ts';
import { recordPath } from '../../serve/erofs/record.ts';
import { parseConfig } from '../../storage/config-parse.ts';
import type { DriverInfo } from '../parts.ts';
import { realParts } from '../real-parts.ts';
import { kernelFix } from './erofs.ts';
import { chainOf, hintOf, type Check, type CheckContext, type Outcome } from './finding.ts';
import { Notes } from './notes.ts';
import { within } from './run-checks.ts';

type DriverName = DriverInfo['name'];

const HOW: Record<DriverName, string> = {
  fuse: 'a test image was mounted through FUSE and read',
  fileio: 'a test image was mounted by the kernel, its data read from a file on FUSE',
  fanotify: 'a test image was mounted by the kernel, which asked before it read what was missing',
};

interface TestImage {
  bootstrap: string;
  config: object;
  content: Buffer;
}

/** An image whose data has to be fetched, from a directory, into an empty cache. */
function prepare(home: string, workDir: string): TestImage {
  const image = probeImage(process.pid);
  const [bootstrap, blobs] = [join(home, 'bootstrap'), join(home, 'blobs')];
  mkdirSync(blobs);
  writeFileSync(bootstrap, image.bootstrap);
  writeFileSync(join(blobs, image.blobId), image.blob);
  const config = {
    version: 2,
    backend: { type: 'localfs', localfs: { dir: blobs } },
    cache: { type: 'blobcache', filecache: { work_dir: workDir } },
    rafs: { mode: 'direct' },
  };
  return { bootstrap, config, content: image.content };
}

/**
 * Mount, read, unmount.
 *
 * @returns warnings of the daemon
 * @throws what kept the driver from working
 */
async function serveOnce(driver: DriverName, cacheDir: string, context: CheckContext): Promise<string[]> {
  const { scratch, signal } = context;
  const home = scratch.directory();
  const image = prepare(home, scratch.directory(cacheDir));
  const mountpoint = scratch.mountpoint();
  const apisock = join(home, 'api.sock');
  const notes = new Notes();
  scratch.defer(() => discardRecord(recordPath(apisock, mountpoint), silentLogger));
  const options = { mountpoint, threads: 1, driver, apisock, serveOpen: false, hold: true, logger: notes };
  const session = await realParts.mount(options);
  let instance: RafsInstance | undefined;
  try {
    signal.throwIfAborted();
    const { config } = parseConfig(JSON.stringify(image.config));
    instance = await realParts.open({ bootstrap: image.bootstrap, config, id: '/', logger: notes });
    const accounting = { files: false, pattern: false, latest: false };
    const attaching = session.attach(
      '/',
      { kind: 'rafs', instance },
      { enableXattr: false, mountedAtSec: 0, accounting },
    );
    await within(attaching, signal);
    const seen = await within(readFile(join(mountpoint, PROBE_FILE)), signal);
    if (!seen.equals(image.content)) throw new UsageError('the file of the test image has other content');
    return notes.lines;
  } catch (error) {
    if (error instanceof NydusError || notes.lines.length === 0) throw error;
    throw new UsageError(`${messageOf(error)}; ${notes.lines.join('; ')}`, { cause: error });
  } finally {
    await session.unmount();
    await instance?.close();
  }
}

/** What the kernel said weighs more than the way a daemon would put it. */
function refusal(driver: DriverName, error: unknown): Outcome {
  if (driver === 'fuse') return { status: 'fail', detail: messageOf(error), fix: hintOf(error) };
  const inner = error instanceof UsageError && error.cause !== undefined ? error.cause : error;
  const fix =
    chainOf(error)
      .map(kernelFix)
      .find((known) => known !== undefined) ??
    hintOf(inner) ??
    hintOf(error);
  return { status: 'fail', detail: messageOf(inner), fix };
}

/** @param cacheDir existing directory that the cache is put into */
export function driverCheck(driver: DriverName, cacheDir: string, essential: boolean): Check {
  return {
    id: `driver.${driver}`,
    group: 'drivers',
    name: driver,
    ...(driver === 'fuse' ? {} : { subject: cacheDir }),
    essential,
    run: async (context) => {
      try {
        const warnings = await serveOnce(driver, cacheDir, context);
        if (warnings.length === 0) return { status: 'ok', detail: HOW[driver] };
        return { status: 'warn', detail: `${HOW[driver]}; ${warnings.join('; ')}` };
      } catch (error) {
        context.signal.throwIfAborted();
        return refusal(driver, error);
      }
    },
  };
}
