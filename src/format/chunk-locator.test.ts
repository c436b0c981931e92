import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FormatError } from '../base/errors.ts';
import { MAX_CHUNKS_PER_BLOB } from '../base/limits.ts';
import { buildChunkLocator } from './chunk-locator.ts';

test('buildChunkLocator: finds what was walked, the first place wins, the rest is 0', () => {
  const rows: [number, number, number][] = [
    [0, 3, 10],
    [1, 0, 11],
    [0, 0, 12],
    [0, 3, 13],
    [1, MAX_CHUNKS_PER_BLOB - 1, 14],
  ];
  const find = buildChunkLocator(3, (each) => rows.forEach((row) => each(...row)));
  assert.equal(find(0, 3), 10);
  assert.equal(find(0, 0), 12);
  assert.equal(find(1, 0), 11);
  assert.equal(find(1, MAX_CHUNKS_PER_BLOB - 1), 14);
  for (const [blob, chunk] of [
    [0, 1],
    [0, 4],
    [1, 1],
    [2, 0],
    [3, 0],
  ] as const)
    assert.equal(find(blob, chunk), 0);
});

test('buildChunkLocator: refuses numbers past the limits', () => {
  assert.throws(() => buildChunkLocator(1, (each) => each(1, 0, 1)), FormatError);
  assert.throws(() => buildChunkLocator(1, (each) => each(0, MAX_CHUNKS_PER_BLOB, 1)), FormatError);
});
