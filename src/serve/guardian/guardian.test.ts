import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { requireRoot } from '../../../test/support/prerequisites.ts';
import { readRecord, recordPath, writeRecord } from '../erofs/record.ts';
import {
  bootId,
  endGuardian,
  isAlive,
  startGuardian,
  takeFromGuardian,
  type ProcessIdentity,
} from './guardian.ts';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function record(dir: string, ...guardians: ProcessIdentity[]): string {
  const path = join(dir, 'record');
  writeFileSync(path, `${JSON.stringify({ boot: 'x', guardians, mounts: [] })}\n`);
  return path;
}

function directory(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'nydus-guardian-'));
  t.after(() => rmSync(dir, { recursive: true }));
  return dir;
}

test(
  'guardian: what it holds can be taken after its maker has closed it, until it ends',
  { skip: requireRoot() },
  async (t) => {
    const dir = directory(t);
    const fds = ['a', 'b'].map((name) => {
      writeFileSync(join(dir, name), name);
      return openSync(join(dir, name), 'r');
    });
    const inodes = fds.map((fd) => fstatSync(fd).ino);
    const died = Promise.withResolvers<number>();
    // as the path of a socket may be given
    const path = relative(process.cwd(), join(dir, 'record'));
    const made = await startGuardian(fds, path, ({ pid }) => died.resolve(pid));
    const guardian = made.identity;
    record(dir, { pid: 1, startTime: '0' }, guardian);
    await made.confirm();
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

test('guardian: one that its record does not name ends, and says so to who confirms it', async (t) => {
  const dir = directory(t);
  for (const named of [undefined, { pid: 1, startTime: '0' }]) {
    if (named !== undefined) record(dir, named);
    const died = Promise.withResolvers<number>();
    const made = await startGuardian([], join(dir, 'record'), ({ pid }) => died.resolve(pid));
    await assert.rejects(made.confirm(), /is not in its record/);
    assert.equal(await died.promise, made.identity.pid);
  }
});

const module = fileURLToPath(new URL('./guardian.ts', import.meta.url));

for (const [moment, writes] of [
  ['before the record is there', false],
  ['when the record is there', true],
] as const)
  test(`guardian: its maker gets kill -9 ${moment}: it ${writes ? 'stays' : 'ends'}`, async (t) => {
    const dir = directory(t);
    const path = join(dir, 'record');
    // the maker never confirms: all it can do is to die
    const script = `
      const { startGuardian } = require(${JSON.stringify(module)});
      startGuardian([], ${JSON.stringify(path)}, () => {}).then(({ identity }) => {
        if (${writes}) require('node:fs').writeFileSync(${JSON.stringify(path)}, JSON.stringify({ guardians: [identity] }) + '\\n');
        console.log(JSON.stringify(identity));
        setInterval(() => {}, 1000);
      });`;
    const maker = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(maker.stdout, 'data')) as [Buffer];
    const guardian = JSON.parse(line.toString()) as ProcessIdentity;
    t.after(() => endGuardian(guardian));
    assert.equal(isAlive(guardian), true);
    maker.kill('SIGKILL');
    await once(maker, 'exit');
    const reading = `/proc/${guardian.pid}/fd/1`;
    const settled = (): boolean => !isAlive(guardian) || !existsSync(reading);
    for (let waited = 0; !settled() && waited < 500; waited++) await sleep(10);
    assert.equal(isAlive(guardian), writes);
  });

test('record: of this boot it is read back whole, of another one or damaged it is nothing', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'nydus-record-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = recordPath(join(dir, 'api.sock'), '/mnt');
  assert.equal(path, join(dir, 'api.sock.guardian'));
  const record = {
    version: 3,
    driver: 'fanotify',
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
