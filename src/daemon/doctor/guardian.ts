// May a daemon take over what a guardian holds? Tried with a process that is not our child, as a successor would find it: Yama
// lets a process look into its own children even where it may not look into others. Source: DESIGN 2.1, ptrace(2).
import { once } from 'node:events';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../base/errors.ts';
import { openPidfd, takeDescriptor } from '../../native/pidfd.ts';
import { findLeftovers } from '../../serve/erofs/leftovers.ts';
import { mayFreeze } from '../../serve/guardian/cgroups.ts';
import type { Check, CheckContext, Outcome } from './finding.ts';

/** What the driver fanotify starts. Source: decision 0007 */
const KINDS = ['two guardians per mount', 'one guardian, frozen, per mount'] as const;
/** The descriptor it holds. */
const HELD = 3;

/** Start a process that does nothing, holds a file, and is nobody's child any more. @returns its pid */
async function startHolder(fd: number, { scratch, signal }: CheckContext): Promise<number> {
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = spawn('sh', ['-c', 'sleep 60 >/dev/null 2>&1 & echo $!'], {
    stdio: ['ignore', 'pipe', 'ignore', fd],
    signal,
  });
  let text = '';
  child.stdout?.setEncoding('latin1').on('data', (piece: string) => (text += piece));
  await once(child, 'close');
  const pid = Number(text.trim());
  if (!Number.isSafeInteger(pid) || pid <= 1)
    throw new Error('no process could be started in the background');
  scratch.defer(() => process.kill(pid, 'SIGKILL'));
  return pid;
}

async function takeBack(context: CheckContext): Promise<Outcome> {
  const file = openSync(join(context.scratch.directory(), 'held'), 'w');
  try {
    const pidfd = openPidfd(await startHolder(file, context));
    try {
      const taken = takeDescriptor(pidfd, HELD);
      const same = fstatSync(taken).ino === fstatSync(file).ino;
      closeSync(taken);
      if (!same) throw new Error('another file came back');
      return {
        status: 'ok',
        detail: `a file that another process holds can be taken over (pidfd_getfd); ${KINDS[Number(mayFreeze())]}`,
      };
    } finally {
      closeSync(pidfd);
    }
  } catch (error) {
    context.signal.throwIfAborted();
    return {
      status: 'warn',
      detail: `what another process holds cannot be taken over: ${messageOf(error)}`,
      fix: 'grant CAP_SYS_PTRACE (Linux 5.6 or later); without it readers get errors when a daemon dies',
    };
  } finally {
    closeSync(file);
  }
}

/** Guardians of mounts that were given up after a crash. */
function leftovers(): Outcome {
  const found = findLeftovers();
  if (found.length === 0) return { status: 'ok', detail: 'none is left of a mount that is gone' };
  const list = found.map(({ guardian, record }) => `process ${guardian.pid} of ${record}`);
  return {
    status: 'info',
    detail: `kept for mounts that are gone: ${list.join(', ')}`,
    fix: 'nothing: the next nydusd with the driver fanotify ends them, which kill -9 may not',
  };
}

export function leftoverCheck(): Check {
  return { id: 'host.leftovers', group: 'host', name: 'leftovers', essential: false, run: leftovers };
}

export function guardianCheck(): Check {
  return { id: 'host.guardian', group: 'host', name: 'guardian', essential: false, run: takeBack };
}
