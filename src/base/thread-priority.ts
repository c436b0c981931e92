// The main thread of a daemon before its workers: it answers the API and starts fetches, a moment's work each that would otherwise
// queue behind readers that saturate every core (measured in bench/many-mounts). Source: setpriority(2): on Linux a thread has a
// nice value of its own, and new threads inherit their creator's.
import { getPriority, setPriority } from 'node:os';

/** The calling thread, for `setPriority`. */
const SELF = 0;
const FOREMOST = -20;

/** the nice value that this process was started with; undefined as long as the main thread was not raised */
let usual: number | undefined;

/** Let the calling thread, the main one, go first. Nothing happens where that is not permitted (CAP_SYS_NICE). */
export function raiseMainThread(): void {
  if (usual !== undefined) return;
  const before = getPriority(SELF);
  try {
    setPriority(SELF, FOREMOST);
    usual = before;
  } catch {
    // an ordinary user: as good as before
  }
}

/** Start a thread or process that does not inherit what `raiseMainThread` did. @param start starts it before it returns */
export function withUsualPriority<T>(start: () => T): T {
  if (usual === undefined) return start();
  setPriority(SELF, usual);
  try {
    return start();
  } finally {
    setPriority(SELF, FOREMOST);
  }
}
