// Kernel, privileges, memory and limits of this machine. Source: proc(5), capabilities(7).
import { readFileSync, watch } from 'node:fs';
import { arch, release, totalmem, type as osType } from 'node:os';
import { raiseFileLimit } from '../file-limit.ts';
import { getResourceLimit, RLIMIT_NOFILE } from '../../native/process.ts';
import { sizeText, type Check, type CheckContext, type Outcome } from './finding.ts';
import { Notes } from './notes.ts';

/** Bits of CapEff. Source: include/uapi/linux/capability.h */
const CAPABILITIES = { CAP_SYS_PTRACE: 19, CAP_SYS_ADMIN: 21 } as const;
/** What a daemon may need while it serves a large image, bytes. */
const ENOUGH_MEMORY = 256 * 1024 * 1024;
/** What nydusd asks for when it is not told otherwise. */
const WANTED_FILES = 1_000_000;
/** Below this, images with many layers cannot be served. */
const FEW_FILES = 4096;

/** Which of the capabilities that matter are in effect. @param status text of /proc/<pid>/status */
export function capabilitiesIn(status: string): string[] {
  const bits = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return Object.entries(CAPABILITIES)
    .filter(([, bit]) => ((bits >> BigInt(bit)) & 1n) === 1n)
    .map(([name]) => name);
}

/** How the privileges of a process are judged. */
export function judgePrivileges(uid: number, status: string): Outcome {
  const has = capabilitiesIn(status);
  const missing = Object.keys(CAPABILITIES).filter((name) => !has.includes(name));
  const who = uid === 0 ? 'root' : `user ${uid}`;
  if (missing.length === 0) return { status: 'ok', detail: `${who}, with ${has.join(' and ')}` };
  const without = `${who}, without ${missing.join(' and ')}`;
  if (missing.includes('CAP_SYS_ADMIN')) {
    return {
      status: 'warn',
      detail: `${without}: images are served by FUSE only, through fusermount3`,
      fix: 'run as root, or grant CAP_SYS_ADMIN, to have the kernel serve them',
    };
  }
  return {
    status: 'warn',
    detail: `${without}: the next daemon may not be able to take over from a guardian`,
    fix: 'grant CAP_SYS_PTRACE',
  };
}

function memory(): Outcome {
  const available = process.availableMemory();
  const limit = process.constrainedMemory();
  const capped =
    limit > 0 && limit < totalmem() ? `, this group of processes may use ${sizeText(limit)}` : '';
  const detail = `${sizeText(available)} of ${sizeText(totalmem())} available${capped}`;
  if (available >= ENOUGH_MEMORY) return { status: 'ok', detail };
  return {
    status: 'warn',
    detail,
    fix: `a daemon takes about 100 MiB: leave it ${sizeText(ENOUGH_MEMORY)}`,
  };
}

/** Tried, not only read: this process raises its own limit as the daemon does. */
function openFiles(): Outcome {
  const before = getResourceLimit(RLIMIT_NOFILE);
  const notes = new Notes();
  raiseFileLimit(WANTED_FILES, notes);
  const now = getResourceLimit(RLIMIT_NOFILE);
  const [open = '?'] = readFileSync('/proc/sys/fs/file-nr', 'latin1').trim().split(/\s+/);
  const detail = `limit ${before.soft} (soft), ${before.hard} (hard); the daemon gets ${now.soft}; ${open} files are open on this machine`;
  if (notes.lines.length === 0) return { status: 'ok', detail };
  return {
    status: now.soft < FEW_FILES ? 'warn' : 'info',
    detail,
    fix: `grant CAP_SYS_RESOURCE, or raise LimitNOFILE of the service (ulimit -n), to have ${WANTED_FILES}`,
  };
}

/** The kernel drivers learn through inotify that a mount is gone. */
async function watches({ scratch }: CheckContext): Promise<Outcome> {
  const limit = (name: string): string => {
    try {
      return readFileSync(`/proc/sys/fs/inotify/${name}`, 'latin1').trim();
    } catch {
      return '?';
    }
  };
  const detail = `max_user_watches ${limit('max_user_watches')}, max_user_instances ${limit('max_user_instances')}`;
  try {
    watch(scratch.directory()).close();
    return { status: 'ok', detail };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return {
      status: 'fail',
      detail: `${detail}: a directory cannot be watched (${code})`,
      fix: 'raise fs.inotify.max_user_instances and fs.inotify.max_user_watches with sysctl',
    };
  }
}

/** The checks that need no configuration. */
export function hostChecks(): Check[] {
  const row = (id: string, name: string, run: Check['run']): Check => {
    return { id: `host.${id}`, group: 'host', name, essential: false, run };
  };
  return [
    row('kernel', 'kernel', () => {
      return { status: 'info', detail: `${osType()} ${release()}, ${arch()}, Node.js ${process.version}` };
    }),
    row('privileges', 'privileges', () =>
      judgePrivileges(process.geteuid?.() ?? 0, readFileSync('/proc/self/status', 'latin1')),
    ),
    row('memory', 'memory', memory),
    row('open-files', 'open files', openFiles),
    row('inotify', 'inotify', watches),
  ];
}
