import assert from 'node:assert/strict';
import { test } from 'node:test';
import { environmentHeaders } from './http-route.ts';
import { expiryOf, RedirectCache } from './registry-redirects.ts';

const AT = Date.UTC(2026, 0, 2, 3, 4, 5);
const CASES: [string, number | undefined][] = [
  ['X-Amz-Date=20260102T030405Z&X-Amz-Expires=60', AT + 60_000],
  ['X-Goog-Date=20260102T030405Z&X-Goog-Expires=5', AT + 5000],
  [`Expires=${AT / 1000}&Signature=x`, AT],
  ['se=2026-01-02T03%3A04%3A05Z&sig=x', AT],
  ['se=2026-01-02T03%3A04%3A05Z', undefined],
  ['X-Amz-Date=nonsense&X-Amz-Expires=60', undefined],
  ['', undefined],
];
for (const [query, end] of CASES) {
  test(`expiryOf: ${query || 'no query'}`, () => {
    assert.equal(expiryOf(new URL(`https://h/b?${query}`)), end);
  });
}

test('RedirectCache: keeps a target until shortly before its end, drops only the one that was refused', () => {
  let now = AT;
  const cache = new RedirectCache(() => now);
  const url = new URL('https://h/b?X-Amz-Date=20260102T030405Z&X-Amz-Expires=60');
  cache.set('id', url);
  assert.equal(cache.get('id'), url);
  now += 49_999;
  assert.equal(cache.get('id'), url);
  now += 1;
  assert.equal(cache.get('id'), undefined);
  cache.set('id', url);
  assert.equal(cache.get('id'), undefined);
  const plain = new URL('https://h/b');
  cache.set('id', plain);
  cache.drop('id', url);
  assert.equal(cache.get('id'), plain);
  cache.drop('id', plain);
  assert.equal(cache.get('id'), undefined);
});

test('environmentHeaders: NYDUS_HEADER_ variables, nothing that breaks a request', () => {
  const env = {
    NYDUS_HEADER_Name: 'v',
    'NYDUS_HEADER_X-Y': 'a b',
    NYDUS_HEADER_: 'x',
    'NYDUS_HEADER_a b': 'x',
    NYDUS_HEADER_Z: 'a\nb',
    HOME: '/',
  };
  assert.deepEqual(environmentHeaders(env), { name: 'v', 'x-y': 'a b' });
});
