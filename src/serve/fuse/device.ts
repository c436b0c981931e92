// Getting /dev/fuse mounted and unmounted: mount(2) where that is allowed, fusermount3 otherwise.
// Source: nydusd.md 10.1; golden fuse/mount-calls.txt; libfuse util/fusermount.c (_FUSE_COMMFD).
import { once } from 'node:events';
import { closeSync, constants as fsConstants, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { UsageError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { setNonBlocking } from '../../native/descriptor.ts';
import { receiveWithFds, socketPair } from '../../native/fd-passing.ts';
import { SystemError } from '../../native/libc.ts';
import {
  cloneFuseChannel,
  MNT_DETACH,
  mount,
  MS_NOATIME,
  MS_NODEV,
  MS_NOSUID,
  MS_RDONLY,
  unmount,
} from '../../native/mount.ts';
import { fuseMountOf } from './mount-info.ts';

const { EPERM, EINVAL, ENOENT } = constants.errno;

const DEVICE = '/dev/fuse';
const SOURCE = 'rafs';
/** 1 MiB of data and a page of header, as upstream asks for */
const MAX_READ = 1052672;
/** rootmode is octal: a directory */
const ROOT_MODE = '40000';

const NO_DEVICE =
  'load the fuse module (modprobe fuse); in a container, pass the device with --device /dev/fuse';
const DEVICE_MODE =
  'let users open the device, as most systems do: chmod 666 /dev/fuse; in a container its cgroup must allow it too';

function openDevice(): number {
  try {
    return openSync(DEVICE, fsConstants.O_RDWR);
  } catch (error) {
    throw new UsageError(`cannot open ${DEVICE}: ${messageOf(error)}`, {
      cause: error,
      exitCode: 1,
      hint: (error as NodeJS.ErrnoException).code === 'EACCES' ? DEVICE_MODE : NO_DEVICE,
    });
  }
}

/**
 * Mount a new FUSE connection.
 *
 * @param mountpoint an existing directory, absolute, without links
 * @returns the connection's /dev/fuse descriptor, blocking
 * @throws UsageError exit 1: no device, no permission, no such directory
 */
export async function mountDevice(mountpoint: string, logger: Logger, writable = false): Promise<number> {
  if (process.geteuid?.() !== 0) return mountByHelper(mountpoint, logger, writable);
  const fd = openDevice();
  const data =
    `default_permissions,fd=${fd},rootmode=${ROOT_MODE},user_id=${process.geteuid()},` +
    `group_id=${process.getegid?.() ?? 0},max_read=${MAX_READ},allow_other`;
  try {
    mount(SOURCE, mountpoint, 'fuse', (writable ? 0 : MS_RDONLY) | MS_NOSUID | MS_NODEV | MS_NOATIME, data);
    return fd;
  } catch (error) {
    closeSync(fd);
    if (error instanceof SystemError && error.errno === EPERM)
      return mountByHelper(mountpoint, logger, writable);
    throw new UsageError(`cannot mount at ${mountpoint}: ${messageOf(error)}`, { cause: error, exitCode: 1 });
  }
}

/** Outcome of a helper program. */
interface HelperResult {
  status: number | null;
  stderr: string;
}

async function runHelper(args: string[], commandFd?: number): Promise<HelperResult> {
  // the helper is for those who are not root: the module is not loaded for the others
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = spawn('fusermount3', args, {
    stdio: ['ignore', 'ignore', 'pipe', ...(commandFd === undefined ? [] : [commandFd])],
    env: { ...process.env, ...(commandFd === undefined ? {} : { _FUSE_COMMFD: '3' }) },
  });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stderr: stderr.trim() };
}

async function mountByHelper(mountpoint: string, logger: Logger, writable: boolean): Promise<number> {
  const options = `${writable ? 'rw' : 'ro'},nosuid,nodev,noatime,default_permissions,max_read=${MAX_READ},fsname=${SOURCE}`;
  try {
    return await helperMount(mountpoint, `${options},allow_other`);
  } catch (error) {
    if (!/allow_other/.test(messageOf(error))) throw error;
    logger.warn(
      `only this user will see ${mountpoint}: others need the line user_allow_other in /etc/fuse.conf`,
    );
    return helperMount(mountpoint, options);
  }
}

/** What to do about a complaint of fusermount3. */
function helperHint(complaint: string): { hint?: string } {
  if (complaint.includes('fuse device not found')) return { hint: NO_DEVICE };
  if (!complaint.includes(DEVICE)) {
    return complaint.includes('Permission denied')
      ? { hint: 'the mountpoint must belong to this user, or be writable for them' }
      : {};
  }
  return { hint: complaint.includes('Permission denied') ? DEVICE_MODE : NO_DEVICE };
}

async function helperMount(mountpoint: string, options: string): Promise<number> {
  const [ours, theirs] = socketPair();
  try {
    let result: HelperResult;
    try {
      result = await runHelper(['-o', options, '--', mountpoint], theirs);
    } catch (error) {
      throw new UsageError(`cannot run fusermount3: ${messageOf(error)}`, {
        cause: error,
        exitCode: 1,
        hint: 'install fuse3 (it brings a setuid fusermount3), or run as root',
      });
    }
    if (result.status !== 0) {
      throw new UsageError(`fusermount3 cannot mount at ${mountpoint}: ${result.stderr}`, {
        exitCode: 1,
        ...helperHint(result.stderr),
      });
    }
    // the helper has ended, so its message is there: this does not block
    const [fd, ...more] = receiveWithFds(ours).fds;
    more.forEach((extra) => closeSync(extra));
    if (fd === undefined) throw new UsageError('fusermount3 sent no descriptor', { exitCode: 1 });
    setNonBlocking(fd, false);
    return fd;
  } finally {
    closeSync(ours);
    closeSync(theirs);
  }
}

/** A further channel of the connection, blocking: a thread of its own can read it without waking others' replies. */
export function cloneDevice(session: number): number {
  const fd = openDevice();
  try {
    cloneFuseChannel(fd, session);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Unmount lazily. True when something was unmounted, false when nothing was mounted. */
export async function unmountDevice(mountpoint: string): Promise<boolean> {
  if (process.geteuid?.() === 0) {
    try {
      unmount(mountpoint, MNT_DETACH);
      return true;
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      if (error.errno === EINVAL || error.errno === ENOENT) return false;
      if (error.errno !== EPERM) throw error;
    }
  }
  const { status, stderr } = await runHelper(['--unmount', '--quiet', '--lazy', '--', mountpoint]);
  if (status !== 0 && stderr !== '') {
    throw new UsageError(`fusermount3 cannot unmount ${mountpoint}: ${stderr}`, { exitCode: 1 });
  }
  return status === 0;
}

/**
 * Let the kernel read further ahead in this mount than its default of 128 KiB. INIT can only lower that. Who may not write
 * there, or has no /sys, keeps the default: nothing is lost but speed.
 */
export function raiseReadAhead(mountpoint: string, bytes: number): void {
  try {
    const info = fuseMountOf(mountpoint);
    if (info?.type !== 'fuse') return;
    const setting = `/sys/class/bdi/${info.major}:${info.minor}/read_ahead_kb`;
    if (Number(readFileSync(setting, 'latin1')) * 1024 < bytes) writeFileSync(setting, String(bytes / 1024));
  } catch {
    // see above
  }
}
