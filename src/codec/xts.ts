// AES-128-XTS in pages of 4096 bytes, each with a zero tweak: how cache files are encrypted. The last page is filled up with
// zeros and stored in full. Source: blob-and-cache.md 17.10.
import { alignUp } from '../base/bytes.ts';

/** Loaded when it is needed: a daemon that serves what is local never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

export const XTS_PAGE = 4096;
export const XTS_KEY_SIZE = 32;
const CIPHER = 'aes-128-xts';
const TWEAK = Buffer.alloc(16);

/** True when the two halves of a key differ, as the cipher demands. */
export function isXtsKey(key: Uint8Array): boolean {
  const half = XTS_KEY_SIZE / 2;
  return key.length === XTS_KEY_SIZE && Buffer.compare(key.subarray(0, half), key.subarray(half)) !== 0;
}

/** Encrypt; the result is as long as whole pages are. */
export function sealPages(key: Uint8Array, plain: Uint8Array): Buffer {
  const out = Buffer.alloc(alignUp(plain.length, XTS_PAGE));
  out.set(plain);
  for (let at = 0; at < out.length; at += XTS_PAGE) {
    const page = out.subarray(at, at + XTS_PAGE);
    page.set(crypto().createCipheriv(CIPHER, key, TWEAK).update(page));
  }
  return out;
}

/** Decrypt into `target`, which may end inside the last page. */
export function openPages(key: Uint8Array, sealed: Uint8Array, target: Uint8Array): void {
  for (let at = 0; at < target.length; at += XTS_PAGE) {
    const page = crypto()
      .createDecipheriv(CIPHER, key, TWEAK)
      .update(sealed.subarray(at, at + XTS_PAGE));
    target.set(page.subarray(0, Math.min(XTS_PAGE, target.length - at)), at);
  }
}
