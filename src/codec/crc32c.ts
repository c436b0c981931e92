// CRC-32C (Castagnoli), the CRC of these formats. zlib.crc32 is another polynomial. By @node-rs/crc32.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
let compute: ((data: Uint8Array) => number) | undefined;

/** CRC-32C of the data; `123456789` gives 0xE3069283. */
export function crc32c(data: Uint8Array): number {
  compute ??= (require('@node-rs/crc32') as { crc32c: (data: Uint8Array) => number }).crc32c;
  return compute(data);
}
