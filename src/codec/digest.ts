// Chunk and inode digests: BLAKE3 by @napi-rs/blake-hash, SHA-256 by node:crypto. Loaded on first use: start-up matters.
import { createRequire } from 'node:module';
import type { DigesterName } from './algorithms.ts';

interface BlakeModule {
  blake3(data: Uint8Array): Buffer;
  Blake3Hasher: new () => { update(data: Uint8Array): unknown; digestBuffer(): Buffer };
}

const require = createRequire(import.meta.url);
let blake: BlakeModule | undefined;

function loadBlake(): BlakeModule {
  blake ??= require('@napi-rs/blake-hash') as BlakeModule;
  return blake;
}

/** As with `import`, but when it is needed, and without the parts that every export of an import would load. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** 32-byte digest of the data. */
export function digestOf(algorithm: DigesterName, data: Uint8Array): Buffer {
  if (algorithm === 'sha256') return crypto().hash('sha256', data, 'buffer');
  // 5 us for a small chunk, where a hasher object costs 20
  return loadBlake().blake3(data);
}

export interface RunningDigest {
  update(data: Uint8Array): void;
  /** 32 bytes; the digest cannot be used afterwards */
  finish(): Buffer;
}

/** Digest of data that arrives in pieces. */
export function startDigest(algorithm: DigesterName): RunningDigest {
  if (algorithm === 'sha256') {
    const hasher = crypto().createHash('sha256');
    return { update: (data) => void hasher.update(data), finish: () => hasher.digest() };
  }
  const hasher = new (loadBlake().Blake3Hasher)();
  return { update: (data) => void hasher.update(data), finish: () => hasher.digestBuffer() };
}
