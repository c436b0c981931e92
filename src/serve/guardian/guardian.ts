// A process that cannot crash because it does nothing: `sleep infinity`, holding descriptors that must outlive the daemon.
// Nobody talks to it: a successor takes the descriptors by their numbers. Source: DESIGN 2.1.
import { closeSync, readFileSync, writeFileSync } from 'node:fs';
import { withUsualPriority } from '../../base/thread-priority.ts';
import { openPidfd, takeDescriptor } from '../../native/pidfd.ts';
import { freeze, mayFreeze, moveToOwnGroup, thaw } from './cgroups.ts';

/** First number of the descriptors it holds; the others follow. */
export const FIRST_HELD = 3;
/** Descriptors one guardian is asked to hold at most. */
export const MAX_HELD = 1024;

/**
 * The name of one that may be frozen. The folder makes a `sleep` that goes by its name (busybox) still know what it is; the `@` tells systemd's shutdown not
 * to wait for it, which could be in vain. Source: systemd, ROOT_STORAGE_DAEMONS
 */
const FROZEN_NAME = '@nydusd-guardian/sleep';

/** Names a process beyond doubt, within one boot. */
export interface ProcessIdentity {
  pid: number;
  /** field 22 of /proc/<pid>/stat: clock ticks since boot */
  startTime: string;
}

/** Id of this boot of the machine: records of another one mean nothing. */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
}

/** Start time of a process, undefined when it is gone. */
export function startTimeOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // the name in parentheses may hold anything; the state follows it, and 19 fields on the start time
    const [state, ...fields] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' || state === 'X' ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

/** True when that process lives. */
export function isAlive({ pid, startTime }: ProcessIdentity): boolean {
  return startTimeOf(pid) === startTime;
}

/** What helps it to survive is tried; whoever may not do it has it a little less safe. */
function protect(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '-1000');
  } catch {
    // not permitted here
  }
  moveToOwnGroup(pid);
}

/**
 * Start a guardian that holds these open files, as descriptors FIRST_HELD and up, in this order.
 *
 * @param onDeath called when it ends without having been asked to
 * @param name what lists of processes show
 * @throws Error  it cannot be started
 */
export async function startGuardian(
  fds: readonly number[],
  onDeath: (identity: ProcessIdentity) => void,
  name = 'sleep',
): Promise<ProcessIdentity> {
  if (fds.length > MAX_HELD) throw new Error(`${fds.length} descriptors to hold, at most ${MAX_HELD}`);
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = withUsualPriority(() =>
    spawn('sleep', ['infinity'], {
      argv0: name,
      detached: true,
      cwd: '/',
      env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
      stdio: ['ignore', 'ignore', 'ignore', ...fds],
    }),
  );
  const { pid } = child;
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('spawn', resolve);
  });
  const startTime = pid === undefined ? undefined : startTimeOf(pid);
  if (pid === undefined || startTime === undefined) throw new Error('the guardian ended at once');
  const identity = { pid, startTime };
  child.unref();
  child.once('exit', () => onDeath(identity));
  protect(pid);
  return identity;
}

/**
 * Start guardians of which at least one outlives whatever else is killed: one that is frozen, which hears no signal; where that cannot be
 * done two, the second of which holds everything while the first is replaced.
 */
export async function startGuardians(
  fds: readonly number[],
  onDeath: (identity: ProcessIdentity) => void,
): Promise<ProcessIdentity[]> {
  const first = await startGuardian(fds, onDeath, mayFreeze() ? FROZEN_NAME : undefined);
  if (await freeze(first.pid)) return [first];
  return [first, await startGuardian(fds, onDeath)];
}

/** End a guardian, also a frozen one. Nothing happens when it is gone. */
export function endGuardian(identity: ProcessIdentity): void {
  if (!isAlive(identity)) return;
  try {
    // first: what has SIGKILL waiting ends while its group is taken away
    thaw(identity.pid);
    process.kill(identity.pid, 'SIGKILL');
  } catch {
    // it went meanwhile
  }
}

/**
 * Copies of the descriptors that a guardian holds.
 *
 * @returns undefined when there is no such process any more
 * @throws SystemError EPERM we may not look into it
 */
export function takeFromGuardian(identity: ProcessIdentity, count: number): number[] | undefined {
  if (!isAlive(identity)) return undefined;
  const pidfd = openPidfd(identity.pid);
  const taken: number[] = [];
  try {
    if (!isAlive(identity)) return undefined;
    for (let i = 0; i < count; i++) taken.push(takeDescriptor(pidfd, FIRST_HELD + i));
    return taken;
  } catch (error) {
    for (const fd of taken) closeSync(fd);
    throw error;
  } finally {
    closeSync(pidfd);
  }
}
