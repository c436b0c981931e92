import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlobFeature } from '../format/flags.ts';
import type { TreeBlob } from '../tree/node.ts';
import { blobIdOfFile, digestBytes, importBlob } from './import-blob.ts';

const ID = 'ab'.repeat(32);

function row(features: number): TreeBlob {
  return {
    id: 'x'.repeat(64),
    chunkCount: 1,
    chunkSize: 0x1000,
    features,
    compressor: 'none',
    digester: 'blake3',
    compressedSize: 10,
    uncompressedSize: 10,
    tocSize: 0,
    tocDigest: Buffer.alloc(32),
    metaDigest: Buffer.alloc(32),
    metaSize: Buffer.alloc(8),
    cipherIv: Buffer.alloc(8),
    cipher: 0,
    ciCompressor: 0,
    ciOffset: 0,
    ciCompressedSize: 0,
    ciUncompressedSize: 0,
    readaheadOffset: 0,
    readaheadSize: 0,
  };
}

test('blobIdOfFile: the base name without any extension', () => {
  assert.deepEqual(['/d/ab12.layer.boot', 'ab12', './x.y/ab12.'].map(blobIdOfFile), ['ab12', 'ab12', 'ab12']);
});

test('importBlob: an embedded row takes its id from the file and loses the mark', () => {
  const blob = importBlob(row(BlobFeature.inlinedFsMeta | BlobFeature.aligned), `/d/${ID}.image.boot`);
  assert.deepEqual([blob.id, blob.features, blob.compressedSize], [ID, BlobFeature.aligned, 10]);
});

test('importBlob: with separate data the file names the metadata blob', () => {
  const blob = importBlob(row(BlobFeature.inlinedFsMeta | BlobFeature.separate), `/d/${ID}`);
  assert.deepEqual(
    [blob.id, blob.features, Buffer.from(blob.metaDigest)],
    ['x'.repeat(64), BlobFeature.separate, digestBytes(ID)],
  );
});

test('importBlob: other rows stay as they are, whatever the file is called', () => {
  const blob = importBlob({ ...row(0), id: 'own' }, `/d/${ID}`);
  assert.deepEqual(blob, { ...row(0), id: 'own' });
});

test('digestBytes: 64 hex digits or nothing', () => {
  assert.deepEqual(
    [digestBytes(ID)?.length, digestBytes('ab'), digestBytes('zz'.repeat(32))],
    [32, undefined, undefined],
  );
});
