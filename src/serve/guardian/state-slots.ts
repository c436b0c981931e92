// Where a daemon keeps its saved state: a file in memory with two places, written in turn, so that a crash in the middle of a
// write leaves the state before it. Configurations hold credentials: they never touch a disk. Source: DESIGN 2.1.
import { readSync, writeSync } from 'node:fs';
import { createMemfd } from '../../native/memfd.ts';

/** Bytes of one place; what is not written takes no memory. */
export const SLOT_SIZE = 64 * 1024 * 1024;
/** sequence number and length, 8 bytes each */
const HEAD_SIZE = 16;

/** A new file for states. */
export function createSlots(): number {
  return createMemfd('nydusd-state');
}

/** Store a state as the newest one. @param sequence higher than that of the state before */
export function writeSlot(fd: number, sequence: number, bytes: Uint8Array): void {
  if (bytes.length > SLOT_SIZE - HEAD_SIZE)
    throw new RangeError(`a state of ${bytes.length} bytes, at most ${SLOT_SIZE - HEAD_SIZE} fit`);
  const at = (sequence % 2) * SLOT_SIZE;
  // the head goes last: it makes the bytes count
  for (let done = 0; done < bytes.length;)
    done += writeSync(fd, bytes, done, bytes.length - done, at + HEAD_SIZE + done);
  const head = Buffer.alloc(HEAD_SIZE);
  head.writeBigUInt64LE(BigInt(sequence));
  head.writeBigUInt64LE(BigInt(bytes.length), 8);
  writeSync(fd, head, 0, HEAD_SIZE, at);
}

/** States that are there, the newest first; whether one is whole shows when it is decoded. */
export function readSlots(fd: number): { sequence: number; bytes: Buffer }[] {
  const found: { sequence: number; bytes: Buffer }[] = [];
  for (const at of [0, SLOT_SIZE]) {
    const head = Buffer.alloc(HEAD_SIZE);
    if (readSync(fd, head, 0, HEAD_SIZE, at) < HEAD_SIZE) continue;
    const [sequence, length] = [head.readBigUInt64LE(), head.readBigUInt64LE(8)];
    if (
      sequence === 0n ||
      sequence > BigInt(Number.MAX_SAFE_INTEGER) ||
      length > BigInt(SLOT_SIZE - HEAD_SIZE)
    )
      continue;
    const bytes = Buffer.alloc(Number(length));
    if (readSync(fd, bytes, 0, bytes.length, at + HEAD_SIZE) < bytes.length) continue;
    found.push({ sequence: Number(sequence), bytes });
  }
  return found.sort((a, b) => b.sequence - a.sequence);
}
