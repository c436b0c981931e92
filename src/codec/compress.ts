// Compression of one chunk, batch or section. There is no framing: the result is the codec's output or the raw bytes.
// Source: blob-and-cache.md 1.3.
import { createRequire } from 'node:module';
import { FormatError, messageOf } from '../base/errors.ts';
import { nativeLz4, nativeZstd, type NativeDecode } from '../native/codec-libs.ts';
import type { CompressorName } from './algorithms.ts';

interface Lz4Module {
  compressSync(data: Buffer): Buffer;
  uncompressSync(data: Uint8Array): Buffer;
}

/** lz4-napi puts the plain size in front of the block as u32. */
const LZ4_PREFIX = 4;
/** Level of upstream's one-shot zstd call. */
const ZSTD_LEVEL = 3;

const require = createRequire(import.meta.url);
let lz4: Lz4Module | undefined;

function loadLz4(): Lz4Module {
  lz4 ??= require('lz4-napi') as Lz4Module;
  return lz4;
}

/** Loaded when it is needed: a daemon whose chunks are local never does. */
function zlib(): typeof import('node:zlib') {
  return process.getBuiltinModule('node:zlib');
}

function bufferOf(data: Uint8Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

function encode(algorithm: CompressorName, data: Uint8Array): Uint8Array {
  switch (algorithm) {
    case 'none':
      return data;
    case 'lz4_block':
      return loadLz4().compressSync(bufferOf(data)).subarray(LZ4_PREFIX);
    case 'gzip':
      return zlib().gzipSync(data, { level: 6 });
    case 'zstd': {
      const { constants, zstdCompressSync } = zlib();
      return zstdCompressSync(data, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });
    }
  }
}

/**
 * Compress data.
 *
 * @returns the compressed bytes, or undefined when they would not be strictly smaller: store the data raw then
 */
export function compress(algorithm: CompressorName, data: Uint8Array): Uint8Array | undefined {
  if (algorithm === 'none' || data.length === 0) return undefined;
  const out = encode(algorithm, data);
  return out.length < data.length ? out : undefined;
}

function decode(algorithm: CompressorName, data: Uint8Array, size: number): Uint8Array {
  switch (algorithm) {
    case 'none':
      return data;
    case 'lz4_block': {
      const framed = Buffer.allocUnsafe(LZ4_PREFIX + data.length);
      framed.writeUInt32LE(size, 0);
      framed.set(data, LZ4_PREFIX);
      return loadLz4().uncompressSync(framed);
    }
    case 'gzip':
      return zlib().gunzipSync(data, { maxOutputLength: size });
    case 'zstd':
      return zlib().zstdDecompressSync(data, { maxOutputLength: size });
  }
}

/**
 * Decompress to exactly `size` bytes. `size` must have met a limit before.
 *
 * @throws FormatError EINVAL  the data is no such stream or yields another size
 */
export function decompress(algorithm: CompressorName, data: Uint8Array, size: number): Uint8Array {
  let out: Uint8Array;
  try {
    out = decode(algorithm, data, size);
  } catch (error) {
    throw new FormatError(
      { struct: algorithm },
      `cannot decompress ${data.length} bytes to ${size}: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  if (out.length !== size)
    throw new FormatError({ struct: algorithm }, `decompressed to ${out.length} bytes, expected ${size}`);
  return out;
}

/** Decoders that write into the target, looked up on first use; null where the machine has none. */
const native: { zstd?: NativeDecode | null; lz4_block?: NativeDecode | null } = {};

function nativeFor(algorithm: CompressorName): NativeDecode | null {
  if (algorithm === 'zstd') return (native.zstd ??= nativeZstd() ?? null);
  if (algorithm === 'lz4_block') return (native.lz4_block ??= nativeLz4() ?? null);
  return null;
}

/**
 * Decompress so that exactly all of `target` is filled.
 *
 * @throws FormatError EINVAL  the data is no such stream or yields another size
 */
export function decompressInto(algorithm: CompressorName, data: Uint8Array, target: Uint8Array): void {
  const decoder = target.length === 0 ? null : nativeFor(algorithm);
  if (decoder === null) {
    target.set(decompress(algorithm, data, target.length));
  } else if (!decoder(data, data.length, target, target.length)) {
    throw new FormatError(
      { struct: algorithm },
      `cannot decompress ${data.length} bytes to ${target.length}`,
    );
  }
}
