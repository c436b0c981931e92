// Read-ahead: starts with the second miss in a row, keeps its distance, ends when the reader stops or jumps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChunkMap } from '../storage/cache/chunk-map.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import type { FetchRange } from '../storage/cache/fetch-plan.ts';
import { MIB } from '../base/limits.ts';
import { ReadAhead, type AheadCache } from './read-ahead.ts';

const COUNT = 200;

/** Chunks of 1 MiB that are stored in half the space. */
const table: ChunkTable = {
  count: COUNT,
  storedOffset: (index) => (index * MIB) / 2,
  storedSize: () => MIB / 2,
  unitSize: () => MIB,
  offsetInUnit: () => 0,
  isCompressed: () => true,
  isBatched: () => false,
  plainOffset: (index) => index * MIB,
  plainSize: () => MIB,
  digest: () => undefined,
  crc: () => -1,
};

interface Fixture {
  ahead: ReadAhead;
  map: ChunkMap;
  positions: Int32Array;
  /** chunks that were asked for, in order */
  asked: number[];
  /** a reader misses a chunk, which comes with some that follow */
  read(index: number, count: number): void;
  /** resolves once `asked` holds a chunk */
  until(index: number): Promise<void>;
  /** resolves when nothing was asked for during a while in which the reader stands still */
  quiet(): Promise<void>;
}

function fixture(): Fixture {
  const map = ChunkMap.inMemory(COUNT);
  const positions = new Int32Array(new SharedArrayBuffer(8));
  const asked: number[] = [];
  const cache: AheadCache = {
    map,
    table: () => Promise.resolve(table),
    isMissing: (index) => !map.isReady(index),
    prefetch: async ({ chunks }: FetchRange) => {
      asked.push(...chunks);
      await new Promise((resolve) => void setImmediate(resolve));
      for (const index of chunks) map.mark(index);
    },
  };
  const ahead = new ReadAhead(cache, positions, 1);
  const pause = (millis: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, millis));
  return {
    ahead,
    map,
    positions,
    asked,
    read: (index, count) => {
      ahead.miss(index);
      for (let i = index; i < index + count; i++) map.mark(i);
      ahead.fetched(index);
      positions[1] = index;
    },
    until: async (index) => {
      for (let waited = performance.now(); !asked.includes(index); await pause(1)) {
        if (performance.now() - waited < 500) continue;
        // on a busy machine the reader may seem to stand still: it gets on by itself and starts read-ahead again
        const next = Math.max(...asked) + 1;
        ahead.miss(next);
        map.mark(next);
        ahead.fetched(next);
        asked.push(next);
        waited = performance.now();
      }
    },
    quiet: async () => {
      for (let seen = -1; seen !== asked.length; await pause(300)) seen = asked.length;
    },
  };
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, i) => start + i);
}

test('ReadAhead: nothing for a single miss, nor for misses that do not follow each other', async () => {
  const { read, quiet, asked } = fixture();
  read(10, 2);
  read(50, 2);
  read(53, 2);
  read(11, 1);
  await quiet();
  assert.deepEqual(asked, []);
});

test('ReadAhead: after two misses in a row 12 MiB in front of the reader, each chunk once and in order', async () => {
  const { read, quiet, asked, map } = fixture();
  map.mark(8);
  read(0, 2);
  read(2, 2);
  await quiet();
  // the reader is at chunk 2
  assert.deepEqual(asked, [4, 5, 6, 7, ...range(9, 14)]);
});

test('ReadAhead: keeps its distance while the reader moves, up to the end of the blob', async () => {
  const { read, until, asked, positions, quiet } = fixture();
  read(0, 2);
  read(2, 2);
  for (let position = 4; position < COUNT; position++) {
    await until(Math.min(position + 7, COUNT - 1));
    const furthest = Math.max(...asked);
    assert.ok(furthest <= position + 30, `reader at ${position}, fetched up to ${furthest}`);
    positions[1] = position;
  }
  await quiet();
  assert.deepEqual(asked, range(4, COUNT));
});

test('ReadAhead: goes on where it ended when a reader misses that chunk', async () => {
  const { read, quiet, asked, map } = fixture();
  read(0, 2);
  read(2, 2);
  await quiet();
  const next = Math.max(...asked) + 1;
  assert.ok(!map.isReady(next));
  read(next, 1);
  await quiet();
  assert.deepEqual(asked, range(4, next).concat(range(next + 1, asked.at(-1) ?? 0), asked.at(-1) ?? 0));
});

test('ReadAhead: stops when told to, and does not start again', async () => {
  const { ahead, read, until, quiet, asked } = fixture();
  read(0, 2);
  read(2, 2);
  await until(4);
  ahead.stop();
  await quiet();
  const before = asked.length;
  read((asked.at(-1) ?? 0) + 1, 1);
  await quiet();
  assert.equal(asked.length, before);
});

test('ReadAhead: a fetch that fails ends it quietly; the next misses start it again', async () => {
  const map = ChunkMap.inMemory(COUNT);
  const asked: number[] = [];
  let fail = true;
  const cache: AheadCache = {
    map,
    table: () => (fail ? Promise.reject(new Error('no table')) : Promise.resolve(table)),
    isMissing: (index) => !map.isReady(index),
    prefetch: ({ chunks }) => {
      asked.push(...chunks);
      for (const index of chunks) map.mark(index);
      return Promise.resolve();
    },
  };
  const ahead = new ReadAhead(cache, new Int32Array(new SharedArrayBuffer(4)), 0);
  const read = (index: number): void => {
    ahead.miss(index);
    map.mark(index);
    ahead.fetched(index);
  };
  read(0);
  read(1);
  await new Promise((resolve) => void setTimeout(resolve, 20));
  assert.equal(asked.length, 0);
  fail = false;
  read(2);
  read(3);
  while (!asked.includes(14)) await new Promise((resolve) => void setTimeout(resolve, 1));
  assert.deepEqual(asked, range(4, 15));
  ahead.stop();
});
