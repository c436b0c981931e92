// Mounting by file descriptors: options one by one and without a limit on their number, and the kernel's own words on failure.
// Source: fsopen(2), fsconfig(2), fsmount(2), move_mount(2); Linux 5.2, glibc 2.36.
import { closeSync } from 'node:fs';
import { check, lastErrno, libcFunction, SystemError } from './libc.ts';
import { readByAddress, setNonBlocking } from './descriptor.ts';
import { allocateMemory } from './memory.ts';

const FSOPEN_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const FSMOUNT_CLOEXEC = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOVE_MOUNT_BENEATH = 0x200;
const AT_FDCWD = -100;

export const MOUNT_ATTR_RDONLY = 0x1;
export const MOUNT_ATTR_NOSUID = 0x2;
export const MOUNT_ATTR_NODEV = 0x4;
export const MOUNT_ATTR_NOATIME = 0x10;

type Fsopen = (type: string, flags: number) => number;
type Fsconfig = (
  fd: number,
  command: number,
  key: string | null,
  value: string | null,
  aux: number,
) => number;
type Fsmount = (fd: number, flags: number, attributes: number) => number;
type MoveMount = (from: number, fromPath: string, to: number, toPath: string, flags: number) => number;

const MESSAGE_BYTES = 1024;

/** What the kernel said about a failed step: lines of the context, `e erofs: ...`. */
function messages(context: number): string {
  const memory = allocateMemory(MESSAGE_BYTES);
  const read = readByAddress();
  const lines: string[] = [];
  setNonBlocking(context, true);
  for (let i = 0; i < 16; i++) {
    const got = read(context, memory.address, MESSAGE_BYTES);
    if (got <= 0) break;
    lines.push(Buffer.from(memory.bytes.subarray(0, got)).toString('utf8').trim());
  }
  return lines.join('; ');
}

/** One mount option; a flag without a value. */
export type MountOption = readonly [key: string, value?: string];

/**
 * Make a mount that is nowhere yet.
 *
 * @param options in the order in which the file system shall see them; `source` among them
 * @param attributes MOUNT_ATTR_*
 * @returns its descriptor: `attachMount` it, or close it to throw it away
 * @throws SystemError with the kernel's words
 */
export function createMount(type: string, options: readonly MountOption[], attributes: number): number {
  const fsopen = libcFunction<Fsopen>('int fsopen(const char *type, unsigned int flags)');
  const fsconfig = libcFunction<Fsconfig>(
    'int fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux)',
  );
  const fsmount = libcFunction<Fsmount>('int fsmount(int fd, unsigned int flags, unsigned int attr)');
  const context = check('fsopen', fsopen(type, FSOPEN_CLOEXEC), type);
  const step = (what: string, result: number): void => {
    if (result >= 0) return;
    const errno = lastErrno();
    throw new SystemError('fsconfig', errno, `${what}: ${messages(context)}`);
  };
  try {
    for (const [key, value] of options) {
      const command = value === undefined ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
      step(`${key}=${value ?? ''}`, fsconfig(context, command, key, value ?? null, 0));
    }
    step(`${type} superblock`, fsconfig(context, FSCONFIG_CMD_CREATE, null, null, 0));
    return check('fsmount', fsmount(context, FSMOUNT_CLOEXEC, attributes), type);
  } finally {
    closeSync(context);
  }
}

/**
 * Put a mount from `createMount` at a directory. The descriptor stays open.
 *
 * @param beneath below what is mounted there, which hides it until it is unmounted (Linux 6.5)
 */
export function attachMount(mount: number, target: string, beneath = false): void {
  const move = libcFunction<MoveMount>(
    'int move_mount(int from, const char *fromPath, int to, const char *toPath, unsigned int flags)',
  );
  const flags = MOVE_MOUNT_F_EMPTY_PATH | (beneath ? MOVE_MOUNT_BENEATH : 0);
  check('move_mount', move(mount, '', AT_FDCWD, target, flags), target);
}
