// The table that threads share: one slot for an inode however often it is looked up, given back with its last lookup.
import assert from 'node:assert/strict';
import { openSync, readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { InodeTable, ROOT_SLOT } from './inode-table.ts';

const open = (): number => openSync('/dev/null', 'r');

function isOpen(fd: number): boolean {
  try {
    readlinkSync(`/proc/self/fd/${fd}`);
    return true;
  } catch {
    return false;
  }
}

test('InodeTable: an inode has one slot, and keeps the first descriptor', () => {
  const table = new InodeTable(InodeTable.create(open(), 1, 2, 0));
  const [first, second] = [open(), open()];
  const slot = table.lookup(first, 1, 7, 0);
  assert.equal(table.lookup(second, 1, 7, 0), slot);
  assert.equal(table.fd(slot), first);
  assert.equal(isOpen(second), false);
  assert.notEqual(table.lookup(open(), 2, 7, 0), slot);
  assert.equal(table.size, 3);
  table.close();
  assert.equal(isOpen(first), false);
});

test('InodeTable: the last lookup that is taken back frees slot and descriptor; another generation follows', () => {
  const table = new InodeTable(InodeTable.create(open(), 1, 2, 0));
  const fd = open();
  const slot = table.lookup(fd, 1, 7, 0);
  const generation = table.generation(slot);
  table.lookup(open(), 1, 7, 0);
  table.forget(slot, 1);
  assert.equal(table.fd(slot), fd);
  table.forget(slot, 1);
  assert.equal(table.fd(slot), -1);
  assert.equal(isOpen(fd), false);
  assert.equal(table.lookup(open(), 1, 8, 0), slot);
  assert.notEqual(table.generation(slot), generation);
  table.close();
});

test('InodeTable: the root stays, and what is no slot is none', () => {
  const table = new InodeTable(InodeTable.create(open(), 1, 2, 0));
  table.forget(ROOT_SLOT, 1000);
  assert.ok(table.fd(ROOT_SLOT) >= 0);
  for (const slot of [-1, 1, 5_000_000]) assert.equal(table.fd(slot), -1);
  table.forget(99, 1);
  table.close();
});

test('InodeTable: two threads that look up and forget the same inodes leave nothing behind', async () => {
  const buffer = InodeTable.create(open(), 1, 2, 0);
  const program = `
    const { workerData, parentPort } = require('node:worker_threads');
    const { openSync } = require('node:fs');
    import(workerData.module).then(({ InodeTable }) => {
      const table = new InodeTable(workerData.buffer);
      let wrong = 0;
      for (let n = 0; n < 5000; n++) {
        const slot = table.lookup(openSync('/dev/null', 'r'), 1, 10 + ((n * 7919) % 50), 0);
        if (table.fd(slot) < 0) wrong++;
        table.forget(slot, 1);
      }
      parentPort.postMessage(wrong);
    });`;
  const module = new URL('./inode-table.ts', import.meta.url).href;
  const nulls = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === '/dev/null';
      } catch {
        return false;
      }
    }).length;
  const before = nulls();
  const workers = [1, 2].map(() => new Worker(program, { eval: true, workerData: { module, buffer } }));
  const wrong = await Promise.all(
    workers.map((worker) => new Promise<number>((resolve) => worker.once('message', resolve))),
  );
  await Promise.all(workers.map((worker) => worker.terminate()));
  assert.deepEqual(wrong, [0, 0]);
  const table = new InodeTable(buffer);
  assert.equal(table.size, 1);
  assert.equal(nulls(), before);
  table.close();
});
