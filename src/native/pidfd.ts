// Open files of another process, taken without asking it: how a successor gets what a guardian holds.
// Source: pidfd_open(2), pidfd_getfd(2); Linux 5.6, glibc 2.36. Needs CAP_SYS_PTRACE over that process, or its user.
import { check, libcFunction } from './libc.ts';

type PidfdOpen = (pid: number, flags: number) => number;
type PidfdGetfd = (pidfd: number, fd: number, flags: number) => number;

/** A descriptor of a process, closed on exec. SystemError ESRCH: there is none. */
export function openPidfd(pid: number): number {
  return check('pidfd_open', libcFunction<PidfdOpen>('int pidfd_open(int pid, unsigned int flags)')(pid, 0));
}

/** A copy of a descriptor of that process: the same open file. SystemError EPERM, EBADF. */
export function takeDescriptor(pidfd: number, fd: number): number {
  const getfd = libcFunction<PidfdGetfd>('int pidfd_getfd(int pidfd, int fd, unsigned int flags)');
  return check('pidfd_getfd', getfd(pidfd, fd, 0), `descriptor ${fd}`);
}
