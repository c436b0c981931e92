import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crc64 } from './crc64.ts';

// check value of CRC-64/XZ in the catalogue of parametrised CRC algorithms
test('Crc64: the check value, in any pieces', () => {
  const bytes = Buffer.from('123456789');
  for (const cut of [0, 1, 5, 9]) {
    const crc = new Crc64();
    crc.update(bytes.subarray(0, cut));
    crc.update(bytes.subarray(cut));
    assert.equal(crc.value(), 0x995d_c9bb_df19_39fan);
  }
  assert.equal(new Crc64().value(), 0n);
});
