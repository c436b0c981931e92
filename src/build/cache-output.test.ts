import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/golden.ts';
import { CacheOutput } from './cache-output.ts';

test('CacheOutput: chunks at their places, the last one padded, metadata padded before its header', async () => {
  const dir = tempDir();
  const cache = await CacheOutput.open(dir);
  await cache.putChunk(Buffer.from('second'), 4096, true);
  await cache.putChunk(Buffer.from('first'), 0, true);
  await cache.putMeta(Buffer.from('info'), Buffer.alloc(4096, 'h'));
  assert.ok(readdirSync(dir).every((name) => name.endsWith('.tmp')));
  await cache.publish('id');
  assert.deepEqual(readdirSync(dir).toSorted(), ['id.blob.data', 'id.blob.meta']);
  const data = Buffer.alloc(8192);
  data.write('first', 0);
  data.write('second', 4096);
  assert.ok(readFileSync(join(dir, 'id.blob.data')).equals(data));
  const meta = Buffer.alloc(8192);
  meta.write('info', 0);
  meta.fill('h', 4096);
  assert.ok(readFileSync(join(dir, 'id.blob.meta')).equals(meta));
});

test('CacheOutput: without alignment the data ends with its last chunk', async () => {
  const dir = tempDir();
  const cache = await CacheOutput.open(dir);
  await cache.putChunk(Buffer.from('abc'), 5, false);
  await cache.publish('id');
  assert.deepEqual(readFileSync(join(dir, 'id.blob.data')), Buffer.from('\0\0\0\0\0abc'));
});

test('CacheOutput: nothing is left without a blob, nor by discard', async () => {
  const dir = tempDir();
  const empty = await CacheOutput.open(dir);
  await empty.publish(undefined);
  const failed = await CacheOutput.open(dir);
  await failed.putChunk(Buffer.alloc(10_000), 0, true);
  await failed.discard();
  assert.deepEqual(readdirSync(dir), []);
});

test('CacheOutput: a directory that is not there is named', async () => {
  await assert.rejects(CacheOutput.open('/nonexistent/cache'), /cannot write "\/nonexistent\/cache\//);
});
