// One reusable message: its bytes, and views of its name fields that are made once per length, so that a request
// with a name in it needs no new object.
import { allocateMemory } from '../native/memory.ts';
import { getxattrIn, inHeader } from './protocol.ts';

const MAX_NAME_BYTES = 255;
const PAGE = 4096;

/** Views of a name field at a fixed offset, one per length. */
export class NameViews {
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  readonly #views: (Uint8Array | undefined)[] = Array.from({ length: MAX_NAME_BYTES + 1 });

  constructor(bytes: Uint8Array, offset: number) {
    this.#bytes = bytes;
    this.#offset = offset;
  }

  /** The bytes of a name of this length, 0 to 255. */
  at(length: number): Uint8Array {
    return (this.#views[length] ??= this.#bytes.subarray(this.#offset, this.#offset + length));
  }
}

/** A buffer for requests or replies. */
export class MessageBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** where it lies for system calls; 0 when not from `allocate` */
  readonly address: number;
  /** a name right behind the header: LOOKUP */
  readonly names: NameViews;
  /** a name behind fuse_getxattr_in: GETXATTR */
  readonly xattrNames: NameViews;

  constructor(bytes: Uint8Array, address = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.address = address;
    this.names = new NameViews(bytes, inHeader.size);
    this.xattrNames = new NameViews(bytes, inHeader.size + getxattrIn.size);
  }

  /**
   * A buffer that system calls can address. It lives as long as the process.
   *
   * @param head length of a header; what follows it begins on a page, so that copies of data need not straddle two
   */
  static allocate(size: number, head = 0): MessageBuffer {
    const lead = head === 0 ? 0 : PAGE - head;
    const memory = allocateMemory(lead + size);
    return new MessageBuffer(memory.bytes.subarray(lead), memory.address + lead);
  }
}
