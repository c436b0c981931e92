// Getting a thread out of a blocking system call: a signal sent to that thread alone, whose handler does nothing and does
// not restart the call, so that it fails with EINTR. libuv installs its handlers with SA_RESTART, which is why signals do
// not wake a worker otherwise; siginterrupt takes that flag away again. Measured against poll() on the device and an
// eventfd with a non-blocking read: one client gets 1.4 times as many answers, and only one thread wakes per request.
// Source: signal(7) "Interruption of system calls", siginterrupt(3), tgkill(2).
import { constants } from 'node:os';
import { check, lastErrno, libcFunction, SystemError } from './libc.ts';

/** A signal that Linux itself never sends and no program uses. */
const SIGNAL = 'SIGSTKFLT';

type SigInterrupt = (signal: number, flag: number) => number;
type GetTid = () => number;
type Tgkill = (pid: number, tid: number, signal: number) => number;

let tgkill: Tgkill | undefined;
let prepared = false;

/** Install the handler, once per process. Main thread only: workers have no signal handlers in node. */
export function prepareInterrupts(): void {
  if (prepared) return;
  process.on(SIGNAL, () => {});
  const siginterrupt = libcFunction<SigInterrupt>('int siginterrupt(int sig, int flag)');
  check('siginterrupt', siginterrupt(constants.signals[SIGNAL], 1));
  prepared = true;
}

/** Kernel id of the calling thread. */
export function currentThreadId(): number {
  return libcFunction<GetTid>('int gettid(void)')();
}

/**
 * Interrupt the blocking call a thread is in. Does nothing to a thread that is about to enter one, so repeat it until
 * the thread shows that it has looked. False when there is no such thread any more.
 */
export function interruptThread(tid: number): boolean {
  tgkill ??= libcFunction<Tgkill>('int tgkill(int tgid, int tid, int sig)');
  if (tgkill(process.pid, tid, constants.signals[SIGNAL]) === 0) return true;
  const errno = lastErrno();
  if (errno === constants.errno.ESRCH) return false;
  throw new SystemError('tgkill', errno);
}
