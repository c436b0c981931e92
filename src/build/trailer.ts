// The 512-byte GNU tar header behind each section of a blob. Source: blob-and-cache.md 1.5.

const TRAILER_SIZE = 512;
const MAX_OCTAL_SIZE = 0o77777777777;

/** Trailer of a section of `size` bytes. */
export function encodeTrailer(name: string, size: number): Buffer {
  const header = Buffer.alloc(TRAILER_SIZE);
  header.write(name, 0, 100, 'latin1');
  if (size <= MAX_OCTAL_SIZE) header.write(size.toString(8).padStart(11, '0'), 124, 'latin1');
  else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(size), 128);
  }
  header.write('00000000000', 136, 'latin1');
  header.write('        ', 148, 'latin1');
  header[156] = 0x30;
  header.write('ustar  ', 257, 'latin1');
  let sum = 0;
  for (const byte of header) sum += byte;
  header.write(sum.toString(8).padStart(7, '0'), 148, 'latin1');
  header[155] = 0;
  return header;
}
