// The service manager as one more guardian: it keeps an open file for a service and gives it to the next process of it.
// Source: sd_notify(3) FDSTORE, FDSTOREREMOVE, FDPOLL; sd_listen_fds(3); systemd.service(5) FileDescriptorStoreMax.
import { closeSync, fstatSync } from 'node:fs';
import { duplicateDescriptor } from '../../native/descriptor.ts';
import { sendWithFds } from '../../native/fd-passing.ts';
import { connectUnix } from '../../native/unix-socket.ts';

/** First descriptor that a manager gives to a service. */
const LISTEN_FIRST = 3;
/** Descriptors that a manager may give at most. Source: systemd, DEFAULT file descriptor store limits are far below */
const MAX_LISTEN = 4096;

/** Tell the manager something. False where there is none, or it does not listen. */
function notify(text: string, fds: readonly number[] = []): boolean {
  const path = process.env['NOTIFY_SOCKET'] ?? '';
  if (!/^[/@]/.test(path)) return false;
  try {
    const socket = connectUnix(path, 'datagram');
    try {
      sendWithFds(socket, Buffer.from(text), fds);
      return true;
    } finally {
      closeSync(socket);
    }
  } catch {
    return false;
  }
}

/**
 * Have the manager keep an open file, in the place of the one it kept under this name.
 *
 * @returns false where there is no manager. Whether it keeps any (`FileDescriptorStoreMax=`) it does not say.
 */
export function storeWithManager(name: string, fd: number): boolean {
  // FDPOLL: a socket whose other end is closed would be dropped at once
  return forgetByManager(name) && notify(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, [fd]);
}

/** The manager need not keep it any more. */
export function forgetByManager(name: string): boolean {
  return notify(`FDSTOREREMOVE=1\nFDNAME=${name}`);
}

/** What the manager kept under a name for the process before, as the caller's descriptor. */
export function takeFromManager(name: string): number | undefined {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = process.env;
  const count = Number(LISTEN_FDS);
  if (Number(LISTEN_PID) !== process.pid || !Number.isSafeInteger(count) || count > MAX_LISTEN)
    return undefined;
  const at = LISTEN_FDNAMES.split(':').lastIndexOf(name);
  if (at < 0 || at >= count) return undefined;
  try {
    fstatSync(LISTEN_FIRST + at);
    return duplicateDescriptor(LISTEN_FIRST + at);
  } catch {
    return undefined; // it was closed
  }
}
