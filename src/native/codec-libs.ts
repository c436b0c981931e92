// Decompressors reached through koffi that write straight into the caller's buffer. zstd is inside the Node executable
// (or libzstd.so.1 where Node links it), lz4 is the system's liblz4.so.1. Both are optional: src/codec has other ways.
// Measured, 1 MiB chunks: zstd 937 MB/s (node:zlib 586), lz4 3105 MB/s (lz4-napi 480).
import type { LibraryHandle } from 'koffi';
import { loadKoffi } from './libc.ts';

/** Decode `sourceSize` bytes into `target`; true when exactly `targetSize` bytes came out. */
export type NativeDecode = (
  source: Uint8Array,
  sourceSize: number,
  target: Uint8Array,
  targetSize: number,
) => boolean;

function firstLibrary(names: readonly (string | null)[], symbol: string): LibraryHandle | undefined {
  for (const name of names) {
    try {
      const library = loadKoffi().load(name);
      library.func(`int ${symbol}()`);
      return library;
    } catch {
      // not there: the next name, or the portable way
    }
  }
  return undefined;
}

/** zstd, or undefined where no library has it. */
export function nativeZstd(): NativeDecode | undefined {
  const library = firstLibrary([null, 'libzstd.so.1'], 'ZSTD_decompressDCtx');
  if (library === undefined) return undefined;
  const create = library.func('uintptr_t ZSTD_createDCtx()') as () => number;
  const decode = library.func(
    'size_t ZSTD_decompressDCtx(uintptr_t context, void *target, size_t targetSize, void *source, size_t sourceSize)',
  ) as (
    context: number,
    target: Uint8Array,
    targetSize: number,
    source: Uint8Array,
    sourceSize: number,
  ) => number | bigint;
  // one context for the life of the thread: making one costs as much as decoding a small chunk
  const context = create();
  if (context === 0) return undefined;
  return (source, sourceSize, target, targetSize) =>
    decode(context, target, targetSize, source, sourceSize) === targetSize;
}

/** LZ4 blocks, or undefined where the library is not installed. */
export function nativeLz4(): NativeDecode | undefined {
  const library = firstLibrary(['liblz4.so.1'], 'LZ4_decompress_safe');
  if (library === undefined) return undefined;
  const decode = library.func(
    'int LZ4_decompress_safe(void *source, void *target, int sourceSize, int targetSize)',
  ) as (source: Uint8Array, target: Uint8Array, sourceSize: number, targetSize: number) => number;
  return (source, sourceSize, target, targetSize) =>
    decode(source, target, sourceSize, targetSize) === targetSize;
}

/** Encode all of `source` into `target`: bytes written, or 0 when it does not fit or fails. */
export type NativeEncode = (
  source: Uint8Array,
  sourceSize: number,
  target: Uint8Array,
  targetSize: number,
) => number;

/** Codes of ZSTD_isError are the last values of size_t. */
const ZSTD_ERROR_START = 2 ** 63;

/** One-shot zstd frames at a level, as upstream makes them; undefined where no library has it. */
export function nativeZstdEncoder(level: number): NativeEncode | undefined {
  const library = firstLibrary([null, 'libzstd.so.1'], 'ZSTD_compressCCtx');
  if (library === undefined) return undefined;
  const create = library.func('uintptr_t ZSTD_createCCtx()') as () => number;
  const encode = library.func(
    'size_t ZSTD_compressCCtx(uintptr_t context, void *target, size_t targetSize, void *source, size_t sourceSize, int level)',
  ) as (
    context: number,
    target: Uint8Array,
    targetSize: number,
    source: Uint8Array,
    sourceSize: number,
    level: number,
  ) => number | bigint;
  // one context for the life of the thread: node:zlib makes one for every call, which costs more than a small chunk
  const context = create();
  if (context === 0) return undefined;
  return (source, sourceSize, target, targetSize) => {
    const size = Number(encode(context, target, targetSize, source, sourceSize, level));
    return size >= ZSTD_ERROR_START ? 0 : size;
  };
}

/** LZ4 blocks at the default acceleration, or undefined where the library is not installed. */
export function nativeLz4Encoder(): NativeEncode | undefined {
  const library = firstLibrary(['liblz4.so.1'], 'LZ4_compress_default');
  if (library === undefined) return undefined;
  const encode = library.func(
    'int LZ4_compress_default(void *source, void *target, int sourceSize, int targetSize)',
  ) as (source: Uint8Array, target: Uint8Array, sourceSize: number, targetSize: number) => number;
  return (source, sourceSize, target, targetSize) =>
    Math.max(0, encode(source, target, sourceSize, targetSize));
}
