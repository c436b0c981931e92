import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/golden.ts';
import { BlobStream, directoryTarget, fileTarget, writeParts, writeWholeFile } from './blob-output.ts';

test('fileTarget: the name appears with publish, and never before', async () => {
  const path = join(tempDir(), 'blob');
  writeFileSync(path, 'old');
  const target = await fileTarget(path);
  await target.write([Buffer.from('new '), Buffer.from('data')]);
  assert.equal(readFileSync(path, 'utf8'), 'old');
  await target.publish('ignored: the path is given');
  assert.equal(readFileSync(path, 'utf8'), 'new data');
  assert.deepEqual(readdirSync(join(path, '..')), ['blob']);
});

test('fileTarget: discard leaves what was there before', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'blob'), 'old');
  const target = await fileTarget(join(dir, 'blob'));
  await target.write([Buffer.alloc(100_000)]);
  await target.discard();
  assert.deepEqual(readdirSync(dir), ['blob']);
  assert.equal(readFileSync(join(dir, 'blob'), 'utf8'), 'old');
});

test('fileTarget: a symlink stays, the file behind it is replaced', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'file'), 'old');
  symlinkSync('file', join(dir, 'link'));
  const target = await fileTarget(join(dir, 'link'));
  await target.write([Buffer.from('new')]);
  await target.publish(undefined);
  assert.ok(lstatSync(join(dir, 'link')).isSymbolicLink());
  assert.equal(readFileSync(join(dir, 'file'), 'utf8'), 'new');
});

test('fileTarget: a FIFO is written in place, in order', async () => {
  const fifo = join(tempDir(), 'fifo');
  execFileSync('mkfifo', [fifo]);
  const reading = readFile(fifo);
  const target = await fileTarget(fifo);
  const big = Buffer.alloc(300_000, 'x');
  await target.write([Buffer.from('head'), big, Buffer.from('tail')]);
  await target.publish('id');
  assert.deepEqual(await reading, Buffer.concat([Buffer.from('head'), big, Buffer.from('tail')]));
  assert.ok(lstatSync(fifo).isFIFO());
});

test('fileTarget: a directory that is not there is named in the error', async () => {
  await assert.rejects(fileTarget('/nonexistent/dir/blob'), /cannot write ".*\/nonexistent\/dir|ENOENT/);
});

test('directoryTarget: named by the blob id; a blob that is there already is kept', async () => {
  const dir = tempDir();
  const first = await directoryTarget(dir);
  await first.write([Buffer.from('1')]);
  await first.publish('aa');
  const second = await directoryTarget(dir);
  await second.write([Buffer.from('2')]);
  await second.publish('aa');
  const none = await directoryTarget(dir);
  await none.publish(undefined);
  assert.deepEqual(readdirSync(dir), ['aa']);
  assert.equal(readFileSync(join(dir, 'aa'), 'utf8'), '1');
});

test('writeParts: many parts, empty ones and ones larger than a write call, all in order', async () => {
  const path = join(tempDir(), 'parts');
  const parts: Buffer[] = [];
  for (let i = 0; i < 1500; i++) parts.push(Buffer.alloc(i % 7, i));
  parts.push(Buffer.alloc(0), Buffer.alloc(3_000_001, 'y'), Buffer.alloc(524_288, 'z'), Buffer.alloc(0));
  const file = await open(path, 'w');
  try {
    await writeParts(file, parts);
    await writeParts(file, []);
  } finally {
    await file.close();
  }
  assert.ok(readFileSync(path).equals(Buffer.concat(parts)));
});

test('BlobStream: position and digest of what was appended; unhashed parts move the position only', async () => {
  const stream = new BlobStream(undefined);
  await stream.append([Buffer.from('ab'), Buffer.from('c')]);
  await stream.append([Buffer.from('not hashed')], false);
  await stream.append([Buffer.from('d')]);
  assert.equal(stream.position, 14);
  const expected = createHash('sha256').update('abcd').digest('hex');
  assert.equal(stream.digest().toString('hex'), expected);
  assert.equal(stream.digest().toString('hex'), expected);
});

const small = process.getuid?.() === 0 ? undefined : 'needs root: mounts a small tmpfs';

test('writeWholeFile: a full disk is an error and leaves nothing', { skip: small ?? false }, async (t) => {
  const dir = join(tempDir(), 'small');
  mkdirSync(dir);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', dir]);
  t.after(() => execFileSync('umount', [dir]));
  await assert.rejects(writeWholeFile(join(dir, 'boot'), Buffer.alloc(200_000)), { code: 'ENOSPC' });
  assert.deepEqual(readdirSync(dir), []);
  assert.equal(existsSync(join(dir, 'boot')), false);
});
