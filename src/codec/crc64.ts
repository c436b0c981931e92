// CRC-64 of ECMA-182, reflected, as OSS gives it in `x-oss-hash-crc64ecma`. Two halves of 32 bits: BigInt would be slow.
// Source: ECMA-182 annex B; Alibaba Cloud OSS "Check data integrity".

const HIGH = 0xc96c_5795;
const LOW = 0xd787_0f42;

function makeTable(): { low: Uint32Array; high: Uint32Array } {
  const low = new Uint32Array(256);
  const high = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let [l, h] = [byte, 0];
    for (let bit = 0; bit < 8; bit++) {
      const odd = (l & 1) !== 0;
      l = ((l >>> 1) | (h << 31)) >>> 0;
      h >>>= 1;
      if (odd) {
        l = (l ^ LOW) >>> 0;
        h = (h ^ HIGH) >>> 0;
      }
    }
    low[byte] = l;
    high[byte] = h;
  }
  return { low, high };
}

let table: ReturnType<typeof makeTable> | undefined;

/** A running CRC-64. */
export class Crc64 {
  #low = 0xffff_ffff;
  #high = 0xffff_ffff;

  update(bytes: Uint8Array): void {
    table ??= makeTable();
    const { low, high } = table;
    let [l, h] = [this.#low, this.#high];
    for (const byte of bytes) {
      const at = (l ^ byte) & 0xff;
      l = (((l >>> 8) | (h << 24)) ^ (low[at] as number)) >>> 0;
      h = ((h >>> 8) ^ (high[at] as number)) >>> 0;
    }
    this.#low = l;
    this.#high = h;
  }

  /** The value so far. */
  value(): bigint {
    return (BigInt(~this.#high >>> 0) << 32n) | BigInt(~this.#low >>> 0);
  }
}
