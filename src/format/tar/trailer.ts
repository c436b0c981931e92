// The 512-byte tar header that FOLLOWS the section it describes. Source: blob-and-cache.md 1.5.
import { FormatError } from '../../base/errors.ts';

/** Size of a trailer. */
export const TRAILER_SIZE = 512;

const SIZE_OFFSET = 124;
const SIZE_LENGTH = 12;
const CHECKSUM_OFFSET = 148;
const TYPE_OFFSET = 156;
const MAGIC_OFFSET = 257;
const GNU_MAGIC = Buffer.from('ustar  \0', 'latin1');
const MAX_OCTAL = 8 ** 11;

/** What a trailer says. */
export interface Trailer {
  name: string;
  /** bytes of the section in front of the trailer */
  size: number;
}

/** Encode a trailer, byte for byte as upstream does. */
export function encodeTrailer(name: string, size: number): Buffer {
  const bytes = Buffer.alloc(TRAILER_SIZE);
  const nameBytes = Buffer.from(name, 'latin1');
  if (nameBytes.length > 100)
    throw new FormatError({ struct: 'trailer', field: 'name' }, `${name} has more than 100 bytes`);
  if (!Number.isSafeInteger(size) || size < 0)
    throw new FormatError({ struct: 'trailer', field: 'size' }, `cannot store ${size}`);
  nameBytes.copy(bytes);
  if (size < MAX_OCTAL) bytes.write(size.toString(8).padStart(11, '0'), SIZE_OFFSET, 'latin1');
  else {
    bytes[SIZE_OFFSET] = 0x80;
    bytes.writeBigUInt64BE(BigInt(size), SIZE_OFFSET + 4);
  }
  bytes.write('00000000000', 136, 'latin1');
  bytes[TYPE_OFFSET] = 0x30;
  GNU_MAGIC.copy(bytes, MAGIC_OFFSET);
  bytes.fill(0x20, CHECKSUM_OFFSET, CHECKSUM_OFFSET + 8);
  let sum = 0;
  for (const byte of bytes) sum += byte;
  bytes.write(`${sum.toString(8).padStart(7, '0')}\0`, CHECKSUM_OFFSET, 'latin1');
  return bytes;
}

/**
 * Parse the trailer in the 512 bytes at `offset`. The checksum is not verified: upstream's readers do not either.
 *
 * @returns undefined when the bytes are no regular GNU tar header
 */
export function parseTrailer(bytes: Uint8Array, offset: number): Trailer | undefined {
  if (offset < 0 || offset + TRAILER_SIZE > bytes.length) return undefined;
  const header = Buffer.from(bytes.buffer, bytes.byteOffset + offset, TRAILER_SIZE);
  const type = header[TYPE_OFFSET];
  if (type !== 0x30 && type !== 0) return undefined;
  if (!header.subarray(MAGIC_OFFSET, MAGIC_OFFSET + GNU_MAGIC.length).equals(GNU_MAGIC)) return undefined;
  const size = parseSize(header);
  if (size === undefined) return undefined;
  const end = header.indexOf(0);
  return { name: header.toString('latin1', 0, end < 0 || end > 100 ? 100 : end), size };
}

function parseSize(header: Buffer): number | undefined {
  if (header[SIZE_OFFSET] === 0x80) {
    const size = Number(header.readBigUInt64BE(SIZE_OFFSET + 4));
    return Number.isSafeInteger(size) ? size : undefined;
  }
  const text = header
    .toString('latin1', SIZE_OFFSET, SIZE_OFFSET + SIZE_LENGTH)
    .replace(/[\0 ]+$/, '')
    .trimStart();
  return /^[0-7]{1,12}$/.test(text) ? parseInt(text, 8) : undefined;
}
