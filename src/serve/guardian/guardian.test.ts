import assert from 'node:assert/strict';
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { requireRoot } from '../../../test/support/prerequisites.ts';
import { readRecord, recordPath, writeRecord } from '../erofs/record.ts';
import { bootId, endGuardian, isAlive, startGuardian, takeFromGuardian } from './guardian.ts';

test(
  'guardian: what it holds can be taken after its maker has closed it, until it ends',
  { skip: requireRoot() },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'nydus-guardian-'));
    t.after(() => rmSync(dir, { recursive: true }));
    const fds = ['a', 'b'].map((name) => {
      writeFileSync(join(dir, name), name);
      return openSync(join(dir, name), 'r');
    });
    const inodes = fds.map((fd) => fstatSync(fd).ino);
    const died = Promise.withResolvers<number>();
    const guardian = await startGuardian(fds, ({ pid }) => died.resolve(pid));
    for (const fd of fds) closeSync(fd);
    const taken = takeFromGuardian(guardian, 2) ?? [];
    assert.deepEqual(
      taken.map((fd) => fstatSync(fd).ino),
      inodes,
    );
    for (const fd of taken) closeSync(fd);
    assert.equal(isAlive({ ...guardian, startTime: '1' }), false);
    endGuardian({ ...guardian, startTime: '1' });
    assert.equal(isAlive(guardian), true);
    endGuardian(guardian);
    assert.equal(await died.promise, guardian.pid);
    assert.equal(takeFromGuardian(guardian, 2), undefined);
  },
);

test('record: of this boot it is read back whole, of another one or damaged it is nothing', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'nydus-record-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = recordPath(join(dir, 'api.sock'), '/mnt');
  assert.equal(path, join(dir, 'api.sock.guardian'));
  const record = {
    version: 2,
    boot: bootId(),
    guardians: [{ pid: 7, startTime: '9' }],
    blobs: [{ id: 1, path: '/cache/x.blob.data' }],
    mounts: [{ mountpoint: '/mnt', device: '0:39', bootstrap: '/boot 1:2 3 4' }],
  } as const;
  const copy = {
    ...record,
    guardians: [...record.guardians],
    blobs: [...record.blobs],
    mounts: [...record.mounts],
  };
  writeRecord(path, copy);
  assert.deepEqual(readRecord(path), record);
  writeRecord(path, { ...copy, boot: 'another' });
  assert.equal(readRecord(path), undefined);
  writeFileSync(path, '{"version":1');
  assert.equal(readRecord(path), undefined);
  assert.match(recordPath(undefined, '/mnt'), /^\/run\/nydusd-[0-9a-f]{16}\.guardian$/);
});
