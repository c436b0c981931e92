import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Link } from '../storage/backend/link.ts';
import type { ChunkTable } from '../storage/cache/chunk-table.ts';
import type { FetchRange } from '../storage/cache/fetch-plan.ts';
import { LinkReadAhead, type FileChunks } from './link-read-ahead.ts';

/** Stored bytes of each chunk: 16 of them are what one round trip carries here. */
const CHUNK = 16 * 1024;
const COUNT = 2000;

interface Fixture {
  miss: (index: number, file?: FileChunks) => void;
  positions: Int32Array;
  asked: number[];
  /** wait until it asks for nothing more, and sees no reader */
  quiet: () => Promise<void>;
  ready: Set<number>;
}

/** A blob of chunks that arrive at once, over a link that is idle and carries 256 KiB in a round trip. */
function fixture(): Fixture {
  const table = {
    count: COUNT,
    storedOffset: (index: number) => index * CHUNK,
    storedSize: () => CHUNK,
  } as unknown as ChunkTable;
  const ready = new Set<number>();
  const asked: number[] = [];
  const cache = {
    table: () => Promise.resolve(table),
    isMissing: (index: number) => !ready.has(index),
    prefetch: ({ chunks }: FetchRange) => {
      for (const index of chunks) ready.add(index);
      asked.push(...chunks);
      return Promise.resolve();
    },
  };
  const positions = new Int32Array(new SharedArrayBuffer(8));
  const ahead = new LinkReadAhead(cache, new Link(), positions, 1);
  const quiet = async (): Promise<void> => {
    for (let last = -1; last !== asked.length;) {
      last = asked.length;
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
  };
  const miss = (index: number, file?: FileChunks): void => {
    ready.add(index);
    positions[1] = index;
    ahead.miss(index, file);
  };
  return { miss, positions, asked, quiet, ready };
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

test('LinkReadAhead: after one miss a quarter before it and as much as a round trip carries, what is there is passed over', async () => {
  const { miss, asked, quiet, ready } = fixture();
  ready.add(105);
  miss(100);
  await quiet();
  assert.deepEqual(asked, [...range(96, 100), 101, 102, 103, 104, ...range(106, 116)]);
});

test('LinkReadAhead: goes on in front of a reader that moves, by more each time', async () => {
  const { miss, asked, quiet, positions } = fixture();
  miss(0);
  await quiet();
  assert.deepEqual(asked, range(1, 16));
  miss(16);
  await quiet();
  // a miss behind what was fetched doubles the window
  assert.deepEqual(asked, [...range(1, 16), ...range(17, 48)]);
  miss(1000);
  positions[1] = 40;
  await quiet();
  // the place before is followed still: 40 chunks in front of the reader there, 16 in front of the new one
  assert.deepEqual(
    asked.slice(46).toSorted((a, b) => a - b),
    [...range(48, 80), ...range(996, 1000), ...range(1001, 1016)],
  );
});

test('LinkReadAhead: a file that is read here and there is filled for each miss, and nothing beside it', async () => {
  const { miss, asked, quiet } = fixture();
  const file = { first: 500, end: 600 };
  miss(560, file);
  miss(520, file);
  await quiet();
  const before = new Set(asked);
  assert.equal(before.size, 2 * 19);
  miss(580, file);
  await quiet();
  // the window of the new place, what lies before it, and as much of the file again
  assert.ok(asked.length >= 38 + 19 + 16 && asked.length <= 38 + 19 + 20, `${asked.length}`);
  assert.ok(
    asked.every((index) => index >= 500 && index < 600),
    `${Math.max(...asked)}`,
  );
  assert.equal(new Set(asked).size, asked.length);
});

test('LinkReadAhead: what lies before a place is fetched up to what is there, and not again for a reader that goes on', async () => {
  const { miss, asked, quiet, ready } = fixture();
  ready.add(297);
  miss(300);
  await quiet();
  assert.deepEqual(asked.slice(0, 2), [298, 299]);
  const before = asked.length;
  ready.delete(316);
  miss(316);
  await quiet();
  assert.ok(
    asked.slice(before).every((index) => index > 316),
    'the place is known',
  );
  // a reader that goes backwards finds the next ones there
  miss(295);
  await quiet();
  assert.ok([291, 292, 293, 294, 296].every((index) => asked.includes(index)));
});
