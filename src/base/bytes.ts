// Small helpers over byte ranges. Names are raw bytes everywhere; text only for people.

/** Smallest multiple of `unit` (a power of two) that is at least `x`; exact up to 2^53. */
export function alignUp(x: number, unit: number): number {
  return Math.ceil(x / unit) * unit;
}

/** True when x is a power of two. */
export function isPowerOfTwo(x: number): boolean {
  return x > 0 && Math.log2(x) % 1 === 0;
}

/** A DataView over the same bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Lower-case hex of the bytes. */
export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

/** Bytes of a hex text. */
export function fromHex(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}

/** Text of bytes up to the first NUL; latin1 when they are not UTF-8, so that nothing is lost. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, end < 0 ? bytes.byteLength : end);
  const text = buffer.toString('utf8');
  return text.includes('\ufffd') ? buffer.toString('latin1') : text;
}

/** True when all bytes are zero. */
export function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== 0) return false;
  return true;
}
