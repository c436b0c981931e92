import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpaceAllocator } from './space.ts';

test('SpaceAllocator: the places of the worked example (rafs-metadata 8.4)', () => {
  const space = new SpaceAllocator(4096);
  // root with 53 bytes of dirents, a symlink of 3, a directory with 53, a file with 20 bytes of xattrs and one chunk
  assert.deepEqual(space.placeWithData(64, 53), { inode: 0x1000, data: 0x1080 - 11, inline: true });
  assert.equal(space.placeWithData(64, 3).inode, 0x1080);
  assert.equal(space.placeWithData(64, 53).inode, 0x10e0);
  assert.equal(space.placeFile(96), 0x1160);
  assert.equal(space.end, 0x11c0);
});

test('SpaceAllocator: a directory of whole blocks and a rest keeps its rest with the inode', () => {
  const space = new SpaceAllocator(4096);
  // the block of the inode is closed with 4096 - 164 = 3932 bytes free: queue 122
  assert.deepEqual(space.placeWithData(64, 4096 + 100), { inode: 4096, data: 8192, inline: true });
  assert.equal(space.end, 12288);
  // what follows fills the hole from its start: 4096 - 122 * 32 = 192
  assert.equal(space.placeFile(64), 4096 + 192);
  assert.equal(space.placeFile(32), 4096 + 256);
  assert.equal(space.end, 12288);
});

test('SpaceAllocator: data that does not fit beside the inode goes to blocks of its own', () => {
  const space = new SpaceAllocator(4096);
  assert.deepEqual(space.placeWithData(64, 4090), { inode: 4096, data: 8192, inline: false });
  assert.equal(space.end, 12288);
  assert.deepEqual(space.placeWithData(64, 8192), { inode: 4096 + 64, data: 12288, inline: false });
  assert.equal(space.end, 20480);
});

test('SpaceAllocator: an inlined rest never straddles a block', () => {
  const space = new SpaceAllocator(4096);
  assert.equal(space.placeFile(4000), 4096);
  assert.equal(space.end, 8096);
  // 96 bytes are left of this block, 164 are needed: on to the next, the rest goes to queue 3
  assert.deepEqual(space.placeWithData(64, 100), { inode: 8192, data: 8356, inline: true });
  assert.equal(space.placeFile(96), 8096);
  assert.equal(space.end, 8384);
});

test('SpaceAllocator: queues are first in, first out, the smallest fitting one first', () => {
  const space = new SpaceAllocator(4096);
  const holes: number[] = [];
  // three blocks that end with 1024, 1024 and 512 bytes free
  for (const used of [3072 - 64, 3072 - 64, 3584 - 64]) {
    const { inode } = space.placeWithData(64 + used, 4096);
    holes.push(inode + 64 + used);
  }
  assert.deepEqual(holes, [4096 + 3072, 12288 + 3072, 20480 + 3584]);
  assert.equal(space.placeFile(512), holes[2]);
  assert.equal(space.placeFile(1024), holes[0]);
  assert.equal(space.placeFile(1000), holes[1]);
  assert.equal(space.placeFile(1024), 28672);
});

test('SpaceAllocator: special files never fill holes, and nothing of a block or more does', () => {
  const space = new SpaceAllocator(4096);
  space.placeWithData(64, 4096);
  const end = space.end;
  assert.equal(space.placeSpecial(64), end);
  assert.equal(space.placeFile(4096), end + 64);
  assert.equal(space.placeFile(64), 4096 + 64);
});
