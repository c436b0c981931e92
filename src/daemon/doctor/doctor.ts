// What `nydusd doctor` looks at, and what follows from what it sees.
import { accessSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import type { DriverChoice } from '../../storage/config.ts';
import { backendCheck } from './backend.ts';
import { cacheChecks, existingParent } from './cache-dir.ts';
import { configurationChecks, tryReadConfig } from './configuration.ts';
import { driverCheck } from './driver.ts';
import { erofsChecks } from './erofs.ts';
import type { Check, Finding, Report } from './finding.ts';
import { guardianCheck, leftoverCheck } from './guardian.ts';
import { hostChecks } from './host.ts';
import { runChecks } from './run-checks.ts';

export interface DoctorOptions {
  /** configuration file to check as well */
  config?: string | undefined;
  /** directories for caches; none: that of the configuration, else one for temporary files on a disk */
  cacheDirs: readonly string[];
  /** driver that must work; none: that of the configuration, else fuse */
  driver?: DriverChoice | undefined;
  /** IMAGE_PULL_AUTH of the environment */
  imagePullAuth?: string | undefined;
}

/** `/tmp` is memory on many machines; caches are not there. */
const DISK_DIR = '/var/tmp';

function isWritable(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What is to be done on this machine for these options. */
function planChecks(options: DoctorOptions): { checks: Check[]; driver: DriverChoice } {
  const read =
    options.config === undefined ? undefined : tryReadConfig(options.config, options.imagePullAuth);
  const config = read?.parsed?.config;
  const driver = options.driver ?? config?.driver ?? 'fuse';
  const workDir = config?.cache?.filecache?.work_dir;
  const wanted = [...new Set([...(workDir === undefined ? [] : [workDir]), ...options.cacheDirs])];
  const dirs = wanted.length > 0 ? wanted : [isWritable(DISK_DIR) ? DISK_DIR : tmpdir()];
  const places = [...new Set(dirs.map(existingParent))];
  const usable = places.filter(isWritable);
  const checks = [
    ...hostChecks(),
    guardianCheck(),
    leftoverCheck(),
    driverCheck('fuse', usable[0] ?? tmpdir(), driver === 'fuse'),
    ...erofsChecks(usable[0] ?? tmpdir()),
    ...usable.flatMap((place) => [
      driverCheck('fileio', place, driver === 'fileio'),
      driverCheck('fanotify', place, driver === 'fanotify'),
    ]),
    ...dirs.flatMap((dir) => cacheChecks(dir, wanted.includes(dir))),
  ];
  if (options.config !== undefined && read !== undefined)
    checks.push(...configurationChecks(options.config, read, driver));
  if (config !== undefined) checks.push(backendCheck(config));
  return { checks, driver };
}

/** With `auto` one driver is enough. */
function anyDriver(findings: readonly Finding[]): Finding {
  const works = findings
    .filter(({ id, status }) => id.startsWith('driver.') && status !== 'fail')
    .map(({ name }) => name);
  const best = (['fanotify', 'fileio', 'fuse'] as const).find((name) => works.includes(name));
  const row = { id: 'driver.auto', group: 'drivers', name: 'auto', essential: true } as const;
  if (best !== undefined) return { ...row, status: 'ok', detail: `takes ${best} here` };
  return { ...row, status: 'fail', detail: 'no driver works here', fix: 'see above: one of them is needed' };
}

/**
 * Look at this machine.
 *
 * @throws the reason of `signal` when that was aborted; nothing is left behind
 */
export async function examine(options: DoctorOptions, signal: AbortSignal): Promise<Report> {
  const { checks, driver } = planChecks(options);
  const findings = await runChecks(checks, signal);
  if (driver === 'auto') findings.push(anyDriver(findings));
  const ok = !findings.some(({ essential, status }) => essential && status === 'fail');
  return { ok, driver, findings };
}
