// Headers of the archives we write: ustar, owner 0, time 0, so that the same input gives the same bytes.
// Source: POSIX.1-2017 pax, ustar Interchange Format; GNU tar manual for sizes above 8 GiB.
import { FormatError } from '../base/errors.ts';
import { TAR_BLOCK } from '../format/tar/archive-header.ts';

const MAX_OCTAL_SIZE = 8 ** 11;
const MAX_NAME = 100;

export interface TarMember {
  /** at most 100 bytes; directories end in a slash */
  name: string;
  mode: number;
  type: 'file' | 'directory';
  size: number;
}

/** Two zero blocks end an archive. */
export const TAR_END: Uint8Array = Buffer.alloc(2 * TAR_BLOCK);

/** Zero bytes after the data of a member. */
export function padding(size: number): Uint8Array {
  return Buffer.alloc((TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK);
}

/** Header block of a member. */
export function memberHeader(member: TarMember): Buffer {
  const block = Buffer.alloc(TAR_BLOCK);
  if (Buffer.byteLength(member.name) > MAX_NAME)
    throw new FormatError(
      { struct: 'tarHeader', field: 'name' },
      `"${member.name}" has more than ${MAX_NAME} bytes`,
    );
  const octal = (value: number, offset: number, length: number): void => {
    block.write(value.toString(8).padStart(length - 1, '0'), offset, 'latin1');
  };
  block.write(member.name, 0);
  octal(member.mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  if (member.size < MAX_OCTAL_SIZE) octal(member.size, 124, 12);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(member.size), 128);
  }
  octal(0, 136, 12);
  block.fill(0x20, 148, 156);
  block.write(member.type === 'file' ? '0' : '5', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
