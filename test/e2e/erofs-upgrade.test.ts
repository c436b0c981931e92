// Hot upgrade of a daemon whose image the kernel serves, and what a supervisor keeps when everything else is killed: readers check every byte
// and see a pause, never an error. NYDUS_UPGRADES sets how often (default 2). Source: docs/failover.md.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { apiRequest, type Daemon } from '../support/daemon.ts';
import { guardiansOf, randomImage, slowFill, type RandomImage } from '../support/erofs-image.ts';
import { command, launch, save, stateOf, takeOver, type LaunchOptions } from '../support/failover.ts';
import { firstReason, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const ROUNDS = Number(process.env['NYDUS_UPGRADES'] ?? 2);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Place {
  dir: string;
  mountpoint: string;
  image: RandomImage;
  driver: 'fanotify' | 'fileio';
  /** undefined: the daemon has none */
  supervisor: Supervisor | undefined;
  /** with a writable layer */
  overlay?: boolean;
  /** every guardian that was seen */
  guardians: Set<number>;
}

const DRIVERS = ['fanotify', 'fileio'] as const;

function place(
  t: TestContext,
  files: number,
  size: number,
  driver: Place['driver'] = 'fanotify',
): Place & { supervisor: Supervisor } {
  const dir = tempDir(t);
  const mountpoint = join(dir, 'mnt');
  mkdirSync(mountpoint);
  const supervisor = new Supervisor(join(dir, 'd1.sock'));
  t.after(() => {
    supervisor.close();
    unmountBelow(dir);
  });
  const image = randomImage(dir, files, size);
  return { dir, mountpoint, driver, image, supervisor, guardians: new Set() };
}

async function start(
  t: TestContext,
  at: Place,
  socket: string,
  more: string[],
): Promise<{ daemon: Daemon; state: string }> {
  const { dir, mountpoint, image, supervisor } = at;
  const layers = { upper_dir: join(dir, 'upper'), work_dir: join(dir, 'layer-work') };
  const config = slowFill(image, join(dir, 'cache')) as { device: object };
  const { backend, cache } = config.device as { backend: { config: object }; cache: { config: object } };
  const options: LaunchOptions = {
    dir,
    mountpoint,
    socket,
    args: [
      ...(supervisor === undefined ? [] : ['--supervisor', supervisor.path, '--id', 'd1']),
      '--driver',
      at.driver,
      ...more,
    ],
    bootstrap: image.bootstrap,
    config: !at.overlay
      ? config
      : {
          version: 2,
          backend: { type: 'localfs', localfs: backend.config },
          cache: { type: 'blobcache', filecache: cache.config },
          rafs: { mode: 'direct', batch_size: 0 },
          overlay: layers,
        },
  };
  const started = await launch(options);
  t.after(() => started.daemon.child.kill('SIGKILL'));
  for (
    let waited = 0;
    more.length === 0 && (await stateOf(started.daemon)) === 'INIT' && waited < 50;
    waited++
  )
    await sleep(20);
  return started;
}

const isThere = (pid: number): boolean => existsSync(`/proc/${pid}/exe`);

async function assertGone(pids: readonly number[]): Promise<void> {
  for (let waited = 0; pids.some(isThere) && waited < 100; waited++) await sleep(20);
  assert.deepEqual(pids.filter(isThere), [], 'guardians stay behind');
}

for (const driver of DRIVERS)
  test(
    `${driver}, hot upgrade, ${ROUNDS} times: readers see a pause`,
    { skip, timeout: 120_000 + ROUNDS * 40_000 },
    async (t) => {
      const at = place(t, 12, 3_000_000, driver);
      let { daemon } = await start(t, at, 'api0.sock', []);
      const readers = await CheckReaders.start(at.mountpoint, at.image.source);
      t.after(() => readers.kill());
      for (let round = 1; round <= ROUNDS; round++) {
        for (const pid of guardiansOf(daemon.apisock)) at.guardians.add(pid);
        await save(daemon, at.supervisor);
        const { daemon: next, state } = await start(t, at, `api${round}.sock`, ['--upgrade']);
        assert.equal(state, 'INIT');
        await takeOver(next, at.supervisor);
        assert.equal(await stateOf(next), 'READY');
        await command(daemon, '/api/v1/daemon/exit');
        assert.equal(await daemon.ended, 0, daemon.log);
        await save(next, at.supervisor);
        await sleep((round * 37) % 100);
        await command(next, '/api/v1/daemon/start');
        assert.equal(await stateOf(next), 'RUNNING');
        assert.match(next.log, /going on with the mount at .* that a daemon before left/);
        assert.equal(guardiansOf(daemon.apisock).length, 0, 'the record of the daemon before');
        daemon = next;
        await sleep(50 + ((round * 53) % 100));
      }
      const report = await readers.finish();
      assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
      const info = (await daemon.get('/api/v1/daemon')) as { driver?: { name: string } };
      assert.equal(info.driver?.name, driver);
      assert.deepEqual(mountsBelow(at.mountpoint), [at.mountpoint], 'one mount, the first one');
      for (const pid of guardiansOf(daemon.apisock)) at.guardians.add(pid);
      assert.equal(await daemon.stop(), 0, daemon.log);
      assert.deepEqual(mountsBelow(at.mountpoint), []);
      await assertGone([...at.guardians]);
    },
  );

test(
  'fanotify, a successor that is told to start while the daemon before serves waits until that one ends',
  { skip },
  async (t) => {
    const at = place(t, 4, 1_000_000);
    const { daemon } = await start(t, at, 'api0.sock', []);
    const readers = await CheckReaders.start(at.mountpoint, at.image.source);
    t.after(() => readers.kill());
    await save(daemon, at.supervisor);
    const { daemon: next } = await start(t, at, 'api1.sock', ['--upgrade']);
    await takeOver(next, at.supervisor);
    const starting = command(next, '/api/v1/daemon/start');
    await sleep(200);
    assert.doesNotMatch(next.log, /going on with the mount/);
    daemon.child.kill('SIGKILL');
    await starting;
    assert.match(next.log, /going on with the mount/);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], next.log);
    assert.equal(await next.stop(), 0, next.log);
    assert.deepEqual(mountsBelow(at.mountpoint), []);
  },
);

