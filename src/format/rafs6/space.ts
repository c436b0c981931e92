// Where inodes, directory data and targets lie in the metadata area of a v6 bootstrap: a cursor and queues of blocks with
// room at their end. All positions are relative to the start of the area. Source: rafs-metadata.md 4.15.
import { alignUp } from '../../base/bytes.ts';

const SLOT = 32;

/** First in, first out, without moving elements at each removal. */
class Queue {
  #items: number[] = [];
  #head = 0;

  get empty(): boolean {
    return this.#head === this.#items.length;
  }

  push(item: number): void {
    this.#items.push(item);
  }

  shift(): number | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head++];
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }
}

/** Place of one directory or symlink. */
export interface DataPlace {
  inode: number;
  /** first data byte outside the inode; for fully inlined data the cursor at that time */
  data: number;
  inline: boolean;
}

/** The allocator; one for each bootstrap that is written. */
export class SpaceAllocator {
  readonly #blockSize: number;
  readonly #queues: (Queue | undefined)[];
  /** end of what has been handed out; the first block stays unused so that no inode has nid 0 */
  end: number;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
    this.#queues = Array.from({ length: blockSize / SLOT }, () => undefined);
    this.end = 4096;
  }

  /** Remember the free end of the block that `position` lies in. */
  #put(position: number): void {
    const used = position % this.#blockSize;
    if (used === 0) return;
    const number = Math.floor((this.#blockSize - used) / SLOT);
    (this.#queues[number] ??= new Queue()).push(position - used);
  }

  /** A place of `size` bytes in a partly used block, or undefined. */
  #take(size: number): number | undefined {
    if (size >= this.#blockSize) return undefined;
    const slots = Math.ceil(size / SLOT);
    for (let i = slots; i < this.#queues.length; i++) {
      const block = this.#queues[i]?.shift();
      if (block === undefined) continue;
      const place = block + this.#blockSize - SLOT * i;
      this.#put(place + SLOT * slots);
      return place;
    }
    return undefined;
  }

  #closeBlock(): void {
    this.#put(this.end);
    this.end = alignUp(this.end, this.#blockSize);
  }

  /** Place a directory or symlink: `inodeSize` = header and xattrs, `dataSize` = dirents or target. */
  placeWithData(inodeSize: number, dataSize: number): DataPlace {
    const tail = dataSize % this.#blockSize;
    let inode: number;
    let data: number;
    const inline = tail !== 0 && inodeSize + tail <= this.#blockSize;
    if (inline) {
      const size = inodeSize + tail;
      const taken = this.#take(size);
      if (taken === undefined) {
        if (this.#blockSize - (this.end % this.#blockSize) < size) this.#closeBlock();
        inode = this.end;
        this.end += size;
      } else inode = taken;
      if (dataSize !== tail) this.#closeBlock();
      data = this.end;
      this.end += dataSize - tail;
    } else {
      const taken = this.#take(inodeSize);
      if (taken === undefined) {
        inode = this.end;
        this.end += inodeSize;
      } else inode = taken;
      this.#closeBlock();
      data = this.end;
      this.end = alignUp(this.end + dataSize, this.#blockSize);
    }
    this.end = alignUp(this.end, SLOT);
    return { inode, data, inline };
  }

  /** Place a regular file: header, xattrs and chunk indexes. */
  placeFile(size: number): number {
    const place = this.#take(size) ?? this.#advance(size);
    this.end = alignUp(this.end, SLOT);
    return place;
  }

  /** Place a device, fifo or socket; these never fill holes. */
  placeSpecial(size: number): number {
    const place = this.#advance(size);
    this.end = alignUp(this.end, SLOT);
    return place;
  }

  #advance(size: number): number {
    const place = this.end;
    this.end += size;
    return place;
  }
}
