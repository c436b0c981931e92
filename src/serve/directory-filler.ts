// Writes directory entries into a READDIR or READDIRPLUS reply. One object and one visitor per thread, reused.
// Source: include/uapi/linux/fuse.h, struct fuse_dirent, fuse_direntplus; DT_ numbers of dirent.h.
import type { DirVisitor } from '../format/image.ts';
import { ENTERED } from './access-log.ts';
import type { MessageBuffer } from './message-buffer.ts';
import { attr, dirent, entryOut, offsetsOf } from './protocol.ts';
import type { ServedImage } from './served-image.ts';

const D = offsetsOf(dirent);
const PLUS_HEAD = entryOut.size + attr.size;
const DOT = 0x2e;

/** DT_ number by EROFS file type: regular, directory, char, block, FIFO, socket, symlink. */
const DT = Uint8Array.of(0, 8, 4, 2, 6, 1, 12, 10);

/** Fills a reply with entries until it is full. */
export class DirectoryFiller {
  /** give this to RafsImage.readdir after `start` */
  readonly visit: DirVisitor;
  readonly #lookups: Float64Array;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #bytes: Uint8Array = new Uint8Array(0);
  #image: ServedImage | undefined;
  #plus = false;
  #start = 0;
  #at = 0;
  #end = 0;

  constructor(lookups: Float64Array) {
    this.#lookups = lookups;
    this.visit = (ino, name, fileType, cookie) => this.#add(ino, name, fileType, cookie);
  }

  /** Begin a reply: entries of `image` go to bytes `start` to `end` of the buffer. */
  start(image: ServedImage, buffer: MessageBuffer, start: number, end: number, plus: boolean): void {
    this.#image = image;
    this.#view = buffer.view;
    this.#bytes = buffer.bytes;
    this.#start = start;
    this.#at = start;
    this.#end = end;
    this.#plus = plus;
  }

  /** Bytes written since `start`. */
  get filled(): number {
    return this.#at - this.#start;
  }

  #add(ino: number, name: Uint8Array, fileType: number, cookie: number): boolean {
    const image = this.#image;
    if (image === undefined) return false;
    const head = this.#plus ? PLUS_HEAD : 0;
    const size = (head + dirent.size + name.length + 7) & ~7;
    const at = this.#at;
    if (at + size > this.#end) return false;
    const view = this.#view;
    if (this.#plus) this.#addAttributes(image, ino, name);
    const entry = at + head;
    image.putNode(view, entry + D.ino, ino);
    view.setUint32(entry + D.off, cookie >>> 0, true);
    view.setUint32(entry + D.off + 4, Math.floor(cookie / 0x1_0000_0000), true);
    view.setUint32(entry + D.namelen, name.length, true);
    view.setUint32(entry + D.type, DT[fileType] ?? 0, true);
    const bytes = this.#bytes;
    let to = entry + dirent.size;
    for (let i = 0; i < name.length; i++) bytes[to++] = name[i] ?? 0;
    while (to < at + size) bytes[to++] = 0;
    this.#at = at + size;
    return true;
  }

  #addAttributes(image: ServedImage, ino: number, name: Uint8Array): void {
    try {
      image.putEntry(this.#view, this.#at, ino);
    } catch {
      // A broken inode must not hide its neighbours: node id 0 = no attributes here, the kernel asks when it needs them.
      this.#bytes.fill(0, this.#at, this.#at + PLUS_HEAD);
      return;
    }
    image.accessLog?.add(image.index, ENTERED, ino, 0, false);
    // the kernel counts a lookup for each entry but `.` and `..`
    const dots = name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
    if (!dots) this.#lookups[image.index] = (this.#lookups[image.index] ?? 0) + 1;
  }
}