for (const driver of DRIVERS)
  test(
    `${driver}, kill -9 of the daemon and of every guardian: what the supervisor keeps makes readers wait, and the next daemon goes on`,
    { skip, timeout: 120_000 + ROUNDS * 40_000 },
    async (t) => {
      const at = place(t, 10, 2_000_000, driver);
      process.env['NYDUSD_FREEZE'] = '0';
      t.after(() => delete process.env['NYDUSD_FREEZE']);
      let { daemon } = await start(t, at, 'api0.sock', []);
      const readers = await CheckReaders.start(at.mountpoint, at.image.source);
      t.after(() => readers.kill());
      for (let round = 0; round < ROUNDS; round++) {
        await save(daemon, at.supervisor);
        await sleep((round * 37) % 100);
        const guardians = guardiansOf(daemon.apisock);
        assert.equal(guardians.length, driver === 'fanotify' ? 2 : 1);
        for (const pid of [daemon.pid, ...guardians]) process.kill(pid, 'SIGKILL');
        await daemon.ended;
        await sleep(50);
        const { daemon: next, state } = await start(t, at, 'api0.sock', ['--upgrade']);
        assert.equal(state, 'INIT', next.log);
        await takeOver(next, at.supervisor);
        await command(next, '/api/v1/daemon/start');
        assert.match(next.log, /going on with the mount/);
        daemon = next;
        await sleep(50);
      }
      const report = await readers.finish();
      assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
      const guardians = guardiansOf(daemon.apisock);
      assert.equal(await daemon.stop(), 0, daemon.log);
      await assertGone(guardians);
    },
  );

