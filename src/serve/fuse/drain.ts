// What becomes of requests that a daemon before has read and not answered. Source: nydusd.md 12.5; kernel fs/fuse/dev.c,
// fuse_notify_resend (Linux 6.9). The files below /proc and /sys are those of kernels that have such a patch instead.
import { writeFileSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import { resendRequests } from './notifications.ts';
import type { FailoverPolicy } from './connection.ts';

const CONTROL = ['/proc/sys/fs/fuse/connections', '/sys/fs/fuse/connections'];

function command(connectionId: number, name: 'resend' | 'flush'): void {
  const problems: string[] = [];
  for (const directory of CONTROL) {
    try {
      writeFileSync(`${directory}/${connectionId}/${name}`, '1', { flag: 'r+' });
      return;
    } catch (error) {
      problems.push(messageOf(error));
    }
  }
  throw new Error(problems.join('; '));
}

/** Apply a policy to a connection. @throws Error the kernel cannot */
export async function drainConnection(
  policy: FailoverPolicy,
  fd: number,
  connectionId: number,
): Promise<void> {
  if (policy === 'none') return;
  if (policy === 'flush') {
    command(connectionId, 'flush');
    return;
  }
  try {
    await resendRequests(fd);
  } catch (error) {
    try {
      command(connectionId, 'resend');
    } catch (other) {
      throw new Error(`${messageOf(error)}; ${messageOf(other)}`, { cause: error });
    }
  }
}
