// Mutates compression information, tables of contents and trailers of golden blobs: only our own errors may come out.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { NydusError } from '../../src/base/errors.ts';
import { viewOf } from '../../src/base/bytes.ts';
import { decompress } from '../../src/codec/compress.ts';
import { openCi, openCiFile, ciFileSize, type CiTable } from '../../src/format/blobmeta/reader.ts';
import { CI_HEADER_SIZE, ciHeader } from '../../src/format/blobmeta/layout.ts';
import { openImage } from '../../src/format/detect.ts';
import { BlobFeature } from '../../src/format/flags.ts';
import type { BlobInfo } from '../../src/format/image.ts';
import { parseTrailer } from '../../src/format/tar/trailer.ts';
import { decodeSection, parseToc, tocTail, trailingBootstrap } from '../../src/format/toc/reader.ts';
import { dumpBlob } from '../../src/rafs/dump-blob.ts';
import { ciRange, loadInlineBootstrap, walkTrailers } from '../../src/rafs/open-inline.ts';
import { goldenCases, goldenPath, skipUnlessGolden } from '../support/golden.ts';
import { fuzzRuns, fuzzSeed, mutate, Random, summary, survive } from './mutator.ts';

const RUNS = 600;
const MAX_SIZE = 300_000;

interface Base {
  name: string;
  bytes: Buffer;
}

function blobs(): Base[] {
  const found: Base[] = [];
  for (const name of goldenCases()) {
    const dir = goldenPath('cases', name, 'blobs');
    if (dir === undefined) continue;
    for (const file of readdirSync(dir)) {
      const bytes = readFileSync(join(dir, file));
      if (bytes.length > 0 && bytes.length <= MAX_SIZE)
        found.push({ name: `${name}/${file.slice(0, 12)}`, bytes });
    }
  }
  return found;
}

interface CiBase {
  name: string;
  blob: BlobInfo;
  /** plain data, zeros to a block, header: a `.blob.meta` file */
  file: Buffer;
}

function ciBases(): CiBase[] {
  const found: CiBase[] = [];
  const special = BlobFeature.encrypted | BlobFeature.zran | BlobFeature.tarfs;
  for (const name of goldenCases()) {
    const path = goldenPath('cases', name, 'bootstrap');
    if (path === undefined) continue;
    let rows: readonly BlobInfo[];
    try {
      rows = openImage(readFileSync(path)).blobs;
    } catch (error) {
      if (!(error instanceof NydusError)) throw error;
      continue;
    }
    for (const blob of rows) {
      const blobPath = goldenPath('cases', name, 'blobs', blob.id);
      const range = ciRange(blob);
      if (blobPath === undefined || range === undefined || (blob.features & special) !== 0) continue;
      const section = readFileSync(blobPath).subarray(range.start, range.end);
      const split = section.length - CI_HEADER_SIZE;
      const file = Buffer.alloc(ciFileSize(blob));
      file.set(decompress(blob.ciCompressor, section.subarray(0, split), blob.ciUncompressedSize));
      file.set(section.subarray(split), file.length - CI_HEADER_SIZE);
      found.push({ name, blob, file });
    }
  }
  return found;
}

/** Everything the cache asks of a table; entries that fail their check are not used further, as in the cache. */
function useTable(table: CiTable): number {
  let bad = 0;
  for (let i = 0; i < Math.min(table.count, 5000); i++) {
    try {
      table.check(i);
      table.isCompressed(i);
      table.crc32(i);
      table.findUncompressed(table.uncompressedOffset(i), true);
      table.findCompressed(table.compressedOffset(i), true);
    } catch (error) {
      if (!(error instanceof NydusError)) throw error;
      bad++;
    }
  }
  return bad;
}

const skip = skipUnlessGolden('cases');

