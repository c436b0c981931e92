// Events that were read and not answered, in memory that outlives this process: a successor answers them. The kernel writes
// events straight into it, so no moment of a kill loses one. Layout: a header page, the buffer of read(2), then slots.
import { closeSync, fstatSync, ftruncateSync } from 'node:fs';
import { FormatError } from '../../base/errors.ts';
import { addressOf } from '../../native/file-io.ts';
import { createMemfd } from '../../native/memfd.ts';
import { mapFd, type Mapping } from '../../native/mmap.ts';
import { EVENT_SIZE, newEvent, readEvent } from './events.ts';

const MAGIC = 0x4e59_4a31;
const READ_AT = 4096;
/** Events taken with one read. */
const READ_EVENTS = 32;
export const READ_SIZE = READ_EVENTS * EVENT_SIZE;
const SLOTS_AT = 8192;
const SLOT_SIZE = 32;
/** Events that may wait for their data at one time: more readers wait in the kernel's queue. */
export const MAX_PENDING = 4096;
const SIZE = SLOTS_AT + MAX_PENDING * SLOT_SIZE;

/** words of a slot: state, fd, blob; doubles at 16: offset, count */
const STATE = 0;
const FD = 1;
const BLOB = 2;
const OFFSET = 2;
const COUNT = 3;

/** A blob that is not known. */
export const UNKNOWN_BLOB = -1;

/** An event that waits for its answer. */
export interface PendingEvent {
  /** place in the journal */
  slot: number;
  fd: number;
  /** number of the blob in the feed, or UNKNOWN_BLOB */
  blob: number;
  offset: number;
  /** -1 when the kernel named no range */
  count: number;
}

/** The journal as one thread sees it. One thread takes slots, another one gives them back. */
export class Journal {
  readonly fd: number;
  readonly #mapping: Mapping;
  readonly #words: Int32Array;
  readonly #doubles: Float64Array;
  /** what events are read into */
  readonly read: { address: number; view: DataView; bytes: Uint8Array };
  #next = 0;

  /**
   * Look at a journal; every thread for itself.
   *
   * @throws FormatError the file is none
   */
  constructor(fd: number) {
    this.fd = fd;
    if (fstatSync(fd).size !== SIZE) {
      throw new FormatError({ struct: 'journal' }, `${fstatSync(fd).size} bytes long, ${SIZE} expected`);
    }
    this.#mapping = mapFd(fd, SIZE, true);
    const { bytes } = this.#mapping;
    const { buffer, byteOffset } = bytes;
    this.#words = new Int32Array(buffer, byteOffset, SIZE / 4);
    this.#doubles = new Float64Array(buffer, byteOffset, SIZE / 8);
    if (this.#words[0] !== MAGIC) {
      this.#mapping.unmap();
      throw new FormatError({ struct: 'journal', field: 'magic' }, `is ${this.#words[0]}, expected ${MAGIC}`);
    }
    this.read = {
      address: addressOf(bytes) + READ_AT,
      view: new DataView(buffer, byteOffset + READ_AT, READ_SIZE),
      bytes: bytes.subarray(READ_AT, READ_AT + READ_SIZE),
    };
  }

  /** A new, empty journal. */
  static create(): Journal {
    const fd = createMemfd('nydusd-events');
    try {
      ftruncateSync(fd, SIZE);
      const head = mapFd(fd, 4096, true);
      new Int32Array(head.bytes.buffer, head.bytes.byteOffset, 1)[0] = MAGIC;
      head.unmap();
      return new Journal(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Write down an event that waits.
   *
   * @returns its slot, or -1 when all are taken
   */
  add(fd: number, blob: number, offset: number, count: number): number {
    const words = this.#words;
    for (let tried = 0; tried < MAX_PENDING; tried++) {
      const slot = this.#next;
      this.#next = (slot + 1) % MAX_PENDING;
      const at = (SLOTS_AT + slot * SLOT_SIZE) / 4;
      if (Atomics.load(words, at + STATE) !== 0) continue;
      words[at + FD] = fd;
      words[at + BLOB] = blob;
      this.#doubles[at / 2 + OFFSET] = offset;
      this.#doubles[at / 2 + COUNT] = count;
      Atomics.store(words, at + STATE, 1);
      return slot;
    }
    return -1;
  }

  /** An event has its answer; -1 = it never had a slot. Close its descriptor afterwards, not before. */
  settle(slot: number): void {
    if (slot >= 0) Atomics.store(this.#words, (SLOTS_AT + slot * SLOT_SIZE) / 4 + STATE, 0);
  }

  /** What a process that ended left without an answer, each with a slot now. Call before anything is read. */
  left(): PendingEvent[] {
    const found = new Map<number, PendingEvent>();
    const event = newEvent();
    for (let at = 0; readEvent(this.read.view, at, READ_SIZE, event); at += event.length) {
      const { fd, offset, count } = event;
      if (fd >= 0) found.set(fd, { slot: -1, fd, blob: UNKNOWN_BLOB, offset, count });
    }
    for (let slot = 0; slot < MAX_PENDING; slot++) {
      const at = (SLOTS_AT + slot * SLOT_SIZE) / 4;
      if (Atomics.load(this.#words, at + STATE) === 0) continue;
      const fd = this.#words[at + FD] ?? -1;
      const blob = this.#words[at + BLOB] ?? UNKNOWN_BLOB;
      const offset = this.#doubles[at / 2 + OFFSET] ?? 0;
      const count = this.#doubles[at / 2 + COUNT] ?? 0;
      found.set(fd, { slot, fd, blob, offset, count });
    }
    for (const event of found.values()) {
      if (event.slot < 0) event.slot = this.add(event.fd, event.blob, event.offset, event.count);
    }
    this.read.bytes.fill(0);
    return [...found.values()];
  }

  /** Unmap. The descriptor stays open. */
  close(): void {
    this.#mapping.unmap();
  }
}
