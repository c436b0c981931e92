// Names of files that are not finished, and their removal when the process that wrote them is gone. A killed build
// (SIGKILL, a full machine) cannot clean up after itself: the next build into the same directory does.
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** `.nydus-build.<place>-<pid>-<start>-<random>.tmp`: no tool takes it for a blob or a bootstrap. */
const PATTERN = /^\.nydus-build\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}\.tmp$/;
/** Files of another machine or an earlier boot have no process to ask about: they go when nobody wrote for a day. */
const ABANDONED_MS = 24 * 3600 * 1000;

let here: string | undefined;

function readOr(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

/** Where process numbers mean what they mean here: this boot of this machine, this PID namespace. */
function place(): string {
  here ??= createHash('sha256')
    .update(readOr(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')))
    .update(readOr(() => readlinkSync('/proc/self/ns/pid')))
    .digest('hex')
    .slice(0, 8);
  return here;
}

/** Start of a process in clock ticks since boot, undefined when there is none: tells a process from a later one of that number. */
function startOf(pid: number): string | undefined {
  const stat = readOr(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  // the name in parentheses may hold anything; the start is field 22, the 20th behind it
  return stat === '' ? undefined : stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

/** This process, told from every other one: for files that say who works with a directory. */
export function processMark(): string {
  return `${place()}-${process.pid}-${startOf(process.pid) ?? '0'}`;
}

/** Whether the process of a mark runs on this machine. Marks of other machines and earlier boots are of none. */
export function processRuns(mark: string): boolean {
  const [where, pid, start] = mark.trim().split('-');
  return where === place() && /^[0-9]{1,9}$/.test(pid ?? '') && startOf(Number(pid)) === start;
}

/** A name beside `path` for a file that is not finished. */
export function temporaryName(path: string): string {
  const start = startOf(process.pid) ?? '0';
  const unique = randomBytes(6).toString('hex');
  return join(dirname(path), `.nydus-build.${place()}-${process.pid}-${start}-${unique}.tmp`);
}

function isAbandoned(path: string, owner: RegExpExecArray): boolean {
  if (owner[1] === place()) return startOf(Number(owner[2])) !== owner[3];
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && Date.now() - stat.mtimeMs > ABANDONED_MS;
}

/** Remove what killed builds left in a directory. Failures do not matter: the build says itself what it cannot do. */
export function sweepAbandoned(directory: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return;
  }
  for (const name of names) {
    const owner = PATTERN.exec(name);
    if (owner === null) continue;
    const path = join(directory, name);
    try {
      if (isAbandoned(path, owner)) rmSync(path, { force: true });
    } catch {
      // somebody else's file
    }
  }
}
