// Seeded mutations of byte images, shared by the fuzz tests. FUZZ_SEED repeats a run, FUZZ_RUNS sets its length.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { NydusError } from '../../src/base/errors.ts';

/** Longest time one mutated input may take; generous, because it must only tell endless from slow. */
const MAX_MS = 20_000;
/** Most memory outside and inside the heap that one input may leave or take, in bytes. */
const MAX_GROWTH = 512 * 1024 * 1024;

/** Numbers that parsers stumble over. */
const WORDS = [
  0, 1, 2, 7, 8, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x1000, 0x7fff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000,
  0xffff_fff0, 0xffff_ffff,
];

/** Small seeded generator (mulberry32): the same seed gives the same inputs everywhere. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** whole number from 0 to below `limit` */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b_79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 0x1_0000_0000) * limit);
  }
}

/** Seed of this run: FUZZ_SEED, or a new one. */
export function fuzzSeed(): number {
  const text = process.env['FUZZ_SEED'];
  return text === undefined ? randomInt(0x7fff_ffff) : Number(text);
}

/** Mutated inputs of a run: FUZZ_RUNS, or the default. */
export function fuzzRuns(fallback: number): number {
  const text = process.env['FUZZ_RUNS'];
  return text === undefined ? fallback : Number(text);
}

/**
 * A changed copy: a few of bit flips, telling numbers, moved pieces, shared pieces, cuts.
 *
 * @param hot ranges that are hit more often, such as tables
 */
export function mutate(original: Uint8Array, random: Random, hot: readonly [number, number][] = []): Buffer {
  let bytes = Buffer.from(original);
  const place = (): number => {
    const range = hot.length > 0 && random.below(2) === 0 ? hot[random.below(hot.length)] : undefined;
    const [start, end] = range ?? [0, bytes.length];
    return Math.min(start + random.below(Math.max(1, end - start)), bytes.length - 1);
  };
  const changes = 1 + random.below(4);
  for (let i = 0; i < changes && bytes.length > 0; i++) {
    const at = place();
    const word = WORDS[random.below(WORDS.length)] ?? 0;
    switch (random.below(7)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
        break;
      case 1:
        bytes[at] = word & 0xff;
        break;
      case 2:
        if (at % 2 === 0 && at + 2 <= bytes.length) bytes.writeUInt16LE(word & 0xffff, at);
        break;
      case 3: {
        const aligned = at - (at % 4);
        if (aligned + 4 <= bytes.length) bytes.writeUInt32LE(word, aligned);
        break;
      }
      case 4: {
        const aligned = at - (at % 8);
        const small = random.below(2) === 0;
        if (aligned + 8 <= bytes.length) bytes.writeBigUInt64LE(BigInt(word) << (small ? 0n : 32n), aligned);
        break;
      }
      case 5: {
        const size = 1 + random.below(64);
        bytes.copyWithin(at, place(), Math.min(bytes.length, at + size));
        break;
      }
      default:
        if (random.below(4) === 0) bytes = bytes.subarray(0, at - (at % (random.below(2) === 0 ? 1 : 8)));
        else bytes.fill(random.below(2) === 0 ? 0 : 0xff, at, Math.min(bytes.length, at + random.below(32)));
    }
  }
  return bytes;
}

/**
 * Run a reader over a mutated input: it may succeed or throw one of our errors, nothing else.
 *
 * @param label names the input and how to repeat it
 */
export async function survive(label: string, reader: () => unknown): Promise<'read' | 'refused'> {
  const before = process.memoryUsage();
  const start = performance.now();
  let outcome: 'read' | 'refused' = 'read';
  try {
    await reader();
  } catch (error) {
    if (!(error instanceof NydusError))
      assert.fail(`${label}: ${error instanceof Error ? error.stack : String(error)}`);
    outcome = 'refused';
  }
  const after = process.memoryUsage();
  const growth = after.heapUsed - before.heapUsed + after.arrayBuffers - before.arrayBuffers;
  assert.ok(performance.now() - start < MAX_MS, `${label}: took ${Math.round(performance.now() - start)} ms`);
  assert.ok(growth < MAX_GROWTH, `${label}: took ${growth} bytes`);
  return outcome;
}

/** Tells the seed and what became of the inputs. */
export function summary(name: string, seed: number, runs: number, outcomes: readonly string[]): string {
  const refused = outcomes.filter((outcome) => outcome === 'refused').length;
  return `${name}: ${runs} inputs, ${outcomes.length} readings, ${refused} refused; repeat with FUZZ_SEED=${seed} FUZZ_RUNS=${runs}`;
}
