// All checks in their order. Source: DESIGN 2, `nydusd doctor`.
import { existsSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { messageOf } from '../../base/errors.ts';
import { readConfigFile } from '../../storage/config-parse.ts';
import {
  checkBackend,
  checkCacheDir,
  checkDrivers,
  checkFuseDevice,
  checkGuardian,
  checkKernel,
  checkLimits,
  checkPrivileges,
  type Finding,
} from './checks.ts';

export type { Finding, Verdict } from './checks.ts';

export interface DoctorOptions {
  /** configuration file: its cache and its backend are looked at */
  config?: string | undefined;
  /** further cache directories */
  caches: readonly string[];
}

/** Look at everything. Never throws: what fails is a finding. */
export async function examine({ config, caches }: DoctorOptions): Promise<Finding[]> {
  const found = [...checkKernel(), ...checkPrivileges(), ...checkFuseDevice(), ...(await checkGuardian())];
  const dirs = new Set(caches);
  const backend: Finding[] = [];
  if (config !== undefined) {
    try {
      const parsed = readConfigFile(config);
      for (const what of parsed.warnings)
        found.push({ what: 'configuration', verdict: 'limited', detail: what, advice: 'correct or drop it' });
      const dir = parsed.config.cache?.filecache?.work_dir;
      if (dir !== undefined) dirs.add(dir);
      backend.push(...(await checkBackend(parsed.config)));
    } catch (error) {
      const advice = 'see docs/cli/nydusd.md for a configuration that works';
      found.push({ what: 'configuration', verdict: 'no', detail: messageOf(error), advice });
    }
  }
  if (dirs.size === 0) dirs.add(tmpdir());
  for (const dir of dirs) {
    const made = !existsSync(dir);
    if (made) tryToMake(dir);
    const cache = checkCacheDir(dir);
    found.push(...cache);
    if (cache[0]?.verdict !== 'no') found.push(...(await checkDrivers(dir)));
  }
  return [...found, ...backend, ...checkLimits()];
}

/** nydusd creates its cache directory too. */
function tryToMake(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch {
    // the check says so
  }
}
