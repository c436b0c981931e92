import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { goldenPath, skipUnlessGolden } from '../../test/support/golden.ts';
import { openImage } from '../format/detect.ts';
import { walkNumbering } from '../tree/children.ts';
import type { TreeChunk } from '../tree/node.ts';
import { chunkDictionary, ChunkIndex, openDictionary, parseChunkDictArgument } from './chunk-dict.ts';
import { loadImage } from './load-image.ts';

test('parseChunkDictArgument: a path, with or without its type', () => {
  assert.equal(parseChunkDictArgument('bootstrap=/a/b=c'), '/a/b=c');
  assert.equal(parseChunkDictArgument('/a/b'), '/a/b');
  assert.throws(() => parseChunkDictArgument('foo=bar'), {
    message: 'invalid chunk dict type foo',
    exitCode: 1,
  });
});

test('openDictionary: a missing file in upstream words', () => {
  assert.throws(
    () => openDictionary('/nonexistent/dict'),
    (error: Error & { cause?: Error }) => {
      assert.equal(error.message, 'load chunk dict bootstrap "/nonexistent/dict"');
      assert.match(String(error.cause?.message), /^No such file or directory \(os error 2\)/);
      return true;
    },
  );
});

function chunk(fill: number, size: number, index: number): TreeChunk {
  return {
    digest: Buffer.alloc(32, fill),
    blobIndex: 0,
    flags: 0,
    compressedSize: size,
    uncompressedSize: size,
    compressedOffset: 0,
    uncompressedOffset: 0,
    fileOffset: 0,
    index,
    crc32: 0,
  };
}

test('ChunkIndex: the first of a digest wins, and only for its size', () => {
  const index = new ChunkIndex();
  index.add(chunk(1, 100, 0));
  index.add(chunk(1, 100, 1));
  index.add(chunk(2, 0, 2));
  assert.equal(index.size, 2);
  assert.equal(index.lookup(Buffer.alloc(32, 1), 100)?.index, 0);
  assert.equal(index.lookup(Buffer.alloc(32, 1), 99), undefined);
  assert.equal(index.lookup(Buffer.alloc(32, 2), 12345)?.index, 2);
  assert.equal(index.lookup(Buffer.alloc(32, 3), 100), undefined);
});

for (const name of [
  'chunkdict-v5',
  'chunkdict-v6',
  'chunkdict-v6-toc',
  'chunkdict-generate-v5',
  'chunkdict-generate-v6',
]) {
  const file = goldenPath('cases', name, 'dict.boot') === undefined ? 'bootstrap' : 'dict.boot';
  test(
    `chunkDictionary: golden ${name} knows all chunks of its image`,
    { skip: skipUnlessGolden('cases', name, file) },
    () => {
      const path = goldenPath('cases', name, file) ?? '';
      const image = openImage(readFileSync(path), { dictionary: true });
      const dictionary = chunkDictionary(image, path, image.super.digester);
      // upstream selected no chunk for the generated ones
      assert.equal(dictionary.size > 0, !name.includes('generate'));
      assert.equal(dictionary.blobs.length, image.blobs.length);
      const other = chunkDictionary(image, path, image.super.digester === 'sha256' ? 'blake3' : 'sha256');
      assert.equal(other.size, 0);
      if (name.includes('generate')) return;
      walkNumbering(loadImage(image, 0).root, (node) => {
        for (const { digest, uncompressedSize, index } of node.chunks) {
          assert.equal(dictionary.lookup(digest, uncompressedSize)?.index, index);
        }
      });
    },
  );
}
