// Many open files and a text in one descriptor, so that whoever can keep one keeps them all: they lie in the queue of a socket, and
// live as long as somebody holds it. Looking leaves them there. Source: unix(7), SCM_RIGHTS, SO_PEEK_OFF; docs/failover.md.
import { closeSync, fstatSync, readFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { UsageError } from '../../base/errors.ts';
import { setNonBlocking } from '../../native/descriptor.ts';
import {
  MAX_RECEIVED_FDS,
  peekWithFds,
  peekFromStart,
  sendWithFds,
  socketPair,
} from '../../native/fd-passing.ts';
import { SystemError } from '../../native/libc.ts';
import { createMemfd } from '../../native/memfd.ts';
import { MAX_HELD } from './guardian.ts';

/** Text of a parcel: a record with the paths of as many blobs as a guardian holds. */
const MAX_TEXT = 8 * 1024 * 1024;

export interface Parcel {
  text: string;
  /** the caller's from now on */
  fds: number[];
}

/**
 * Put open files and a text into one descriptor.
 *
 * @param fds stay the caller's
 * @throws SystemError EAGAIN  more than a queue holds; ETOOMANYREFS: more than this user may have on their way
 */
export function packParcel(text: string, fds: readonly number[]): number {
  const [sender, parcel] = socketPair();
  const note = createMemfd('nydusd-handover');
  try {
    writeSync(note, text);
    setNonBlocking(sender, true);
    const all = [note, ...fds];
    for (let at = 0; at < all.length; at += MAX_RECEIVED_FDS)
      sendWithFds(sender, Buffer.of(1), all.slice(at, at + MAX_RECEIVED_FDS));
    return parcel;
  } catch (error) {
    closeSync(parcel);
    throw error;
  } finally {
    closeSync(note);
    closeSync(sender);
  }
}

/** Whether a descriptor that was handed over is a parcel: no other one is a socket. */
export function isParcel(fd: number): boolean {
  return fstatSync(fd).isSocket();
}

/**
 * Copies of what is in a parcel, which keeps it.
 *
 * @throws UsageError EINVAL it is not one of ours
 */
export function openParcel(parcel: number): Parcel {
  const fds: number[] = [];
  try {
    peekFromStart(parcel);
    for (;;) {
      const message = peekWithFds(parcel);
      fds.push(...message.fds);
      if (message.bytes.length === 0) break;
      if (fds.length > MAX_HELD + 1) throw wrong(`has more than ${MAX_HELD} descriptors`);
    }
    const note = fds.shift();
    if (note === undefined) throw wrong('is empty');
    try {
      const { size } = fstatSync(note);
      if (size > MAX_TEXT) throw wrong(`has a text of ${size} bytes, the limit is ${MAX_TEXT}`);
      return { text: readFileSync(`/proc/self/fd/${note}`, 'utf8'), fds };
    } finally {
      closeSync(note);
    }
  } catch (error) {
    for (const fd of fds) closeSync(fd);
    if (error instanceof SystemError && error.errno === constants.errno.EAGAIN)
      throw wrong('is still being written');
    throw error;
  }
}

function wrong(problem: string): UsageError {
  return new UsageError(`what was handed over ${problem}`, {
    exitCode: 1,
    hint: 'have the daemon before hand it over again: PUT /api/v1/daemon/fuse/sendfd',
  });
}
