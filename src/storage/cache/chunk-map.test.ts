import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../../test/support/temporary.ts';
import { ChunkMap, chunkMapSize, countReady, DamagedMapError } from './chunk-map.ts';

test('ChunkMap.open: a new file has the header and the length of the format', (t) => {
  const path = join(tempDir(t), 'map');
  ChunkMap.open(path, 17).close();
  const bytes = readFileSync(path);
  assert.equal(bytes.length, 4096 + 3);
  assert.equal(bytes.toString('latin1', 0, 4), 'PAMB');
  assert.equal(bytes.toString('hex', 0, 16), '50414d4201000000' + '50414d43' + '00000000');
  // the note of a user of the file: magic, in use, id of this boot
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim().replaceAll('-', '');
  assert.equal(bytes.toString('hex', 16, 40), '4e4f5443' + '01000000' + boot);
  assert.ok(bytes.subarray(60).every((byte) => byte === 0));
});

test('ChunkMap.publish: chunk i is bit 0x80 >> (i & 7) of byte i >> 3, and only then in the file', (t) => {
  const path = join(tempDir(t), 'map');
  const map = ChunkMap.open(path, 20);
  for (const index of [0, 9, 19]) {
    map.mark(index);
    map.remember(index);
  }
  assert.equal(readFileSync(path).toString('hex', 4096), '000000');
  assert.ok(map.isReady(9) && !map.isReadyInFile(9));
  const waiting = map.takeUnpublished();
  assert.deepEqual(waiting, [0, 9, 19]);
  assert.deepEqual(map.takeUnpublished(), []);
  map.publish(waiting);
  assert.equal(readFileSync(path).toString('hex', 4096), '804010');
  map.close();
});

test('ChunkMap.refresh: a bit that another process set is seen', (t) => {
  const path = join(tempDir(t), 'map');
  const [ours, theirs] = [ChunkMap.open(path, 9), ChunkMap.open(path, 9)];
  assert.equal(ours.refresh(8), false);
  theirs.publish([8]);
  assert.equal(ours.isReady(8), false);
  assert.equal(ours.refresh(8), true);
  assert.equal(ours.isReady(8), true);
  ours.close();
  theirs.close();
});

test('ChunkMap.open: a full map is noted in the header, and all_ready alone means every chunk', (t) => {
  const path = join(tempDir(t), 'map');
  const map = ChunkMap.open(path, 10);
  map.publish([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  map.close();
  assert.equal(readFileSync(path).readUInt32LE(12), 0);
  const again = ChunkMap.open(path, 10);
  assert.equal(again.readyCount, 10);
  again.close();
  const bytes = readFileSync(path);
  assert.equal(bytes.toString('latin1', 12, 16), 'PAMM');
  bytes.fill(0, 4096);
  writeFileSync(path, bytes);
  const all = ChunkMap.open(path, 10);
  assert.equal(all.readyCount, 10);
  all.close();
});

test('ChunkMap.open: a file that was sized and not filled gets its header; anything else that does not fit is damaged', (t) => {
  const path = join(tempDir(t), 'map');
  writeFileSync(path, Buffer.alloc(chunkMapSize(10)));
  ChunkMap.open(path, 10).close();
  const good = readFileSync(path);
  assert.equal(good.toString('latin1', 0, 4), 'PAMB');
  const damages: [string, (bytes: Buffer) => Buffer][] = [
    ['magic', (bytes) => bytes.fill(1, 0, 1)],
    ['magic2', (bytes) => bytes.fill(1, 8, 9)],
    ['a bit without a header', (bytes) => bytes.fill(0, 0, 4096).fill(0x80, 4096, 4097)],
    ['short', (bytes) => bytes.subarray(0, 4097)],
    ['long', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])],
    ['not even a header', (bytes) => bytes.subarray(0, 5)],
  ];
  for (const [what, damage] of damages) {
    writeFileSync(path, damage(Buffer.from(good)));
    assert.throws(() => ChunkMap.open(path, 10), DamagedMapError, what);
  }
  for (const count of [0, 0x100_0001])
    assert.throws(() => ChunkMap.open(path, count), { code: 'ERR_NYDUS_FORMAT' });
});

test('ChunkMap.rebuild: the new file has the verified chunks and nothing else, no draft is left', (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'map');
  writeFileSync(path, 'rubbish');
  const map = ChunkMap.rebuild(path, 10, [1, 9]);
  assert.deepEqual(
    [...Array(10).keys()].filter((index) => map.isReady(index)),
    [1, 9],
  );
  map.close();
  assert.equal(readFileSync(path).toString('hex', 4096), '4040');
  assert.deepEqual(readdirSync(dir), ['map']);
});

test('ChunkMap.open: distrusted bits count only after they were marked', (t) => {
  const path = join(tempDir(t), 'map');
  const map = ChunkMap.open(path, 10);
  map.publish([3]);
  map.close();
  const strict = ChunkMap.open(path, 10, { distrust: true });
  assert.equal(strict.refresh(3), false);
  assert.equal(strict.isReadyInFile(3), true);
  strict.mark(3);
  assert.equal(strict.refresh(3), true);
  strict.close();
});

test('ChunkMap.open: a path that cannot be opened is an error of node:fs', (t) => {
  const dir = tempDir(t);
  mkdirSync(join(dir, 'map'));
  assert.throws(() => ChunkMap.open(join(dir, 'map'), 10), { code: 'EISDIR' });
  writeFileSync(join(dir, 'file'), '');
  truncateSync(join(dir, 'file'), 3);
  assert.throws(() => ChunkMap.open(join(dir, 'file'), 10), DamagedMapError);
});

test('countReady: bits behind the last chunk do not count', () => {
  assert.equal(countReady(Uint8Array.of(0xff, 0xff), 9), 9);
  assert.equal(countReady(Uint8Array.of(0x81, 0x40), 16), 3);
  assert.equal(countReady(Uint8Array.of(), 0), 0);
});
