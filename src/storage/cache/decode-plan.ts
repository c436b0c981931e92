// Decode jobs of one blob: a ranged fetch is cut into pieces worth a thread, and each becomes numbers that a thread understands.
import { MIB } from '../../base/limits.ts';
import type { CompressorName, DigesterName } from '../../codec/algorithms.ts';
import type { ChunkTable } from './chunk-table.ts';
import { DecodeFlag, Layout, LAYOUT_FIELDS, type DecodeJob, type DecodeTarget, type Seal } from './decode.ts';
import { rangeOf, type FetchRange } from './fetch-plan.ts';

/** Plain bytes of one decode job: enough to be worth a thread, small enough that several threads share one fetch. */
export const JOB_BYTES = MIB;

/**
 * Cut a range into jobs. A batch of small chunks is never cut: it is decoded as one. Behind the last chunk that somebody waits
 * for a job ends: it is answered before the rest has arrived.
 */
export function splitRange(
  table: ChunkTable,
  range: FetchRange,
  wanted: ReadonlySet<number> = new Set(),
): FetchRange[] {
  const lastWanted = range.chunks.findLast((index) => wanted.has(index));
  const parts: number[][] = [];
  let current: number[] = [];
  let size = 0;
  let unit = -1;
  for (const index of range.chunks) {
    const sameBatch = table.isBatched(index) && table.storedOffset(index) === unit;
    if ((size >= JOB_BYTES || current.at(-1) === lastWanted) && current.length > 0 && !sameBatch) {
      parts.push(current);
      current = [];
      size = 0;
    }
    unit = table.storedOffset(index);
    current.push(index);
    size += table.plainSize(index);
  }
  if (current.length > 0) parts.push(current);
  return parts.map((chunks) => rangeOf(table, chunks));
}

/** What a job is made for. */
export interface JobOptions {
  compressor: CompressorName;
  digester: DigesterName;
  /** chunks that somebody waits for */
  wanted: ReadonlySet<number>;
  target: DecodeTarget;
  /** file of the blob; not used when `stored` has the bytes */
  sourceFd: number;
  stored: Uint8Array | undefined;
  /** data file, -1 for none */
  dataFd: number;
  /** in-process ready bits */
  ready: Uint8Array;
  seal: Seal | undefined;
  /** the source is an encrypted cache file */
  opens?: boolean;
  /** the source is a plain cache file whose blocks may be shared */
  clones?: boolean;
}

/** The job that decodes the chunks of a part. @throws FormatError EINVAL  a chunk breaks the limits of the blob */
export function decodeJob(table: ChunkTable, part: FetchRange, options: JobOptions): DecodeJob {
  const { compressor, digester, wanted, target, stored } = options;
  const count = part.chunks.length;
  const layout = new Float64Array(count * LAYOUT_FIELDS);
  const digests = new Uint8Array(count * 32);
  part.chunks.forEach((index, at) => {
    const base = at * LAYOUT_FIELDS;
    const digest = table.digest(index);
    if (digest !== undefined) digests.set(digest, at * 32);
    layout[base + Layout.index] = index;
    layout[base + Layout.storedOffset] = table.storedOffset(index) - part.start;
    layout[base + Layout.storedSize] = table.storedSize(index);
    layout[base + Layout.unitSize] = table.unitSize(index);
    layout[base + Layout.offsetInUnit] = table.offsetInUnit(index);
    layout[base + Layout.plainSize] = table.plainSize(index);
    layout[base + Layout.plainOffset] = table.plainOffset(index);
    layout[base + Layout.crc] = table.crc(index);
    layout[base + Layout.flags] =
      (table.isCompressed(index) ? DecodeFlag.compressed : 0) |
      (digest !== undefined ? DecodeFlag.hasDigest : 0) |
      (wanted.has(index) ? DecodeFlag.wanted : 0);
  });
  return {
    sourceFd: stored === undefined ? options.sourceFd : -1,
    stored,
    offset: part.start,
    length: part.end - part.start,
    compressor,
    digester,
    target,
    dataFd: target === 'memory' ? -1 : options.dataFd,
    ready: options.ready,
    layout,
    digests,
    seal: options.seal,
    opens: options.opens,
    clones: options.clones,
  };
}
