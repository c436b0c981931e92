import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSize, parseSize } from './size.ts';

test('parseSize: bytes, and binary units in every spelling', () => {
  for (const [text, bytes] of [
    ['0', 0],
    ['4096', 4096],
    ['10GiB', 10 * 2 ** 30],
    ['10 gb', 10 * 2 ** 30],
    ['1.5MiB', 1_572_864],
    ['2t', 2 ** 41],
    ['', undefined],
    ['-1', undefined],
    ['10XB', undefined],
    ['9000000TiB', undefined],
  ] as const)
    assert.equal(parseSize(text), bytes, text);
});

test('formatSize: three digits and a unit', () => {
  assert.equal(formatSize(0), '0 B');
  assert.equal(formatSize(1536), '1.50 KiB');
  assert.equal(formatSize(10 * 2 ** 30), '10.0 GiB');
  assert.equal(formatSize(500 * 2 ** 20), '500 MiB');
});
