// Groups of processes for guardians: one that no service manager ends with the daemon, and one that is frozen, in which not even
// kill -9 is heard. Source: cgroups(7), Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst.
import {
  closeSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createMount } from '../../native/mount-api.ts';

const GROUP = 'nydusd-guardians';
/** The namespace of process ids that nothing above can end as a whole. Source: include/linux/proc_ns.h, PROC_PID_INIT_INO */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';
/** How long the kernel may take to freeze a process that sleeps, ms. */
const FREEZE_MS = 1000;
const STEP_MS = 1;

interface Hierarchy {
  path: string;
  /** `cgroup` is version 1, with the names of its controllers among the options */
  type: string;
  options: string[];
}

function hierarchies(): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    const [type = '', , options = ''] = fields.slice(fields.indexOf('-') + 1);
    if (type === 'cgroup' || type === 'cgroup2')
      found.push({ path: fields[4] ?? '', type, options: options.split(',') });
  }
  return found;
}

/**
 * Move a process out of the group that the daemon is in: a service manager that ends the daemon ends everything in its group.
 *
 * @returns false where that may not be done, or there are no such groups
 */
export function moveToOwnGroup(pid: number): boolean {
  // the groups that service managers use: version 2, or systemd's own hierarchy of version 1
  const managed = hierarchies().filter(
    ({ type, options }) => type === 'cgroup2' || options.includes('name=systemd'),
  );
  const moved = managed.map(({ path }) => {
    try {
      mkdirSync(join(path, GROUP), { recursive: true });
      writeFileSync(join(path, GROUP, 'cgroup.procs'), String(pid));
      return true;
    } catch {
      return false;
    }
  });
  return moved.length > 0 && moved.every(Boolean);
}

/** Processes in the groups that guardians are in, frozen or not; those of other kinds of daemons among them. */
export function guardianPids(): number[] {
  const pids = new Set<number>();
  for (const { path, type, options } of hierarchies()) {
    if (type !== 'cgroup2' && !options.includes('name=systemd')) continue;
    try {
      const lines = readFileSync(join(path, GROUP, 'cgroup.procs'), 'latin1').split('\n');
      for (const line of lines.filter((each) => /^\d+$/.test(each))) pids.add(Number(line));
    } catch {
      // no guardian has been there yet
    }
  }
  try {
    const frozen = withFreezer((root) => readdirSync(join(root, GROUP)));
    for (const name of frozen.filter((each) => /^\d+$/.test(each))) pids.add(Number(name));
  } catch {
    // no such group, or not permitted here
  }
  return [...pids];
}

/** The freezer of version 1 where it is mounted, or a mount of our own that is nowhere to be seen. Version 2 lets SIGKILL through. */
function withFreezer<T>(act: (root: string) => T): T {
  const mounted = hierarchies().find(({ type, options }) => type === 'cgroup' && options.includes('freezer'));
  if (mounted !== undefined) return act(mounted.path);
  const mount = createMount('cgroup', [['source', 'nydusd-freezer'], ['freezer']], 0);
  try {
    return act(`/proc/self/fd/${mount}`);
  } finally {
    closeSync(mount);
  }
}

/**
 * Whether guardians are to be frozen. Not inside a container: its end would wait for a process that does not end. `NYDUSD_FREEZE=0`
 * forbids it.
 */
export function mayFreeze(): boolean {
  return process.env['NYDUSD_FREEZE'] !== '0' && readlinkSync('/proc/self/ns/pid') === FIRST_PID_NAMESPACE;
}

const groupOf = (root: string, pid: number): string => join(root, GROUP, String(pid));
const stateOf = (group: string): string => readFileSync(join(group, 'freezer.state'), 'latin1').trim();
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Groups of processes that are gone; a crash leaves them. */
function sweep(root: string): void {
  for (const name of readdirSync(join(root, GROUP)).filter((entry) => /^\d+$/.test(entry))) {
    try {
      process.kill(Number(name), 0);
    } catch {
      removeGroup(join(root, GROUP, name));
    }
  }
}

function removeGroup(group: string): void {
  try {
    rmdirSync(group);
  } catch {
    // a process in it is about to end; the next guardian sweeps it away
  }
}

/**
 * Stop a process so that it does not even hear SIGKILL until it is thawed. Its open files can be taken all the same.
 *
 * @returns false where this cannot be done
 */
export async function freeze(pid: number): Promise<boolean> {
  if (!mayFreeze()) return false;
  try {
    withFreezer((root) => {
      const group = groupOf(root, pid);
      mkdirSync(group, { recursive: true });
      sweep(root);
      writeFileSync(join(group, 'cgroup.procs'), String(pid));
      writeFileSync(join(group, 'freezer.state'), 'FROZEN');
    });
    for (const deadline = performance.now() + FREEZE_MS; performance.now() < deadline;) {
      if (withFreezer((root) => stateOf(groupOf(root, pid))) === 'FROZEN') return true;
      await pause(STEP_MS);
    }
  } catch {
    // no such controller, or not permitted here
  }
  thaw(pid);
  return false;
}

/** Let a process go on, if it was frozen, and take its group away. */
export function thaw(pid: number): void {
  if (readlinkSync('/proc/self/ns/pid') !== FIRST_PID_NAMESPACE) return;
  try {
    withFreezer((root) => {
      const group = groupOf(root, pid);
      writeFileSync(join(group, 'freezer.state'), 'THAWED');
      try {
        writeFileSync(join(root, 'cgroup.procs'), String(pid));
      } catch {
        // what was killed while it was frozen ends now
      }
      removeGroup(group);
    });
  } catch {
    // it was not frozen
  }
}