test(
  'fanotify, a takeover that cannot be is an error that says why, and harms nothing',
  { skip },
  async (t) => {
    const at = place(t, 2, 100_000);
    const { daemon } = await start(t, at, 'api0.sock', []);
    await save(daemon, at.supervisor);
    const other = join(at.dir, 'other');
    mkdirSync(other);
    const { daemon: next } = await start(t, { ...at, mountpoint: other }, 'api1.sock', ['--upgrade']);
    const sent = at.supervisor.send();
    const [answer] = await Promise.all([
      apiRequest(next.apisock, 'PUT', '/api/v1/daemon/fuse/takeover'),
      sent,
    ]);
    assert.equal(answer.status, 500);
    assert.match(answer.body, /the mount that was handed over is at .*mnt, not at .*other/);
    next.child.kill('SIGKILL');
    await next.ended;
    const read = (root: string): Buffer => readFileSync(join(root, 'file1'));
    assert.equal(read(at.mountpoint).equals(read(at.image.source)), true);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.deepEqual(mountsBelow(at.mountpoint), []);
  },
);

const layered = (mountpoint: string): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4] === mountpoint)
    .map((line) => line.split(' - ')[1]?.split(' ')[0] ?? '');

for (const driver of DRIVERS)
  test(
    `${driver} with a writable layer on top: what was written is there after an upgrade and after a crash`,
    { skip },
    async (t) => {
      const at = { ...place(t, 6, 1_000_000, driver), overlay: true };
      const same = (name: string): void => {
        const [seen, wanted] = [at.mountpoint, at.image.source].map((root) => readFileSync(join(root, name)));
        assert.equal(seen !== undefined && wanted?.equals(seen), true, name);
      };
      const { daemon: first } = await start(t, at, 'api0.sock', ['--writable']);
      writeFileSync(join(at.mountpoint, 'file0'), 'zero');
      await save(first, at.supervisor);
      const { daemon: second } = await start(t, at, 'api1.sock', ['--writable', '--upgrade']);
      await takeOver(second, at.supervisor);
      await command(first, '/api/v1/daemon/exit');
      await command(second, '/api/v1/daemon/start');
      assert.match(second.log, /going on with the mount/);
      assert.deepEqual(layered(at.mountpoint), ['erofs', 'overlay']);
      assert.equal(readFileSync(join(at.mountpoint, 'file0'), 'utf8'), 'zero');
      same('file1');
      writeFileSync(join(at.mountpoint, 'new'), 'one');
      await save(second, at.supervisor);
      second.child.kill('SIGKILL');
      await second.ended;
      const { daemon: third } = await start(t, at, 'api1.sock', ['--writable', '--upgrade']);
      await takeOver(third, at.supervisor);
      await command(third, '/api/v1/daemon/start');
      assert.match(third.log, /going on with the mount/);
      assert.deepEqual(layered(at.mountpoint), ['erofs', 'overlay']);
      assert.equal(readFileSync(join(at.mountpoint, 'new'), 'utf8'), 'one');
      same('file2');
      third.child.kill('SIGKILL');
      await third.ended;
      const alone = { ...at, supervisor: undefined };
      const { daemon: fourth } = await start(t, alone, 'api1.sock', ['--writable']);
      assert.equal(await awaitRunning(fourth), 'RUNNING', fourth.log);
      assert.match(fourth.log, /going on with the mount/);
      assert.deepEqual(layered(at.mountpoint), ['erofs', 'overlay']);
      assert.equal(readFileSync(join(at.mountpoint, 'new'), 'utf8'), 'one');
      same('file3');
      assert.equal(await fourth.stop(), 0, fourth.log);
      assert.deepEqual(layered(at.mountpoint), []);
    },
  );

async function awaitRunning(daemon: Daemon): Promise<string | undefined> {
  for (let waited = 0; (await stateOf(daemon)) !== 'RUNNING' && waited < 200; waited++) await sleep(20);
  return stateOf(daemon);
}
