// How saved states are spelled: little-endian numbers, counted strings and lists, in an envelope of magic, version and
// checksum. Source: nydusd.md 12.4.
import { FormatError } from '../../base/errors.ts';
import { crc64 } from './crc64.ts';

/** Format version in the low 16 bits; the rest tells the machine. */
const MAGICS = { x64: 0x0710_1984_8664_0001n, arm64: 0x0710_1984_aaaa_0001n } as const;
const DATA_VERSION = 1;
const HEAD_SIZE = 10;
const CRC_SIZE = 8;

/** Longest string of upstream; it refuses to save a longer one (nydusd 12.4). */
export const MAX_STATE_STRING = 16_384;

/** A whole saved state: 255 mounts with configurations of the longest kind and long lists fit. */
export const MAX_STATE_SIZE = 32 * 1024 * 1024;

function magic(): bigint {
  return process.arch === 'arm64' ? MAGICS.arm64 : MAGICS.x64;
}

/** Collects the fields of a payload. */
export class StateWriter {
  readonly #parts: Buffer[] = [];
  readonly #maxString: number;

  constructor(maxString = MAX_STATE_STRING) {
    this.#maxString = maxString;
  }

  u8(value: number): void {
    this.#parts.push(Buffer.of(value));
  }

  bool(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  u32(value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.#parts.push(bytes);
  }

  u64(value: bigint | number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    this.#parts.push(bytes);
  }

  /** FormatError when it is longer than a reader takes. */
  string(name: string, value: string): void {
    const bytes = Buffer.from(value);
    if (bytes.length > this.#maxString) {
      throw new FormatError(
        { struct: 'saved state', field: name },
        `has ${bytes.length} bytes, the format allows ${this.#maxString}`,
        { hint: 'shorten the configuration of this mount' },
      );
    }
    this.bytes(bytes);
  }

  bytes(value: Uint8Array): void {
    this.u64(value.length);
    this.#parts.push(Buffer.from(value));
  }

  /** What was written, in its envelope. */
  seal(): Buffer {
    const head = Buffer.alloc(HEAD_SIZE);
    head.writeBigUInt64LE(magic());
    head.writeUInt16LE(DATA_VERSION, 8);
    const body = Buffer.concat([head, ...this.#parts]);
    const crc = Buffer.alloc(CRC_SIZE);
    crc.writeBigUInt64LE(crc64(body));
    return Buffer.concat([body, crc]);
  }
}

/** Reads the fields of a payload. Every error is a FormatError with its place. */
export class StateReader {
  readonly #struct: string;
  readonly #bytes: Buffer;
  readonly #maxString: number;
  #at = HEAD_SIZE;
  readonly #end: number;

  /** Open an envelope: magic, version and checksum are right when this returns. */
  constructor(struct: string, bytes: Buffer, maxString = MAX_STATE_STRING) {
    this.#struct = struct;
    this.#bytes = bytes;
    this.#maxString = maxString;
    this.#end = bytes.length - CRC_SIZE;
    if (bytes.length < HEAD_SIZE + CRC_SIZE) throw this.#error('size', 0, `only ${bytes.length} bytes`);
    if (bytes.length > MAX_STATE_SIZE)
      throw this.#error('size', 0, `${bytes.length} bytes, the limit is ${MAX_STATE_SIZE}`);
    const found = bytes.readBigUInt64LE();
    if (found !== magic()) {
      const other = Object.values(MAGICS).includes(found as never)
        ? ', which is that of another machine'
        : '';
      throw this.#error('magic', 0, `0x${found.toString(16)}, not 0x${magic().toString(16)}${other}`);
    }
    const version = bytes.readUInt16LE(8);
    if (version !== DATA_VERSION) throw this.#error('version', 8, `${version}, known is ${DATA_VERSION}`);
    const stored = bytes.readBigUInt64LE(this.#end);
    const counted = crc64(bytes.subarray(0, this.#end));
    if (stored !== counted)
      throw this.#error('crc64', this.#end, `0x${stored.toString(16)}, counted 0x${counted.toString(16)}`);
  }

  #error(field: string, offset: number, problem: string): FormatError {
    return new FormatError({ struct: this.#struct, field, offset }, problem);
  }

  /** Move on; the place before. */
  #take(field: string, size: number): number {
    const at = this.#at;
    if (size > this.#end - at) throw this.#error(field, at, `${size} bytes, only ${this.#end - at} are left`);
    this.#at += size;
    return at;
  }

  u8(field: string): number {
    return this.#bytes.readUInt8(this.#take(field, 1));
  }

  bool(field: string): boolean {
    const value = this.u8(field);
    if (value > 1) throw this.#error(field, this.#at - 1, `${value} is neither 0 nor 1`);
    return value === 1;
  }

  u32(field: string): number {
    return this.#bytes.readUInt32LE(this.#take(field, 4));
  }

  u64(field: string): bigint {
    return this.#bytes.readBigUInt64LE(this.#take(field, 8));
  }

  /** A number of things. @param limit most that there may be @param size bytes that each has at least */
  count(field: string, limit: number, size: number): number {
    const at = this.#at;
    const value = this.u64(field);
    if (value > BigInt(limit)) throw this.#error(field, at, `${value}, the limit is ${limit}`);
    if (Number(value) * size > this.#end - this.#at)
      throw this.#error(field, at, `${value}, but only ${this.#end - this.#at} bytes are left`);
    return Number(value);
  }

  string(field: string): string {
    const at = this.#at;
    const bytes = this.bytes(field, this.#maxString);
    const text = bytes.toString('utf8');
    if (!Buffer.from(text).equals(bytes)) throw this.#error(field, at, 'is no UTF-8');
    return text;
  }

  bytes(field: string, limit: number): Buffer {
    const size = this.count(field, limit, 1);
    const at = this.#take(field, size);
    return this.#bytes.subarray(at, at + size);
  }

  /** Everything was read. */
  finish(): void {
    if (this.#at !== this.#end) throw this.#error('size', this.#at, `${this.#end - this.#at} bytes too many`);
  }
}
