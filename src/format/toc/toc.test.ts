import assert from 'node:assert/strict';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { FormatError, IntegrityError } from '../../base/errors.ts';
import { digestOf } from '../../codec/digest.ts';
import { encodeTrailer, parseTrailer, TRAILER_SIZE } from '../tar/trailer.ts';
import { Section } from './layout.ts';
import { decodeSection, findSection, parseToc, tocTail, trailingBootstrap } from './reader.ts';
import { encodeToc, encodeTocEntry } from './writer.ts';

test('encodeTrailer: size, time and checksum bytes of a real trailer', () => {
  const bytes = encodeTrailer('image.blob', 7802);
  assert.equal(bytes.length, 512);
  assert.equal(
    bytes.toString('hex', 124, 156),
    '303030303030313731373200' + '303030303030303030303000' + '3030303536343100',
  );
  assert.equal(bytes.toString('latin1', 257, 265), 'ustar  \0');
  assert.deepEqual(parseTrailer(bytes, 0), { name: 'image.blob', size: 7802 });
});

test('encodeTrailer: a size of 8 GiB and more is base 256', () => {
  const bytes = encodeTrailer('image.blob', 2 ** 33);
  assert.equal(bytes.toString('hex', 124, 136), '800000000000000200000000');
  assert.deepEqual(parseTrailer(bytes, 0), { name: 'image.blob', size: 2 ** 33 });
});

test('parseTrailer: other bytes are no trailer', () => {
  const directory = encodeTrailer('image.blob', 5);
  directory[156] = 0x35;
  const posix = encodeTrailer('image.blob', 5);
  posix.write('ustar\x0000', 257, 'latin1');
  const size = encodeTrailer('image.blob', 5);
  size.write('9', 130, 'latin1');
  for (const bytes of [directory, posix, size, Buffer.alloc(512), Buffer.alloc(511)]) {
    assert.equal(parseTrailer(bytes, 0), undefined);
  }
  assert.equal(parseTrailer(encodeTrailer('x', 1), 1), undefined);
  assert.equal(parseTrailer(encodeTrailer('x', 1), -1), undefined);
});

test('encodeTocEntry: bytes of a real entry', () => {
  const bytes = encodeTocEntry({
    name: Section.digest,
    compressor: 'none',
    digest: Buffer.from('910f7305f347bacd48d1221e0fb91c6af903f34eddcfc124004f3c5ff7e8bfdd', 'hex'),
    compressedOffset: 12954,
    compressedSize: 64,
    uncompressedSize: 64,
  });
  assert.equal(bytes.length, 128);
  assert.equal(
    bytes.toString('hex', 0, 80),
    '0100000000000000626c6f622e6469676573740000000000' +
      '910f7305f347bacd48d1221e0fb91c6af903f34eddcfc124004f3c5ff7e8bfdd' +
      '9a3200000000000040000000000000004000000000000000',
  );
});

const plain = Buffer.alloc(5000, 'bootstrap');
const stored = zstdCompressSync(plain);

function table(changes: { digest?: Buffer; compressedOffset?: number; compressedSize?: number } = {}) {
  return encodeToc([
    {
      name: Section.bootstrap,
      compressor: 'zstd',
      digest: digestOf('sha256', plain),
      compressedOffset: 100,
      compressedSize: stored.length,
      uncompressedSize: plain.length,
      ...changes,
    },
  ]);
}

test('parseToc: finds the section, whose content is decoded and compared', () => {
  const { bytes, digest, size } = table();
  assert.equal(size, 640);
  const toc = parseToc(Buffer.concat([Buffer.alloc(64), bytes]), 10_000, digest);
  assert.equal(toc?.size, 640);
  assert.deepEqual(toc?.digest, digest);
  const entry = findSection(toc ?? { entries: [], digest, size }, Section.bootstrap);
  assert.ok(entry !== undefined);
  assert.ok(plain.equals(decodeSection(entry, stored, 10_000)));
  assert.throws(() => decodeSection(entry, stored, 4999), /at most 4999/);
  assert.throws(() => decodeSection(entry, stored.subarray(1), 10_000), FormatError);
  assert.throws(
    () => decodeSection({ ...entry, digest: Buffer.alloc(32, 1) }, stored, 10_000),
    IntegrityError,
  );
  assert.ok(plain.equals(decodeSection({ ...entry, digest: Buffer.alloc(32) }, stored, 10_000)));
  assert.throws(() => decodeSection({ ...entry, flags: 1 }, stored, 10_000), /stored uncompressed/);
});

test('parseToc: no table, a wrong digest, damaged entries', () => {
  const { bytes } = table();
  assert.equal(parseToc(Buffer.alloc(4096), 4096), undefined);
  assert.equal(parseToc(encodeTrailer(Section.bootstrap, 0), 4096), undefined);
  assert.equal(parseToc(Buffer.alloc(10), 10), undefined);
  assert.throws(() => parseToc(bytes, 10_000, Buffer.alloc(32, 1)), IntegrityError);
  assert.throws(
    () => parseToc(table({ compressedOffset: 10_000 }).bytes, 10_000),
    /tocEntry\.compressedOffset/,
  );
  assert.throws(() => parseToc(bytes.subarray(128), 10_000), /toc\.size/);
  const flags = Buffer.from(bytes);
  flags[0] = 3;
  assert.throws(() => parseToc(flags, 10_000), /tocEntry\.flags/);
});

test('parseToc: garbage in the reserved tail of an entry is ignored', () => {
  const { bytes } = table();
  bytes.fill(0xaa, 124, 128);
  assert.equal(parseToc(bytes, 10_000)?.entries.length, 1);
});

test('tocTail: range to read, with and without a known size', () => {
  assert.deepEqual(tocTail(14554, 1024), { start: 13530, end: 14554 });
  assert.deepEqual(tocTail(14554), { start: 10458, end: 14554 });
  assert.deepEqual(tocTail(1000), { start: 104, end: 1000 });
  assert.deepEqual(tocTail(0), { start: 0, end: 0 });
  for (const size of [511, 513, 65664])
    assert.throws(() => tocTail(100_000, size), FormatError, String(size));
  assert.throws(() => tocTail(600, 640), FormatError);
});

test('trailingBootstrap: counts from the end of the blob, also for blobs below 4096 bytes', () => {
  const trailer = encodeTrailer(Section.bootstrap, 1000);
  assert.deepEqual(trailingBootstrap(trailer, 1600), {
    start: 1600 - TRAILER_SIZE - 1000,
    end: 1600 - TRAILER_SIZE,
  });
  assert.equal(trailingBootstrap(encodeTrailer(Section.blob, 1000), 1600), undefined);
  assert.throws(() => trailingBootstrap(trailer, 1500), /has 988 bytes in front/);
});
