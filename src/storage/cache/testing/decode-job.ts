// Decode jobs for tests, made from plain bytes.
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { tempDir } from '../../../../test/support/temporary.ts';
import type { CompressorName } from '../../../codec/algorithms.ts';
import { compress } from '../../../codec/compress.ts';
import { digestOf } from '../../../codec/digest.ts';
import { newReadyBits } from '../chunk-map.ts';
import { DecodeFlag, Layout, LAYOUT_FIELDS, type DecodeJob } from '../decode.ts';

/** A chunk of a job; what is left out is made from `plain`. */
export interface JobChunk {
  index: number;
  plain: Uint8Array;
  plainOffset: number;
  wanted?: boolean;
  /** stored bytes; default: `plain` compressed */
  stored?: Uint8Array;
  /** null = none */
  digest?: Uint8Array | null;
  /** default -1 = none */
  crc?: number;
  /** chunk of a batch: the whole batch, and where the chunk is in it; consecutive chunks share the stored bytes */
  batch?: { unit: Uint8Array; offset: number };
}

/** A job whose bytes are given; everything else can be changed afterwards. */
export function makeJob(
  chunks: readonly JobChunk[],
  compressor: CompressorName,
  more: Partial<DecodeJob> = {},
): DecodeJob {
  const layout = new Float64Array(chunks.length * LAYOUT_FIELDS);
  const digests = new Uint8Array(chunks.length * 32);
  const parts: Uint8Array[] = [];
  let length = 0;
  let lastUnit: Uint8Array | undefined;
  let lastStart = 0;
  let highest = 0;
  chunks.forEach((chunk, at) => {
    const { index, plain, plainOffset, batch } = chunk;
    const unit = batch?.unit ?? plain;
    const packed = chunk.stored === undefined ? compress(compressor, unit) : undefined;
    const bytes = chunk.stored ?? packed ?? unit;
    if (batch === undefined || unit !== lastUnit) {
      lastStart = length;
      parts.push(bytes);
      length += bytes.length;
    }
    lastUnit = unit;
    const digest = chunk.digest === undefined ? digestOf('blake3', plain) : chunk.digest;
    if (digest !== null) digests.set(digest, at * 32);
    const base = at * LAYOUT_FIELDS;
    layout[base + Layout.index] = index;
    layout[base + Layout.storedOffset] = lastStart;
    layout[base + Layout.storedSize] = bytes.length;
    layout[base + Layout.unitSize] = unit.length;
    layout[base + Layout.offsetInUnit] = batch?.offset ?? 0;
    layout[base + Layout.plainSize] = plain.length;
    layout[base + Layout.plainOffset] = plainOffset;
    layout[base + Layout.crc] = chunk.crc ?? -1;
    layout[base + Layout.flags] =
      (packed !== undefined || chunk.stored !== undefined ? DecodeFlag.compressed : 0) |
      (digest === null ? 0 : DecodeFlag.hasDigest) |
      (chunk.wanted === true ? DecodeFlag.wanted : 0);
    highest = Math.max(highest, index);
  });
  return {
    sourceFd: -1,
    stored: Buffer.concat(parts),
    offset: 0,
    length,
    compressor,
    digester: 'blake3',
    target: 'memory',
    dataFd: -1,
    ready: newReadyBits(highest + 1),
    layout,
    digests,
    ...more,
  };
}

/** A file with this content, open for reading and writing until the test ends. */
export function openContent(t: TestContext, content: Uint8Array, flags = 'r+'): { fd: number; path: string } {
  const path = join(tempDir(t), 'file');
  writeFileSync(path, content);
  const fd = openSync(path, flags);
  t.after(() => closeSync(fd));
  return { fd, path };
}

/** Indexes whose bit is set. */
export function readyIndexes(ready: Uint8Array): number[] {
  const out: number[] = [];
  for (let i = 0; i < ready.length * 8; i++)
    if (((ready[i >> 3] ?? 0) & (0x80 >> (i & 7))) !== 0) out.push(i);
  return out;
}

/** Bytes that compress well and differ from tag to tag. */
export function patterned(size: number, tag: string): Buffer {
  return Buffer.alloc(size, `${tag}0123456789`);
}
