// Does the kernel ask before EROFS reads a hole of a file on this file system? Tried, not guessed from a version: where it does not,
// readers would see zeros. A mount that is nowhere, one file, one read. Source: DESIGN 2.1.
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  read,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { messageOf, UsageError } from '../../base/errors.ts';
import { Poller, tryWrite } from '../../native/descriptor.ts';
import { createPreContentGroup, FAN_ALLOW, markPreContent } from '../../native/fanotify.ts';
import { SystemError } from '../../native/libc.ts';
import { createMount, MOUNT_ATTR_RDONLY } from '../../native/mount-api.ts';
import { EVENT_SIZE, newEvent, putResponse, readEvent, RESPONSE_SIZE } from './events.ts';
import { PROBE_FILE, probeImage, type ProbeImage } from './probe-image.ts';

/** How long the event of a read may take. */
const PATIENCE_MS = 3000;

const HINTS: Record<string, string> = {
  EPERM: 'run as root, or with CAP_SYS_ADMIN',
  EINVAL: 'Linux 6.14 or later is needed',
  ENOTSUP: 'put the cache (work_dir) on ext4, xfs or btrfs',
  ENODEV: 'the kernel has no EROFS: modprobe erofs',
  ENOTBLK: 'Linux 6.12 or later is needed, with EROFS_FS_BACKED_BY_FILE',
};

/** Take one event, fill the hole, answer. False when none comes. */
function answerOne(group: number, data: number, image: ProbeImage): boolean {
  if (new Poller([group]).wait(PATIENCE_MS) !== 1) return false;
  const buffer = Buffer.alloc(EVENT_SIZE);
  const length = readSync(group, buffer, 0, EVENT_SIZE, null);
  const view = new DataView(buffer.buffer, buffer.byteOffset, EVENT_SIZE);
  const event = newEvent();
  if (!readEvent(view, 0, length, event)) return false;
  writeSync(data, image.content, 0, image.content.length, 0);
  const response = new DataView(new ArrayBuffer(RESPONSE_SIZE));
  putResponse(response, 0, event.fd, FAN_ALLOW);
  tryWrite(group, new Uint8Array(response.buffer));
  closeSync(event.fd);
  return event.count > 0;
}

function readWhole(fd: number, size: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const buffer = Buffer.alloc(size);
    read(fd, buffer, 0, size, 0, (error, got) =>
      error === null ? resolve(buffer.subarray(0, got)) : reject(error),
    );
  });
}

async function tryOnce(dir: string): Promise<void> {
  const image = probeImage(process.pid);
  const bootstrap = join(dir, 'bootstrap');
  writeFileSync(bootstrap, image.bootstrap);
  const open: number[] = [];
  const keep = (fd: number): number => {
    open.push(fd);
    return fd;
  };
  try {
    const data = keep(openSync(join(dir, 'data'), 'w+'));
    ftruncateSync(data, image.content.length);
    const group = keep(createPreContentGroup());
    markPreContent(group, data);
    const options = [['source', bootstrap], ['device', `/proc/self/fd/${data}`], ['ro']] as const;
    const mount = keep(createMount('erofs', options, MOUNT_ATTR_RDONLY));
    const file = keep(openSync(`/proc/self/fd/${mount}/${PROBE_FILE}`, 'r'));
    const reading = readWhole(file, image.content.length); // on another thread
    const asked = answerOne(group, data, image);
    // whatever waits goes on when the group is closed
    if (!asked) closeSync(open.splice(open.indexOf(group), 1)[0] ?? -1);
    const seen = await reading;
    if (!asked) throw new UsageError('the kernel does not ask before it reads a hole of a file here');
    if (!seen.equals(image.content))
      throw new UsageError('the kernel does not see what was written meanwhile');
  } finally {
    for (const fd of open.reverse()) closeSync(fd);
  }
}

/**
 * Try the driver fanotify with a cache in this directory.
 *
 * @param dir an existing directory that can be written
 * @throws UsageError EINVAL  it does not work, why, and what to do
 */
export async function probePreContent(dir: string): Promise<void> {
  let work: string | undefined;
  try {
    work = mkdtempSync(join(dir, '.nydusd-probe-'));
    await tryOnce(work);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const code = error instanceof SystemError ? error.code : '';
    const hint = HINTS[code];
    throw new UsageError(`tried in ${dir}: ${messageOf(error)}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  } finally {
    if (work !== undefined) rmSync(work, { recursive: true, force: true });
  }
}
