// CRC-32C (Castagnoli), the CRC of these formats. zlib.crc32 is another polynomial. By @node-rs/crc32, whose addon is loaded without the
// JavaScript around it where it lies in its usual place: that looks for the C library first, which costs every daemon 6 ms.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
type Crc32c = (data: Uint8Array) => number;
let compute: Crc32c | undefined;

function load(): Crc32c {
  try {
    return (require(`@node-rs/crc32-linux-${process.arch}-gnu`) as { crc32c: Crc32c }).crc32c;
  } catch {
    return (require('@node-rs/crc32') as { crc32c: Crc32c }).crc32c; // another C library
  }
}

/** CRC-32C of the data; `123456789` gives 0xE3069283. */
export function crc32c(data: Uint8Array): number {
  compute ??= load();
  return compute(data);
}
