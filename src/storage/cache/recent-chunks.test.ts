import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentChunks } from './recent-chunks.ts';

test('RecentChunks: keeps the chunks used last within its limit, and always the newest', () => {
  const recent = new RecentChunks(100);
  const chunk = (size: number): Uint8Array => new Uint8Array(size);
  recent.add(1, chunk(40));
  recent.add(2, chunk(40));
  assert.equal(recent.get(1)?.length, 40);
  recent.add(3, chunk(40));
  assert.deepEqual(
    [1, 2, 3].map((index) => recent.get(index)?.length),
    [40, undefined, 40],
  );
  recent.add(4, chunk(500));
  assert.deepEqual(
    [1, 3, 4].map((index) => recent.get(index)?.length),
    [undefined, undefined, 500],
  );
  recent.add(4, chunk(10));
  recent.add(5, chunk(90));
  assert.deepEqual(
    [4, 5].map((index) => recent.get(index)?.length),
    [10, 90],
  );
});
