// Chunk digests that stand in the blob: found through its table of contents, verified, kept, and fetched again when damaged.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { digestOf } from '../../codec/digest.ts';
import { BlobFeature } from '../../format/flags.ts';
import type { BlobInfo } from '../../format/image.ts';
import { Section } from '../../format/toc/layout.ts';
import { encodeToc } from '../../format/toc/writer.ts';
import type { BlobReader } from '../backend/backend.ts';
import { loadDigestArray } from './digest-file.ts';

const CHUNKS = 40;
/** Where the section starts in the sample blob. */
const START = 1000;

interface Sample {
  blob: BlobInfo;
  bytes: Buffer;
  digests: Buffer;
}

function makeBlob(chunks = CHUNKS): Sample {
  // few different ones, so that they compress: a section is stored raw when they do not
  const digests = Buffer.concat(
    Array.from({ length: CHUNKS }, (_, i) => digestOf('sha256', Buffer.from([i % 3]))),
  );
  const stored = zstdCompressSync(digests);
  const sections = [
    {
      name: Section.blob,
      compressor: 'none',
      digest: new Uint8Array(32),
      compressedOffset: 0,
      compressedSize: START,
      uncompressedSize: START,
    },
    {
      name: Section.digest,
      compressor: 'zstd',
      digest: digestOf('sha256', digests),
      compressedOffset: START,
      compressedSize: stored.length,
      uncompressedSize: digests.length,
    },
    {
      name: Section.bootstrap,
      compressor: 'none',
      digest: new Uint8Array(32),
      compressedOffset: START,
      compressedSize: 0,
      uncompressedSize: 0,
    },
  ] as const;
  const toc = encodeToc(sections);
  const bytes = Buffer.concat([Buffer.alloc(START, 7), stored, toc.bytes]);
  const blob: BlobInfo = {
    index: 0,
    id: 'sample',
    chunkCount: chunks,
    chunkSize: 0x10000,
    features: BlobFeature.inlinedChunkDigest,
    compressor: 'zstd',
    digester: 'sha256',
    compressedSize: START,
    uncompressedSize: START,
    tocSize: toc.size,
    tocDigest: toc.digest,
    metaDigest: new Uint8Array(32),
    metaSize: 0,
    cipher: 0,
    cipherIv: new Uint8Array(16),
    ciCompressor: 'none',
    ciOffset: 0,
    ciCompressedSize: 0,
    ciUncompressedSize: 0,
    readaheadOffset: 0,
    readaheadSize: 0,
    mappedBlkaddr: 0,
  };
  return { blob, bytes, digests };
}

/** A reader of bytes in memory that notes the offset of each read. */
function readerOf(bytes: Uint8Array, reads: number[] = []): BlobReader {
  return {
    blobId: 'sample',
    fd: -1,
    size: () => Promise.resolve(bytes.length),
    read: (offset, length) => {
      reads.push(offset);
      return Promise.resolve(bytes.subarray(offset, offset + length));
    },
    note: () => {},
    close: () => {},
  };
}

test('loadDigestArray: verified digests of all chunks, kept as two files and not fetched again', async (t) => {
  const base = join(tempDir(t), 'sample');
  const { blob, bytes, digests } = makeBlob();
  const lines: string[] = [];
  const logger = collectingLogger(lines);
  const reads: number[] = [];
  const first = await loadDigestArray(base, blob, readerOf(bytes, reads), logger);
  assert.ok(digests.equals(first ?? new Uint8Array(0)));
  assert.deepEqual(reads, [bytes.length - blob.tocSize, START]);
  assert.ok(readFileSync(`${base}.blob.digest`).equals(digests));
  assert.ok(readFileSync(`${base}.blob.toc`).equals(bytes.subarray(bytes.length - blob.tocSize)));
  reads.length = 0;
  const again = await loadDigestArray(base, blob, readerOf(bytes, reads), logger);
  assert.ok(digests.equals(again ?? new Uint8Array(0)));
  assert.deepEqual(reads, []);
  assert.deepEqual(lines, []);
});

test('loadDigestArray: kept files that were damaged are fetched again and replaced', async (t) => {
  const base = join(tempDir(t), 'sample');
  const { blob, bytes, digests } = makeBlob();
  const lines: string[] = [];
  await loadDigestArray(base, blob, readerOf(bytes), collectingLogger(lines));
  for (const suffix of ['digest', 'toc']) {
    const path = `${base}.blob.${suffix}`;
    const damaged = readFileSync(path);
    damaged[40] = (damaged[40] ?? 0) ^ 1;
    writeFileSync(path, damaged);
    const found = await loadDigestArray(base, blob, readerOf(bytes), collectingLogger(lines));
    assert.ok(digests.equals(found ?? new Uint8Array(0)), suffix);
    assert.notDeepEqual(readFileSync(path), damaged, suffix);
  }
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^warn .*sample\.blob\.toc: table of contents: digest .*; fetching it again$/);
});

test('loadDigestArray: digests that do not fit their own digest or the chunk count are not used, with a warning', async (t) => {
  const dir = tempDir(t);
  const damaged = makeBlob();
  const at = START + 20;
  damaged.bytes[at] = (damaged.bytes[at] ?? 0) ^ 0xff;
  for (const { blob, bytes } of [damaged, makeBlob(CHUNKS - 1), makeBlob(CHUNKS + 1)]) {
    const lines: string[] = [];
    const base = join(dir, 'bad');
    assert.equal(await loadDigestArray(base, blob, readerOf(bytes), collectingLogger(lines)), undefined);
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /^warn blob sample: cannot load its chunk digests: /);
  }
  assert.deepEqual(readdirSync(dir), ['bad.blob.toc']);
});

test('loadDigestArray: a blob without them is not asked, one that ends early is warned of', async () => {
  const { blob, bytes } = makeBlob();
  const reads: number[] = [];
  const lines: string[] = [];
  const logger = collectingLogger(lines);
  const plain = { ...blob, features: 0 };
  assert.equal(await loadDigestArray(undefined, plain, readerOf(bytes, reads), logger), undefined);
  assert.equal(await loadDigestArray(undefined, blob, undefined, logger), undefined);
  assert.deepEqual([reads, lines], [[], []]);
  const short = bytes.subarray(0, 600);
  assert.equal(await loadDigestArray(undefined, blob, readerOf(short), logger), undefined);
  assert.equal(lines.length, 1);
});
