import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { backendSuite, SUITE_BLOB, SUITE_BLOB_ID } from '../../../test/conformance/backend-suite.ts';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import type { LocalfsConfig } from '../config.ts';
import { openBackend } from './backend.ts';
import { isSafeBlobId, LocalfsBackend } from './localfs.ts';

function config(values: Partial<LocalfsConfig>): LocalfsConfig {
  return { blob_file: '', dir: '', alt_dirs: [], readahead: false, readahead_sec: 0, ...values };
}

backendSuite('localfs dir', (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, SUITE_BLOB_ID), SUITE_BLOB);
  return new LocalfsBackend(config({ dir }), silentLogger);
});

backendSuite('localfs alt_dirs', (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'other'));
  writeFileSync(join(dir, SUITE_BLOB_ID), '');
  writeFileSync(join(dir, 'other', SUITE_BLOB_ID), SUITE_BLOB);
  return new LocalfsBackend(
    config({ dir, alt_dirs: [join(dir, 'missing'), join(dir, 'other')] }),
    silentLogger,
  );
});

test('LocalfsBackend: blob_file stands for every blob', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'data'), 'hello');
  const backend = new LocalfsBackend(config({ blob_file: join(dir, 'data') }), silentLogger);
  for (const id of ['one', 'two'])
    assert.equal(Buffer.from(await (await backend.open(id)).read(1, 3)).toString(), 'ell');
  await backend.close();
});

test('LocalfsBackend: dir comes before alt_dirs', async (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'other'));
  writeFileSync(join(dir, 'id'), 'first');
  writeFileSync(join(dir, 'other', 'id'), 'second');
  const backend = new LocalfsBackend(config({ dir, alt_dirs: [join(dir, 'other')] }), silentLogger);
  assert.equal(Buffer.from(await (await backend.open('id')).read(0, 10)).toString(), 'first');
  await backend.close();
});

test('isSafeBlobId: an id from an image never leaves the directory', () => {
  for (const id of ['', '.', '..', '../etc/passwd', 'a/b', 'a\0b', 'x'.repeat(256)])
    assert.equal(isSafeBlobId(id), false, id);
  for (const id of ['a'.repeat(64), 'some-id', '..a']) assert.equal(isSafeBlobId(id), true, id);
});

test('LocalfsBackend: readahead records what is read, and replays it on the next start', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'id');
  writeFileSync(path, SUITE_BLOB);
  const log = `${path}.access`;
  const first = new LocalfsBackend(config({ dir, readahead: true, readahead_sec: 60 }), silentLogger);
  const reader = await first.open('id');
  await reader.read(4096, 1000);
  await reader.read(5096, 24); // goes on where the last one ended
  await reader.read(200_000, 8);
  assert.equal(existsSync(log), false);
  await first.close();
  const expected = '001000000000000000040000' + '00000000' + '400d03000000000008000000' + '00000000';
  assert.equal(readFileSync(log).toString('hex'), expected);
  const second = new LocalfsBackend(config({ dir, readahead: true, readahead_sec: 60 }), silentLogger);
  await (await second.open('id')).read(0, 10);
  await second.close();
  assert.equal(readFileSync(log).toString('hex'), expected, 'what is replayed is kept');
});

test('LocalfsBackend: a damaged access log does not matter', async (t) => {
  const dir = tempDir(t);
  writeFileSync(join(dir, 'id'), SUITE_BLOB);
  writeFileSync(join(dir, 'id.access'), Buffer.alloc(1000, 0xff));
  const lines: string[] = [];
  const backend = new LocalfsBackend(
    config({ dir, readahead: true, readahead_sec: 1 }),
    collectingLogger(lines),
  );
  assert.equal((await (await backend.open('id')).read(0, 10)).length, 10);
  await backend.close();
  assert.deepEqual(lines, []);
});

test('openBackend: a type without its section, or no type, is refused by name', () => {
  const none = { localfs: null, localdisk: null, oss: null, s3: null, registry: null, 'http-proxy': null };
  for (const type of ['registry', 'oss', 's3', 'localdisk', 'http-proxy', 'ftp']) {
    assert.throws(() => openBackend({ type, ...none }, silentLogger), {
      code: 'ERR_NYDUS_USAGE',
      message: `no backend of type ${type} with its settings`,
    });
  }
});
