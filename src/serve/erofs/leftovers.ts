// Guardians that keep nothing any more: their daemon died, the mount was taken away by hand, and a frozen one does not even hear kill -9. Any daemon
// ends them, as soon as no superblock of theirs is left. Source: decision 0007.
import type { Logger } from '../../base/log.ts';
import { guardianPids } from '../guardian/cgroups.ts';
import { endGuardian, recordOfGuardian, startTimeOf, type ProcessIdentity } from '../guardian/guardian.ts';
import { erofsSuperblocks } from './mounted.ts';
import { readRecord, removeRecord, type FeedRecord } from './record.ts';

export interface Leftover {
  guardian: ProcessIdentity;
  /** path of its record, which may be gone */
  record: string;
}

/** Whether a guardian is of the kernel drivers: those of FUSE have records of another kind. */
const OURS = /\.(guardian|fileio)$/;

function isNamed({ guardians, former = [] }: FeedRecord, { pid, startTime }: ProcessIdentity): boolean {
  return [...guardians, ...former].some((each) => each.pid === pid && each.startTime === startTime);
}

/** Whether readers may still need the guardians of a record. Where it is not known which superblocks are meant, any is. */
function isNeeded(record: FeedRecord | undefined, superblocks: readonly string[]): boolean {
  if (record === undefined) return superblocks.length > 0;
  return record.mounts.some(({ superblock }) =>
    superblock === undefined ? superblocks.length > 0 : superblocks.includes(superblock),
  );
}

/** Guardians of this machine that nobody needs. */
export function findLeftovers(): Leftover[] {
  const found: Leftover[] = [];
  for (const pid of guardianPids()) {
    const [path, startTime] = [recordOfGuardian(pid), startTimeOf(pid)];
    if (path === undefined || startTime === undefined || !OURS.test(path)) continue;
    const guardian = { pid, startTime };
    const record = readRecord(path);
    // one that is not in its record yet is looked at by its own daemon, or ends by itself
    if (record !== undefined && !isNamed(record, guardian)) continue;
    if (!isNeeded(record, erofsSuperblocks())) found.push({ guardian, record: path });
  }
  return found;
}

/** End them, and remove their records. */
export function endLeftovers(logger: Logger): void {
  for (const { guardian, record } of findLeftovers()) {
    endGuardian(guardian);
    const left = readRecord(record);
    if (left !== undefined && isNamed(left, guardian) && !isNeeded(left, erofsSuperblocks()))
      removeRecord(record);
    logger.info(`ended process ${guardian.pid}, which kept a mount that is gone (${record})`);
  }
}
