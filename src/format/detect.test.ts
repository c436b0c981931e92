import assert from 'node:assert/strict';
import { test } from 'node:test';
import { detectVersion, openImage } from './detect.ts';
import { specVector5, specVector6 } from './testing/spec-vectors.ts';

test('detectVersion: v5, v6 and neither', () => {
  assert.equal(detectVersion(specVector5()), 5);
  assert.equal(detectVersion(specVector6()), 6);
  assert.equal(detectVersion(Buffer.alloc(8192)), undefined);
  assert.equal(detectVersion(Buffer.alloc(0)), undefined);
});

test('openImage: the version follows the magic', () => {
  assert.equal(openImage(specVector5()).super.version, 5);
  assert.equal(openImage(specVector6()).super.version, 6);
});

test('openImage: anything else is an invalid RAFS superblock', () => {
  const expected = { code: 'ERR_NYDUS_FORMAT', message: /^invalid RAFS superblock: / };
  assert.throws(() => openImage(Buffer.alloc(0)), expected);
  assert.throws(() => openImage(Buffer.alloc(20_000, 0x5a)), expected);
  assert.throws(() => openImage(specVector5().subarray(0, 4096)), expected);
  assert.throws(() => openImage(specVector6().subarray(0, 1200)), expected);
});
