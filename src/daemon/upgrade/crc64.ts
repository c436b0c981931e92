// The checksum of saved states: CRC-64 with the polynomial 0xAD93D23594C935A9, reflected, from 0, not inverted at the end.
// Source: nydusd.md 12.4. Halves of 32 bits: a saved state may have megabytes, and bigints are too slow for that.

/** 0xAD93D23594C935A9 with its bits reversed */
const POLYNOMIAL_HIGH = 0x95ac9329;
const POLYNOMIAL_LOW = 0xac4bc9b5;

let table: Uint32Array | undefined;

function makeTable(): Uint32Array {
  const made = new Uint32Array(512);
  for (let byte = 0; byte < 256; byte++) {
    let [high, low] = [0, byte];
    for (let bit = 0; bit < 8; bit++) {
      const odd = (low & 1) !== 0;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (!odd) continue;
      high ^= POLYNOMIAL_HIGH;
      low ^= POLYNOMIAL_LOW;
    }
    made[byte * 2] = high;
    made[byte * 2 + 1] = low;
  }
  return made;
}

/** Checksum of bytes. */
export function crc64(bytes: Uint8Array): bigint {
  table ??= makeTable();
  let [high, low] = [0, 0];
  for (const byte of bytes) {
    const at = ((low ^ byte) & 0xff) * 2;
    low = ((low >>> 8) | (high << 24)) ^ (table[at + 1] ?? 0);
    high = (high >>> 8) ^ (table[at] ?? 0);
  }
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}
