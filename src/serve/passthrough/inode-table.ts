// Inodes of a shared directory that the kernel knows: one table for all threads, in shared memory. A node id is a slot; a slot
// holds an O_PATH descriptor, which names the inode whatever happens to its path, and how many lookups the kernel holds of it.
import { closeFd } from '../../native/at-calls.ts';

/** Inodes the kernel may know at once: it forgets what it no longer uses. Each costs a descriptor and 32 bytes once used. */
export const MAX_INODES = 1 << 20;
const BUCKETS = 1 << 19;

/** Words before the buckets. */
const LOCK = 0;
/** first free slot + 1, 0 = none was given back */
const FREE = 1;
/** slots that were ever used */
const USED = 2;
const HEAD_WORDS = 4;

/** Words of a slot. */
const DEVICE = 0;
const INO_LOW = 1;
const INO_HIGH = 2;
const FD = 3;
const COUNT = 4;
const GENERATION = 5;
/** next slot + 1 of the same bucket, or of the free list */
const NEXT = 6;
const SLOT_WORDS = 8;

const SLOTS_AT = HEAD_WORDS + BUCKETS;
/** Bytes of a table; pages nobody touches cost nothing. */
export const INODE_TABLE_BYTES = (SLOTS_AT + MAX_INODES * SLOT_WORDS) * 4;

const UNLOCKED = 0;
const LOCKED = 1;
const WAITED_FOR = 2;

/** Number of the root's slot; it is never given back. */
export const ROOT_SLOT = 0;

/** A view of the shared table. */
export class InodeTable {
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  /** A table with its root. @param fd O_PATH descriptor, owned by the table from now on */
  static create(fd: number, device: number, inoLow: number, inoHigh: number): SharedArrayBuffer {
    const buffer = new SharedArrayBuffer(INODE_TABLE_BYTES);
    new InodeTable(buffer).lookup(fd, device, inoLow, inoHigh);
    return buffer;
  }

  #lock(): void {
    const words = this.#words;
    let seen = Atomics.compareExchange(words, LOCK, UNLOCKED, LOCKED);
    while (seen !== UNLOCKED) {
      if (seen === WAITED_FOR || Atomics.compareExchange(words, LOCK, LOCKED, WAITED_FOR) !== UNLOCKED)
        Atomics.wait(words, LOCK, WAITED_FOR);
      seen = Atomics.compareExchange(words, LOCK, UNLOCKED, WAITED_FOR);
    }
  }

  #unlock(): void {
    const words = this.#words;
    if (Atomics.exchange(words, LOCK, UNLOCKED) === WAITED_FOR) Atomics.notify(words, LOCK, 1);
  }

  #at(slot: number): number {
    return SLOTS_AT + slot * SLOT_WORDS;
  }

  #bucket(device: number, inoLow: number, inoHigh: number): number {
    const mixed = Math.imul(inoLow ^ Math.imul(device, 31) ^ Math.imul(inoHigh, 17), 0x9e37_79b1);
    return HEAD_WORDS + ((mixed >>> 13) % BUCKETS);
  }

  /**
   * Count one lookup of an inode, and give it a slot if it has none.
   *
   * @param fd O_PATH descriptor of it: kept when the inode is new, closed otherwise
   * @returns the slot, or -1 when there are MAX_INODES
   */
  lookup(fd: number, device: number, inoLow: number, inoHigh: number): number {
    const words = this.#words;
    this.#lock();
    const bucket = this.#bucket(device, inoLow, inoHigh);
    let slot = (words[bucket] ?? 0) - 1;
    while (slot >= 0 && !this.#is(slot, device, inoLow, inoHigh))
      slot = (words[this.#at(slot) + NEXT] ?? 0) - 1;
    const isNew = slot < 0;
    if (isNew) slot = this.#add(bucket, fd, device, inoLow, inoHigh);
    if (slot >= 0) words[this.#at(slot) + COUNT] = (words[this.#at(slot) + COUNT] ?? 0) + 1;
    this.#unlock();
    if (!isNew || slot < 0) closeFd(fd);
    return slot;
  }

  #is(slot: number, device: number, inoLow: number, inoHigh: number): boolean {
    const words = this.#words;
    const at = this.#at(slot);
    return (
      words[at + INO_LOW] === (inoLow | 0) &&
      words[at + INO_HIGH] === (inoHigh | 0) &&
      words[at + DEVICE] === (device | 0)
    );
  }

  #add(bucket: number, fd: number, device: number, inoLow: number, inoHigh: number): number {
    const words = this.#words;
    let slot = (words[FREE] ?? 0) - 1;
    if (slot >= 0) words[FREE] = words[this.#at(slot) + NEXT] ?? 0;
    else {
      slot = words[USED] ?? 0;
      if (slot >= MAX_INODES) return -1;
      words[USED] = slot + 1;
    }
    const at = this.#at(slot);
    words[at + DEVICE] = device;
    words[at + INO_LOW] = inoLow;
    words[at + INO_HIGH] = inoHigh;
    words[at + FD] = fd;
    words[at + COUNT] = 0;
    words[at + GENERATION] = (words[at + GENERATION] ?? 0) + 1;
    words[at + NEXT] = words[bucket] ?? 0;
    words[bucket] = slot + 1;
    return slot;
  }

  /** Descriptor of a slot; -1 when the kernel cannot know it. */
  fd(slot: number): number {
    const at = this.#at(slot);
    if (slot < 0 || slot >= (this.#words[USED] ?? 0) || (this.#words[at + COUNT] ?? 0) <= 0) return -1;
    return this.#words[at + FD] ?? -1;
  }

  generation(slot: number): number {
    return this.#words[this.#at(slot) + GENERATION] ?? 0;
  }

  /** Inodes the kernel knows, the root among them. */
  get size(): number {
    const words = this.#words;
    let count = 0;
    for (let slot = 0; slot < (words[USED] ?? 0); slot++)
      if ((words[this.#at(slot) + COUNT] ?? 0) > 0) count++;
    return count;
  }

  /** The kernel takes lookups back; the last one closes the descriptor. */
  forget(slot: number, lookups: number): void {
    if (slot === ROOT_SLOT || this.fd(slot) < 0) return;
    const words = this.#words;
    this.#lock();
    const at = this.#at(slot);
    const left = Math.max(0, (words[at + COUNT] ?? 0) - lookups);
    words[at + COUNT] = left;
    const fd = left === 0 ? (words[at + FD] ?? -1) : -1;
    if (left === 0) this.#remove(slot, at);
    this.#unlock();
    if (fd >= 0) closeFd(fd);
  }

  #remove(slot: number, at: number): void {
    const words = this.#words;
    const bucket = this.#bucket(words[at + DEVICE] ?? 0, words[at + INO_LOW] ?? 0, words[at + INO_HIGH] ?? 0);
    let link = bucket;
    while ((words[link] ?? 0) !== slot + 1) link = this.#at((words[link] ?? 0) - 1) + NEXT;
    words[link] = words[at + NEXT] ?? 0;
    words[at + FD] = -1;
    words[at + NEXT] = words[FREE] ?? 0;
    words[FREE] = slot + 1;
  }

  /** Close all descriptors. Nobody may use the table afterwards. */
  close(): void {
    const words = this.#words;
    for (let slot = 0; slot < (words[USED] ?? 0); slot++) {
      const at = this.#at(slot);
      if ((words[at + COUNT] ?? 0) > 0) closeFd(words[at + FD] ?? -1);
      words[at + COUNT] = 0;
    }
  }
}