test('compression information: mutated tables give our errors only', { skip }, async (t) => {
  const seed = fuzzSeed();
  const random = new Random(seed);
  const bases = ciBases();
  assert.ok(bases.length > 0, 'no blob with compression information among the cases');
  const outcomes: string[] = [];
  const runs = fuzzRuns(RUNS);
  for (let run = 0; run < runs; run++) {
    const { name, blob, file } = bases[run < bases.length ? run : random.below(bases.length)] as CiBase;
    const header: [number, number] = [file.length - CI_HEADER_SIZE, file.length - CI_HEADER_SIZE + 64];
    const input = mutate(file, random, [[0, blob.ciUncompressedSize], [0, blob.ciUncompressedSize], header]);
    // the row may be hostile as well
    const row = { ...blob };
    if (random.below(4) === 0)
      row.chunkCount = [0, 1, 0xff_ffff, 0x100_0000, 0xffff_ffff][random.below(5)] ?? 0;
    if (random.below(4) === 0) row.ciUncompressedSize = [0, 16, 24, 2 ** 32, 2 ** 52][random.below(5)] ?? 0;
    if (random.below(4) === 0) row.features ^= 1 << random.below(9);
    outcomes.push(
      await survive(`CI of ${name}, run ${run}, FUZZ_SEED=${seed}`, () => {
        const table = openCiFile(input, row);
        if ('notReady' in table) assert.match(table.notReady, /^ciHeader\./);
        else useTable(table);
        if (input.length < CI_HEADER_SIZE) return;
        useTable(openCi(input, ciHeader.read(viewOf(input), input.length - CI_HEADER_SIZE), row));
      }),
    );
  }
  t.diagnostic(summary('compression information', seed, runs, outcomes));
  assert.ok(outcomes.includes('refused'), 'no mutation was noticed');
});

test('blobs: mutated sections, trailers and tables of contents give our errors only', { skip }, async (t) => {
  const seed = fuzzSeed();
  const random = new Random(seed);
  const bases = blobs();
  assert.ok(bases.length > 0, 'no blobs among the cases');
  const outcomes: string[] = [];
  const runs = fuzzRuns(RUNS);
  for (let run = 0; run < runs; run++) {
    const { name, bytes } = bases[run < bases.length ? run : random.below(bases.length)] as Base;
    const tail: [number, number] = [Math.max(0, bytes.length - 1536), bytes.length];
    const input = mutate(bytes, random, [tail, tail, [Math.max(0, bytes.length - 8192), bytes.length]]);
    const read = (start: number, end: number): Promise<Uint8Array> => {
      assert.ok(
        start >= 0 && start <= end && end <= input.length,
        `read ${start} to ${end} of ${input.length} bytes`,
      );
      return Promise.resolve(input.subarray(start, end));
    };
    const parts: [string, () => unknown][] = [
      ['bootstrap', () => loadInlineBootstrap(read, input.length)],
      ['trailers', () => walkTrailers(read, input.length)],
      [
        'dump',
        async () => {
          for await (const line of dumpBlob(read, input.length)) assert.equal(typeof line, 'string');
        },
      ],
    ];
    for (const [part, reader] of parts) {
      outcomes.push(await survive(`${part} of ${name}, run ${run}, FUZZ_SEED=${seed}`, reader));
    }
  }
  t.diagnostic(summary('blobs', seed, runs, outcomes));
  assert.ok(outcomes.includes('refused'), 'no mutation was noticed');
});

test('tables of contents: mutated tails give our errors only', { skip }, async (t) => {
  const seed = fuzzSeed();
  const random = new Random(seed);
  const tails = blobs()
    .map(({ name, bytes }) => ({ name, bytes, tail: bytes.subarray(tocTail(bytes.length).start) }))
    .filter(({ tail }) => parseTrailer(tail, tail.length - 512) !== undefined);
  assert.ok(tails.length > 0, 'no blob with trailers among the cases');
  const outcomes: string[] = [];
  const runs = fuzzRuns(RUNS);
  for (let run = 0; run < runs; run++) {
    const base = tails[run < tails.length ? run : random.below(tails.length)];
    assert.ok(base !== undefined);
    const table: [number, number] = [Math.max(0, base.tail.length - 1152), base.tail.length];
    const input = mutate(base.tail, random, [table]);
    outcomes.push(
      await survive(`TOC of ${base.name}, run ${run}, FUZZ_SEED=${seed}`, () => {
        trailingBootstrap(input, base.bytes.length);
        const toc = parseToc(input, base.bytes.length);
        for (const entry of toc?.entries ?? []) {
          const stored = base.bytes.subarray(
            entry.compressedOffset,
            entry.compressedOffset + entry.compressedSize,
          );
          try {
            decodeSection(entry, stored, 1 << 24);
          } catch (error) {
            if (!(error instanceof NydusError)) throw error;
          }
        }
      }),
    );
  }
  t.diagnostic(summary('tables of contents', seed, runs, outcomes));
  assert.ok(outcomes.includes('refused'), 'no mutation was noticed');
});
