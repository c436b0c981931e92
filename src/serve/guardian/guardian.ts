// A process that cannot crash because it does nothing: a shell that waits for ever, holding descriptors that must outlive the daemon.
// Nobody talks to it: a successor takes the descriptors by their numbers. Source: DESIGN 2.1.
import type { ChildProcessByStdio } from 'node:child_process';
import { closeSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { withUsualPriority } from '../../base/thread-priority.ts';
import { socketPair } from '../../native/fd-passing.ts';
import { openPidfd, takeDescriptor } from '../../native/pidfd.ts';
import { freeze, mayFreeze, moveToOwnGroup, thaw } from './cgroups.ts';

/** First number of the descriptors it holds; the others follow. */
export const FIRST_HELD = 3;
/** Descriptors one guardian is asked to hold at most. */
export const MAX_HELD = 1024;

/** What lists of processes show. The folder lets a shell that goes by its name (busybox) still know what it is. */
const NAME = 'nydusd-guardian/sh';
/** The name of one that may be frozen: the `@` tells systemd's shutdown not to wait for it, which could be in vain. Source: systemd, ROOT_STORAGE_DAEMONS */
const FROZEN_NAME = `@${NAME}`;
/** Argument before the path of the record, by which guardians are found. */
const MARK = 'nydusd-guardian';

/**
 * What it does. Its input ends when the daemon has written the record, or has died: either way it looks whether the record names it, so that a
 * `kill -9` at any moment leaves either a guardian that the next daemon finds, or none. Then it waits for a socket both ends of which it has itself.
 * Only what every shell has built in is used. Source: POSIX sh; proc(5), field 22 of stat
 */
const SCRIPT =
  'set -f; trap "" PIPE; read -r x; read -r x </proc/$$/stat; read -r y <"$1"; set -- $x; ' +
  `case $y in *'"pid":'$$',"startTime":"'\${22}'"'*) echo; exec >&-; read -r x <&2;; esac`;

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

/** A guardian that ends by itself unless its record names it. */
export interface NewGuardian {
  identity: ProcessIdentity;
  /** Call it once the record is on disk. @throws Error  the record does not name it, it has ended */
  confirm: () => Promise<void>;
}

/**
 * Start a guardian that holds these open files, as descriptors FIRST_HELD and up, in this order. It stays only once it is named in the record, in one
 * line of JSON, by its identity.
 *
 * @param record path of the record
 * @param onDeath called when it ends without having been asked to
 * @param name what lists of processes show
 * @throws Error  it cannot be started
 */
export async function startGuardian(
  fds: readonly number[],
  record: string,
  onDeath: (identity: ProcessIdentity) => void,
  name = NAME,
): Promise<NewGuardian> {
  if (fds.length > MAX_HELD) throw new Error(`${fds.length} descriptors to hold, at most ${MAX_HELD}`);
  const { spawn } = process.getBuiltinModule('node:child_process');
  const [mute, silent] = socketPair();
  let child: ChildProcessByStdio<Writable, Readable, null>;
  try {
    child = withUsualPriority(() =>
      // it is at home elsewhere
      spawn('sh', ['-c', SCRIPT, MARK, resolve(record)], {
        argv0: name,
        detached: true,
        cwd: '/',
        env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
        stdio: ['pipe', 'pipe', mute, ...fds, silent],
      }),
    ) as ChildProcessByStdio<Writable, Readable, null>;
  } finally {
    closeSync(mute);
    closeSync(silent);
  }
  const { pid, stdin, stdout } = child;
  await new Promise<void>((done, reject) => {
    child.once('error', reject);
    child.once('spawn', done);
  });
  const startTime = pid === undefined ? undefined : startTimeOf(pid);
  if (pid === undefined || startTime === undefined) throw new Error('the guardian ended at once');
  const identity = { pid, startTime };
  const found = new Promise<boolean>((done) => {
    stdout.once('data', () => done(true)).once('close', () => done(false));
  });
  stdin.on('error', () => {}); // it has ended: that is told by `confirm`
  child.once('exit', () => onDeath(identity));
  child.unref();
  protect(pid);
  const confirm = async (): Promise<void> => {
    stdin.end();
    // it prints a line when it has seen itself in the record, or ends
    if (!(await found)) throw new Error('the guardian is not in its record, and has ended');
  };
  return { identity, confirm };
}

/** Path of the record that a process was started with, when it is a guardian. */
export function recordOfGuardian(pid: number): string | undefined {
  try {
    const [, , , mark, record] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return mark === MARK ? record : undefined;
  } catch {
    return undefined;
  }
}

/** The record that makes guardians stay. */
export interface GuardianRecord {
  path: string;
  /** Put it on disk, replacing the one before as a whole. */
  write(guardians: ProcessIdentity[]): void;
}

/**
 * Start guardians of which at least one outlives whatever else is killed: one that is frozen, which hears no signal; where that cannot be
 * done two, the second of which holds everything while the first is replaced. They are in the record when this returns.
 */
export async function startGuardians(
  fds: readonly number[],
  record: GuardianRecord,
  onDeath: (identity: ProcessIdentity) => void,
): Promise<ProcessIdentity[]> {
  const first = await startRecorded(fds, record, [], onDeath, mayFreeze() ? FROZEN_NAME : undefined);
  // not before it is in the record: what is frozen does not see that the daemon has died
  if (await freeze(first.pid)) return [first];
  return [first, await startRecorded(fds, record, [first], onDeath)];
}

/** Start a guardian and write it into the record beside others. */
export async function startRecorded(
  fds: readonly number[],
  record: GuardianRecord,
  others: readonly ProcessIdentity[],
  onDeath: (identity: ProcessIdentity) => void,
  name?: string,
): Promise<ProcessIdentity> {
  const { identity, confirm } = await startGuardian(fds, record.path, onDeath, name);
  try {
    record.write([...others, identity]);
    await confirm();
    return identity;
  } catch (error) {
    endGuardian(identity);
    throw error;
  }
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
