// Real /dev/fuse mounts of golden images. The calls on a mount are asynchronous here: this thread answers the misses.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { constants as fsConstants, mkdirSync, readSync, writeFileSync } from 'node:fs';
import { lstat, open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { goldenPath, repoRoot, skipUnlessGolden } from '../../../test/support/golden.ts';
import { firstReason, requireFuse, requireRoot } from '../../../test/support/prerequisites.ts';
import { mountsBelow, tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { RafsInstance } from '../../rafs/instance.ts';
import { parseConfig } from '../../storage/config-parse.ts';
import { Fop } from '../counters.ts';
import { InitFlag, InitFlag2, Opcode } from '../opcodes.ts';
import { mountDevice } from './device.ts';
import { FuseSession, type FuseMountOptions } from './session.ts';

const skip = firstReason(requireRoot(), requireFuse(), skipUnlessGolden('fuse', 'images', 'fusetree-v6'));
const ATTACH = {
  enableXattr: true,
  mountedAtSec: 1_700_000_000,
  accounting: { files: true, pattern: true, latest: true },
};

async function openImage(t: TestContext, name: string): Promise<RafsInstance> {
  const folder = goldenPath('fuse', 'images', name) ?? '';
  const { config } = parseConfig(
    JSON.stringify({
      version: 2,
      backend: { type: 'localfs', localfs: { dir: join(folder, 'blobs') } },
      cache: { type: 'blobcache', filecache: { work_dir: tempDir(t) } },
      rafs: { mode: 'direct' },
    }),
  );
  const options = { bootstrap: join(folder, 'bootstrap'), config, id: name, logger: silentLogger };
  return RafsInstance.open({ ...options, decodeThreads: 0 });
}

async function mountEmpty(t: TestContext, more: Partial<FuseMountOptions> = {}): Promise<FuseSession> {
  const mountpoint = join(tempDir(t), 'mnt');
  mkdirSync(mountpoint);
  const session = await FuseSession.mount({
    mountpoint,
    threads: 2,
    serveOpen: true,
    hold: false,
    logger: silentLogger,
    ...more,
  });
  t.after(() => session.unmount());
  return session;
}

/** errno name of a promise that must fail. */
async function code(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

test('FuseSession: empty root, attach, detach, another image: nothing old is seen', { skip }, async (t) => {
  const session = await mountEmpty(t);
  const root = session.mountpoint;
  assert.deepEqual(await readdir(root), []);
  assert.equal(await code(lstat(join(root, 'x'))), 'ENOENT');
  assert.equal((await lstat(root)).mode, 0o40777);

  const first = await openImage(t, 'fusetree-noxattr-v6');
  await session.attach('/', { kind: 'rafs', instance: first }, ATTACH);
  assert.deepEqual((await readdir(root)).toSorted().slice(0, 3), ['big', 'c', 'd']);
  assert.equal(await readFile(join(root, 'd/f'), 'utf8'), 'hello\n');
  assert.equal((await lstat(root)).mode, 0o40755);
  // this image has no `x`; the kernel remembers that
  assert.equal(await code(lstat(join(root, 'x'))), 'ENOENT');
  assert.equal((await lstat(join(root, 'd/f'), { bigint: true })).ino >> 56n, 1n);

  await session.detach('/');
  await first.close();
  assert.deepEqual(await readdir(root), []);
  assert.equal(await code(lstat(join(root, 'd/f'))), 'ENOENT');
  assert.equal(await code(lstat(join(root, 'big'))), 'ENOENT');

  const second = await openImage(t, 'fusetree-v6');
  await session.attach('/', { kind: 'rafs', instance: second }, ATTACH);
  assert.equal((await lstat(join(root, 'x'))).size, 6);
  assert.equal(await readFile(join(root, 'd/f'), 'utf8'), 'hello\n');
  await session.unmount();
  await second.close();
  assert.deepEqual(mountsBelow(root), []);
});

test('FuseSession.replace: readers under load see one image or the other', { skip }, async (t) => {
  const session = await mountEmpty(t);
  const root = session.mountpoint;
  let current = await openImage(t, 'fusetree-noxattr-v6');
  await session.attach('/', { kind: 'rafs', instance: current }, ATTACH);
  const whole = await readFile(join(root, 'big'));
  let running = true;
  const failures: unknown[] = [];
  let rounds = 0;
  const reader = async (): Promise<void> => {
    while (running) {
      try {
        if (!(await readFile(join(root, 'big'))).equals(whole)) failures.push('other bytes');
        rounds++;
      } catch (error) {
        failures.push(error);
      }
    }
  };
  const readers = [reader(), reader(), reader()];
  for (const name of ['fusetree-noxattr-v6', 'fusetree-v6', 'fusetree-v5', 'fusetree-v5']) {
    const next = await openImage(t, name);
    const { retired } = await session.replace('/', { kind: 'rafs', instance: next }, ATTACH);
    await retired;
    await current.close();
    current = next;
    await sleep(50);
  }
  running = false;
  await Promise.all(readers);
  assert.deepEqual(failures, []);
  assert.ok(rounds > 0);
  await session.unmount();
  await current.close();
});

test('FuseSession: statistics count what a reader did', { skip }, async (t) => {
  const session = await mountEmpty(t);
  const root = session.mountpoint;
  const instance = await openImage(t, 'fusetree-v6');
  await session.attach('/', { kind: 'rafs', instance }, ATTACH);
  const before = session.stats('/');
  assert.equal((await readFile(join(root, 'd/f'))).length, 6);
  const after = session.stats('/');
  assert.equal(after.data_read - before.data_read, 6);
  assert.equal((after.fop_hits[Fop.read] ?? 0) - (before.fop_hits[Fop.read] ?? 0), 1);
  assert.equal((after.block_count_read[0] ?? 0) - (before.block_count_read[0] ?? 0), 1);
  assert.equal((after.fop_hits[Fop.lookup] ?? 0) - (before.fop_hits[Fop.lookup] ?? 0), 2);
  const ino = Number((await lstat(join(root, 'd/f'), { bigint: true })).ino & ((1n << 56n) - 1n));
  assert.equal(session.accounting('/')?.files()[String(ino)]?.data_read, 6);
  assert.deepEqual(
    session
      .accounting('/')
      ?.pattern()
      .map((item) => [item.ino, item.nr_read]),
    [[ino, 1]],
  );
  assert.deepEqual(session.accounting('/')?.takeLatest(), [[ino]]);
  assert.deepEqual(session.accounting('/')?.takeLatest(), []);
  assert.deepEqual(session.inflight(), []);
  await session.unmount();
  await instance.close();
});

test(
  'FuseSession.unmount: a read that hangs in the backend is in flight before, and given up',
  { skip },
  async (t) => {
    const session = await mountEmpty(t, { serveOpen: false, hold: true });
    const instance = await openImage(t, 'fusetree-v6');
    const signals: (AbortSignal | undefined)[] = [];
    const hanging = {
      image: instance.image,
      share: instance.share,
      read: (_ino: number, _offset: number, _size: number, _target: Uint8Array, signal?: AbortSignal) =>
        new Promise<number>((_, reject) => {
          signals.push(signal);
          signal?.addEventListener('abort', () => reject(signal.reason as Error));
        }),
    };
    await session.attach('/', { kind: 'rafs', instance: hanging }, ATTACH);
    const child = spawn('cat', [join(session.mountpoint, 'd/f')], { stdio: 'ignore' });
    t.after(() => child.kill('SIGKILL'));
    while (signals.length === 0) await sleep(5);
    const request = session.inflight().find(({ opcode }) => opcode === 15);
    assert.equal(BigInt(request?.inode ?? 0) >> 56n, 1n);
    const exited = once(child, 'exit');
    await session.unmount();
    const [status] = (await exited) as [number | null];
    assert.equal(status, 1); // cat: read failed
    assert.ok(signals.every((signal) => signal?.aborted === true));
    assert.deepEqual(session.inflight(), []);
    await instance.close();
  },
);

test('FuseSession.unmount: workers asleep in a read end, and so does the process', { skip }, async (t) => {
  const session = await mountEmpty(t);
  await sleep(50);
  await session.unmount();
  assert.deepEqual(mountsBelow(session.mountpoint), []);
  await session.unmount(); // a second time is harmless
});

test(
  'FuseSession.stop: workers end, the mount stays until its last descriptor is closed',
  { skip },
  async (t) => {
    const session = await mountEmpty(t);
    await sleep(20);
    await session.stop();
    assert.deepEqual(mountsBelow(session.mountpoint), [session.mountpoint]);
    assert.equal(await code(lstat(session.mountpoint)), 'ENOTCONN');
    assert.equal(spawnSync('umount', ['-l', session.mountpoint]).status, 0);
  },
);

test('FuseSession.ended: resolves when somebody else unmounts', { skip }, async (t) => {
  const session = await mountEmpty(t);
  assert.deepEqual(await readdir(session.mountpoint), []);
  assert.equal(spawnSync('umount', ['-l', session.mountpoint]).status, 0);
  await session.ended;
  await session.unmount();
});

test('FuseSession: the wire log has one JSON record per operation', { skip }, async (t) => {
  const lines: string[] = [];
  const logger = { ...silentLogger, level: 'trace', trace: (line: string) => void lines.push(line) };
  const session = await mountEmpty(t, { logger });
  assert.equal(await code(lstat(join(session.mountpoint, 'nothing'))), 'ENOENT');
  while (!lines.some((line) => line.includes('LOOKUP'))) await sleep(5);
  const record = JSON.parse(lines.find((line) => line.includes('LOOKUP')) ?? '') as Record<string, unknown>;
  assert.deepEqual(Object.keys(record), ['op', 'unique', 'nodeid', 'us', 'errno']);
  assert.deepEqual([record['op'], record['nodeid'], record['errno']], ['LOOKUP', '0x1', 'ENOENT']);
});

test('kill -9: the mountpoint gives ENOTCONN and a lazy umount cleans it', { skip }, async (t) => {
  const dir = tempDir(t);
  const root = join(dir, 'mnt');
  mkdirSync(root);
  const folder = goldenPath('fuse', 'images', 'fusetree-v6') ?? '';
  const args = [join(folder, 'bootstrap'), join(folder, 'blobs'), join(dir, 'cache'), root, '2'];
  const child = spawn(process.execPath, [join(repoRoot, 'bench/fuse/serve.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  assert.equal(await readFile(join(root, 'd/f'), 'utf8'), 'hello\n');
  child.kill('SIGKILL');
  await once(child, 'exit');
  // d/f is cached for ever; this name is not
  assert.equal(await code(lstat(join(root, 'big'))), 'ENOTCONN');
  assert.equal(spawnSync('umount', ['-l', root]).status, 0);
  assert.deepEqual(mountsBelow(root), []);
});

test('process.exit: does not hang on workers that sleep in a read', { skip }, (t) => {
  const dir = tempDir(t);
  const root = join(dir, 'mnt');
  mkdirSync(root);
  const script = `
    const { FuseSession } = await import(${JSON.stringify(join(repoRoot, 'src/serve/fuse/session.ts'))});
    const { silentLogger } = await import(${JSON.stringify(join(repoRoot, 'src/base/log.ts'))});
    await FuseSession.mount({ mountpoint: ${JSON.stringify(root)}, threads: 2, serveOpen: true,
      hold: false, logger: silentLogger });
    await new Promise((resolve) => setTimeout(resolve, 50));
    process.exit(7);`;
  writeFileSync(join(dir, 'exits.mjs'), script);
  const result = spawnSync(process.execPath, [join(dir, 'exits.mjs')], { timeout: 20_000 });
  assert.equal(result.status, 7, String(result.stderr));
  assert.equal(spawnSync('umount', ['-l', root]).status, 0);
});

test('FuseSession: O_RDONLY alone is served when opens are asked for', { skip }, async (t) => {
  const session = await mountEmpty(t);
  const instance = await openImage(t, 'fusetree-v6');
  await session.attach('/', { kind: 'rafs', instance }, ATTACH);
  const handle = await open(join(session.mountpoint, 'x'), 'r');
  assert.equal((await handle.stat()).size, 6);
  await handle.close();
  assert.equal(await code(open(join(session.mountpoint, 'x'), fsConstants.O_RDWR)), 'EROFS');
  await session.unmount();
  await instance.close();
});

test(
  'FuseSession: a daemon that died before it answered INIT has a successor',
  { skip, timeout: 30_000 },
  async (t) => {
    const mountpoint = join(tempDir(t), 'mnt');
    mkdirSync(mountpoint);
    const deviceFd = await mountDevice(mountpoint, silentLogger);
    // what the daemon before has read, taken note of, and not answered
    const request = Buffer.alloc(1 << 17);
    assert.equal(readSync(deviceFd, request) >= 56, true);
    assert.equal(request.readUInt32LE(4), Opcode.INIT);
    const offered = (BigInt(request.readUInt32LE(56)) << 32n) | BigInt(request.readUInt32LE(52));
    const agreed =
      offered & ((BigInt(InitFlag2.HAS_RESEND) << 32n) | BigInt(InitFlag.INIT_EXT | InitFlag.ASYNC_READ));
    const options = { mountpoint, threads: 2, serveOpen: true, hold: false, logger: silentLogger };
    const session = FuseSession.adopt(options, deviceFd, {
      offered,
      agreed,
      directories: [],
      next: { index: 1, ino: 2 },
    });
    t.after(() => session.unmount());
    await session.resume();
    await session.drain('resend');
    assert.deepEqual(await readdir(mountpoint), []);
  },
);
