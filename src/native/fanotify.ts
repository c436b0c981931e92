// Pre-content events of fanotify: a reader of a marked file is held before it touches a range, until somebody answers.
// Source: fanotify(7), include/uapi/linux/fanotify.h of Linux 6.14 and later.
import { constants } from 'node:os';
import { constants as fsConstants } from 'node:fs';
import { check, libcFunction } from './libc.ts';

const FAN_CLOEXEC = 0x1;
const FAN_CLASS_PRE_CONTENT = 0x8;
const FAN_UNLIMITED_QUEUE = 0x10;
const FAN_UNLIMITED_MARKS = 0x20;
/** events carry the id of the thread, not of the process */
const FAN_REPORT_TID = 0x100;
const FAN_MARK_ADD = 0x1;
const FAN_MARK_REMOVE = 0x2;
const FAN_PRE_ACCESS = 0x10_0000;
const O_LARGEFILE = 0o100000;
const O_NOATIME = 0o1000000;
const O_CLOEXEC = 0o2000000;

/** Answer: the access goes on. */
export const FAN_ALLOW = 0x1;
const FAN_DENY = 0x2;
const ERRNO_SHIFT = 24;

/** Answer: the access fails with EIO. A plain denial would show as EPERM. */
export const FAN_DENY_EIO = FAN_DENY | (constants.errno.EIO << ERRNO_SHIFT);

type Init = (flags: number, eventFlags: number) => number;
type Mark = (group: number, flags: number, mask: number, fd: number, path: number) => number;

let markCall: Mark | undefined;

/**
 * A group for pre-content events: its descriptor, blocking, closed on exec. When the last descriptor of it is closed, the
 * kernel allows everything that waits and everything that comes.
 *
 * @throws SystemError EPERM without CAP_SYS_ADMIN, EINVAL before Linux 5.x, EMFILE when the user has too many groups
 */
export function createPreContentGroup(): number {
  const init = libcFunction<Init>('int fanotify_init(unsigned int flags, unsigned int event_f_flags)');
  const flags =
    FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_REPORT_TID;
  return check(
    'fanotify_init',
    init(flags, fsConstants.O_RDONLY | O_LARGEFILE | O_NOATIME | O_CLOEXEC),
    'pre-content',
  );
}

function mark(group: number, flags: number, fd: number): void {
  markCall ??= libcFunction<Mark>(
    'int fanotify_mark(int group, unsigned int flags, uint64_t mask, int dirfd, uintptr_t path)',
  );
  check('fanotify_mark', markCall(group, flags, FAN_PRE_ACCESS, fd, 0), 'FAN_PRE_ACCESS');
}

/**
 * Hold accesses of the file behind a descriptor. Only descriptors that are opened afterwards are held: those that were open
 * keep reading and writing freely.
 *
 * @throws SystemError EINVAL before Linux 6.14, EOPNOTSUPP on a file system without these events
 */
export function markPreContent(group: number, fd: number): void {
  mark(group, FAN_MARK_ADD, fd);
}

/** Let go of a file. Events that were sent already still wait for their answers. SystemError ENOENT: it had no mark. */
export function unmarkPreContent(group: number, fd: number): void {
  mark(group, FAN_MARK_REMOVE, fd);
}
