import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TokenBucket } from './token-bucket.ts';

test('TokenBucket.take: one second is free, then the rate holds, a huge cost counts as two seconds', () => {
  let now = 0;
  const bucket = new TokenBucket(1000, () => now);
  assert.equal(bucket.take(1000), 0);
  assert.equal(bucket.take(500), 500);
  now = 500;
  assert.equal(bucket.take(0), 0);
  assert.equal(bucket.take(1_000_000), 2000);
  now = 100_000;
  assert.equal(bucket.take(1000), 0, 'no more than one second is saved up');
  assert.equal(bucket.take(1), 1);
});
