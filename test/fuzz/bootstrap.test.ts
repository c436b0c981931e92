// Mutates golden bootstraps of both versions: opening, walking, checking and dumping may only give our own errors.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { openImage } from '../../src/format/detect.ts';
import { DEVICE_SLOTS_OFFSET, EROFS_SUPER_OFFSET, FileType6 } from '../../src/format/rafs6/layout.ts';
import { newAttr, newChunkRef, type RafsImage } from '../../src/format/image.ts';
import { specVector5, specVector6 } from '../../src/format/testing/spec-vectors.ts';
import { NydusError } from '../../src/base/errors.ts';
import { checkImage } from '../../src/rafs/check.ts';
import { dumpBootstrap } from '../../src/rafs/dump.ts';
import { walkTree } from '../../src/rafs/walk.ts';
import { goldenCases, goldenPath } from '../support/golden.ts';
import { fuzzRuns, fuzzSeed, mutate, Random, summary, survive } from './mutator.ts';

const RUNS = 600;
/** Larger images cost time and have no structures that small ones lack. */
const MAX_SIZE = 400_000;
/** Names looked up and chunks read per image. */
const MAX_TOUCHED = 2000;

function bootstraps(version: 5 | 6): [string, Uint8Array][] {
  const found: [string, Uint8Array][] = [['spec vector', version === 5 ? specVector5() : specVector6()]];
  for (const name of goldenCases()) {
    const path = goldenPath('cases', name, 'bootstrap');
    if (path === undefined) continue;
    const bytes = readFileSync(path);
    if (bytes.length > MAX_SIZE) continue;
    try {
      if (openImage(bytes).super.version === version) found.push([name, bytes]);
    } catch (error) {
      // some cases show what a builder got wrong: not a base for mutations
      if (!(error instanceof NydusError)) throw error;
    }
  }
  return found;
}

/** Ask for everything a mount could be asked for. Errors are those of the whole image, the walk itself goes on. */
function touchAll(image: RafsImage): void {
  const attr = newAttr();
  const ref = newChunkRef();
  let left = MAX_TOUCHED;
  const ours = (part: () => void): void => {
    try {
      part();
    } catch (error) {
      if (!(error instanceof NydusError)) throw error;
    }
  };
  ours(() => void image.prefetchInos());
  for (const entry of walkTree(image)) {
    ours(() => image.attr(entry.ino, attr));
    ours(() => assert.equal(entry.depth === 0 || image.lookup(entry.parent, entry.name) > 0, true));
    ours(() => {
      for (const { name } of image.xattrs(entry.ino)) image.xattr(entry.ino, name);
    });
    if (entry.fileType === FileType6.symlink) ours(() => void image.readlink(entry.ino));
    if (entry.fileType !== FileType6.regular) continue;
    ours(() => {
      const count = image.chunkCount(entry.ino);
      for (let i = 0; i < count && left > 0; i++, left--) {
        image.chunk(entry.ino, i, ref);
        image.chunkRecordOffset(ref.blobIndex, ref.chunkIndex);
      }
    });
  }
}

for (const version of [5, 6] as const) {
  test(`RAFS v${version}: mutated bootstraps give our errors only`, async (t) => {
    const seed = fuzzSeed();
    const random = new Random(seed);
    const bases = bootstraps(version);
    const hot: [number, number][] =
      version === 5
        ? [
            [0, 0x50],
            [0x2000, 0x2400],
          ]
        : [
            [EROFS_SUPER_OFFSET, DEVICE_SLOTS_OFFSET + 128],
            [0x1000, 0x1100],
            [0x3000, 0x3400],
          ];
    const outcomes: string[] = [];
    const runs = fuzzRuns(RUNS);
    for (let run = 0; run < runs; run++) {
      // every base once, then at random
      const [name, bytes] = bases[run < bases.length ? run : random.below(bases.length)] ?? [
        '',
        new Uint8Array(0),
      ];
      const input = mutate(bytes, random, hot);
      const label = `v${version} ${name}, run ${run}, FUZZ_SEED=${seed}`;
      outcomes.push(
        await survive(label, () => {
          const image = openImage(input, run % 8 === 7 ? { dictionary: true } : {});
          const { problems } = checkImage(image, { limit: 50 });
          touchAll(image);
          for (const line of dumpBootstrap(image)) assert.equal(typeof line, 'string');
          return problems;
        }),
      );
    }
    t.diagnostic(summary(`v${version}`, seed, runs, outcomes));
    assert.ok(outcomes.includes('refused'), 'no mutation was noticed');
  });
}
