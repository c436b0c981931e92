// Digests and CRC against published vectors.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from './crc32c.ts';
import { digestOf, startDigest } from './digest.ts';

/** Source: FIPS 180-4 examples; BLAKE3 test_vectors.json (empty input, and bytes counting up modulo 251). */
const vectors = [
  { algorithm: 'sha256', data: '', hex: 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' },
  {
    algorithm: 'sha256',
    data: 'abc',
    hex: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
  },
  { algorithm: 'blake3', data: '', hex: 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262' },
  {
    algorithm: 'blake3',
    data: '\0',
    hex: '2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213',
  },
] as const;

for (const { algorithm, data, hex } of vectors) {
  test(`digestOf: ${algorithm} of ${data.length} bytes`, () => {
    assert.equal(digestOf(algorithm, Buffer.from(data, 'latin1')).toString('hex'), hex);
  });
}

for (const algorithm of ['sha256', 'blake3'] as const) {
  test(`startDigest: ${algorithm} in pieces is the digest of the whole`, () => {
    const data = Buffer.alloc(200_003, 'nydus');
    const running = startDigest(algorithm);
    for (let at = 0; at < data.length; at += 7001) running.update(data.subarray(at, at + 7001));
    assert.deepEqual(running.finish(), digestOf(algorithm, data));
  });
}

test('crc32c: the check value of the catalogue of CRC algorithms', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe306_9283);
  assert.equal(crc32c(new Uint8Array(0)), 0);
});
