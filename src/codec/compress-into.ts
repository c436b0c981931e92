// Compression into memory of the caller: no allocation per chunk, one codec context per thread.
// Source: blob-and-cache.md 1.3.
import { nativeLz4Encoder, nativeZstdEncoder, type NativeEncode } from '../native/codec-libs.ts';
import type { CompressorName } from './algorithms.ts';
import { compress } from './compress.ts';

/** Level of upstream's one-shot zstd call. */
const ZSTD_LEVEL = 3;

/** Encoders looked up on first use; null where the machine has none. */
const native: { zstd?: NativeEncode | null; lz4_block?: NativeEncode | null } = {};

function encoderFor(algorithm: CompressorName): NativeEncode | null {
  if (algorithm === 'zstd') return (native.zstd ??= nativeZstdEncoder(ZSTD_LEVEL) ?? null);
  if (algorithm === 'lz4_block') return (native.lz4_block ??= nativeLz4Encoder() ?? null);
  return null;
}

/** Bytes that the target of `compressInto` must have: what any codec may need for incompressible data. */
export function compressBound(size: number): number {
  return size + (size >>> 7) + 1024;
}

/**
 * Compress data into `target`, which has `compressBound(data.length)` bytes or more.
 *
 * @returns bytes written, or 0 when they would not be strictly fewer: store the data raw then
 */
export function compressInto(algorithm: CompressorName, data: Uint8Array, target: Uint8Array): number {
  if (algorithm === 'none' || data.length === 0) return 0;
  const encoder = encoderFor(algorithm);
  if (encoder !== null) {
    const size = encoder(data, data.length, target, target.length);
    return size < data.length ? size : 0;
  }
  const out = compress(algorithm, data);
  if (out === undefined) return 0;
  target.set(out);
  return out.length;
}
