// Codecs: what goes in comes out, foreign streams decode, and a stream that does not fit its size is refused.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { FormatError } from '../base/errors.ts';
import { COMPRESSORS, type CompressorName } from './algorithms.ts';
import { compress, decompress, decompressInto } from './compress.ts';
import { compressBound, compressInto } from './compress-into.ts';

/** `abcabc…`: every codec makes it much smaller. */
const sample = Buffer.alloc(100_000, 'abc');
/** LZ4 block written by hand: token 0x34 = 3 literals and a match of 8 bytes 3 back, then 5 literals. Source: LZ4 block format. */
const LZ4_BLOCK = Buffer.from('34616263030050' + Buffer.from('vwxyz').toString('hex'), 'hex');
const LZ4_PLAIN = 'abcabcabcabvwxyz';

const packers: Record<CompressorName, (data: Uint8Array) => Uint8Array> = {
  none: (data) => data,
  lz4_block: (data) => compress('lz4_block', data) ?? data,
  gzip: (data) => gzipSync(data),
  zstd: (data) => zstdCompressSync(data),
};

/** Decode between guard bytes: nothing outside the target may change. */
function decodeGuarded(algorithm: CompressorName, data: Uint8Array, size: number): Buffer {
  const area = Buffer.alloc(size + 32, 0xee);
  try {
    decompressInto(algorithm, data, area.subarray(16, 16 + size));
  } finally {
    const guard = Buffer.alloc(16, 0xee);
    assert.deepEqual([area.subarray(0, 16), area.subarray(size + 16)], [guard, guard]);
  }
  return area.subarray(16, 16 + size);
}

test('decompressInto: an LZ4 block written by hand', () => {
  assert.equal(decodeGuarded('lz4_block', LZ4_BLOCK, LZ4_PLAIN.length).toString(), LZ4_PLAIN);
  assert.equal(Buffer.from(decompress('lz4_block', LZ4_BLOCK, LZ4_PLAIN.length)).toString(), LZ4_PLAIN);
});

test('decompressInto: a zstd frame without a content size', () => {
  // magic, descriptor 0, window 1 KiB, one last raw block of 5 bytes. Source: RFC 8878, 3.1.1
  const frame = Buffer.from('28b52ffd0000' + '290000' + Buffer.from('hello').toString('hex'), 'hex');
  assert.equal(decodeGuarded('zstd', frame, 5).toString(), 'hello');
});

for (const algorithm of COMPRESSORS) {
  const packed = packers[algorithm](sample);

  test(`decompressInto ${algorithm}: all bytes of the target are filled`, () => {
    assert.ok(decodeGuarded(algorithm, packed, sample.length).equals(sample));
    assert.ok(Buffer.from(decompress(algorithm, packed, sample.length)).equals(sample));
  });

  test(`decompressInto ${algorithm}: data of another size is refused, nothing is written past the target`, () => {
    for (const size of [0, 1, sample.length - 1, sample.length + 1, sample.length * 2]) {
      const place = { name: 'FormatError', code: 'ERR_NYDUS_FORMAT' };
      assert.throws(() => decodeGuarded(algorithm, packed, size), place, `${size} bytes`);
      assert.throws(() => decompress(algorithm, packed, size), FormatError, `${size} bytes`);
    }
  });

  if (algorithm === 'none') continue;
  test(`decompressInto ${algorithm}: a damaged or shortened stream is refused or yields that many bytes`, () => {
    for (const cut of [0, 1, packed.length >> 1, packed.length - 1]) {
      assert.throws(() => decodeGuarded(algorithm, packed.subarray(0, cut), sample.length), FormatError);
    }
    let refused = 0;
    for (let at = 0; at < Math.min(packed.length, 64); at++) {
      const damaged = Buffer.from(packed);
      damaged[at] = (damaged[at] ?? 0) ^ 0xff;
      try {
        assert.equal(decodeGuarded(algorithm, damaged, sample.length).length, sample.length);
      } catch (error) {
        assert.ok(error instanceof FormatError, String(error));
        refused++;
      }
    }
    // not every byte carries data, and a block without checksum may decode to something else: the digest finds that
    assert.ok(refused > 0);
  });

  test(`decompressInto ${algorithm}: works again after a refusal`, () => {
    assert.throws(() => decodeGuarded(algorithm, packed.subarray(0, 7), sample.length), FormatError);
    assert.ok(decodeGuarded(algorithm, packed, sample.length).equals(sample));
  });

  test(`compress ${algorithm}: undefined when the result would not be smaller`, () => {
    assert.equal(compress(algorithm, Buffer.from([0x7f])), undefined);
    assert.equal(compress(algorithm, new Uint8Array(0)), undefined);
    const out = compress(algorithm, sample);
    assert.ok(out !== undefined && out.length < sample.length);
    assert.ok(decodeGuarded(algorithm, out, sample.length).equals(sample));
  });

  test(`compressInto ${algorithm}: the bytes of compress, or 0 when they would not be fewer`, () => {
    const target = Buffer.alloc(compressBound(sample.length));
    const size = compressInto(algorithm, sample, target);
    assert.ok(size > 0 && size < sample.length);
    assert.ok(decodeGuarded(algorithm, target.subarray(0, size), sample.length).equals(sample));
    assert.equal(compressInto(algorithm, Buffer.from([0x7f]), target), 0);
    assert.equal(compressInto(algorithm, new Uint8Array(0), target), 0);
  });
}

test('decompressInto none: the bytes themselves', () => {
  assert.equal(decodeGuarded('none', Buffer.from('plain'), 5).toString(), 'plain');
  assert.equal(decodeGuarded('none', new Uint8Array(0), 0).length, 0);
});

test('compress none: never', () => {
  assert.equal(compress('none', sample), undefined);
  assert.equal(compressInto('none', sample, Buffer.alloc(compressBound(sample.length))), 0);
});
