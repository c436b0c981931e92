// Mounts by API that the kernel serves by itself, over the directories of the FUSE mount: what is read, remount, unmount, falling back, and what
// becomes of them when the daemon is killed or replaced. Source: decision 0009; docs/drivers.md.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { apiRequest, type Daemon } from '../support/daemon.ts';
import {
  guardiansBelow,
  guardiansLeft,
  randomImage,
  slowFill,
  type RandomImage,
} from '../support/erofs-image.ts';
import { awaitKeeper, command, save, stateOf, takeOver } from '../support/failover.ts';
import { kill, place, start, supervised, type Place } from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow } from '../support/temporary.ts';
import { compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const ROUNDS = Number(process.env['NYDUS_FAILOVERS'] ?? 2);
const DRIVERS = ['fanotify', 'fileio'] as const;
const PLACES = ['/one', '/nested/two'] as const;

interface Images extends Place {
  /** by place */
  images: Record<string, RandomImage>;
}

interface Info {
  driver?: { name: string; fallbacks: string[]; mounts?: Record<string, string> };
  backend_collection: object;
}

function images(t: TestContext, count = 6, size = 700_000): Images {
  const at = place(t, count, size);
  mkdirSync(join(at.dir, 'second'));
  t.after(() => {
    for (const pid of guardiansBelow(at.dir)) process.kill(pid, 'SIGKILL');
  });
  return {
    ...at,
    images: { '/one': at.image, '/nested/two': randomImage(join(at.dir, 'second'), count, size) },
  };
}

/** @param driver key of the configuration */
async function mount(
  daemon: Daemon,
  { dir }: Place,
  image: RandomImage,
  where: string,
  driver: string | undefined,
  method = 'POST',
): Promise<void> {
  const config = { ...slowFill(image, join(dir, 'cache')), ...(driver === undefined ? {} : { driver }) };
  const body = JSON.stringify({ fs_type: 'rafs', source: image.bootstrap, config: JSON.stringify(config) });
  const answer = await apiRequest(daemon.apisock, method, `/api/v1/mount?mountpoint=${where}`, body);
  assert.equal(answer.status, 204, `${answer.body}\n${daemon.log}`);
}

async function unmount(daemon: Daemon, where: string): Promise<void> {
  const { status, body } = await apiRequest(daemon.apisock, 'DELETE', `/api/v1/mount?mountpoint=${where}`);
  assert.equal(status, 204, body);
}

/** Types of the mounts at a path, the newest last. */
function typesAt(path: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4] === path)
    .map((line) => line.split(' - ')[1]?.split(' ')[0] ?? '');
}

/** What FUSE and EROFS see differently. */
const OWN = ['ino', 'blocks', 'blksize', 'mtime:/', 'mtime_nsec:/', 'mode:/'];

function assertSame(image: RandomImage, path: string, why: string): void {
  const ignore = [...OWN, ...directorySizes(walkTree(image.source))];
  assert.deepEqual(compareTrees(image.source, path, { ignore }), [], why);
}

const info = async (daemon: Daemon): Promise<Info> => (await daemon.get('/api/v1/daemon')) as Info;
const launchOptions = ({ dir, mountpoint }: Place, args: string[] = []) => ({ dir, mountpoint, args });

async function assertNothingLeft(at: Place, { log }: Daemon): Promise<void> {
  assert.doesNotMatch(log, /ERROR/);
  assert.deepEqual(mountsBelow(at.mountpoint), []);
  const guardians = await guardiansLeft(at.dir);
  assert.deepEqual(
    guardians.map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[4]),
    [],
  );
  assert.deepEqual(
    readdirSync(at.dir).filter((name) => /guardian|fileio|failover/.test(name)),
    [],
  );
}

for (const driver of DRIVERS)
  test(
    `${driver} by API: two images are seen whole, counted, exchanged and taken away`,
    { skip, timeout: 120_000 },
    async (t) => {
      const at = images(t);
      const { daemon } = await start(t, launchOptions(at));
      assert.equal((await info(daemon)).driver, undefined);
      for (const where of PLACES) {
        await mount(daemon, at, at.images[where] ?? at.image, where, driver);
        assert.deepEqual(typesAt(join(at.mountpoint, where)), ['erofs'], daemon.log);
        assertSame(at.images[where] ?? at.image, join(at.mountpoint, where), daemon.log);
      }
      assert.deepEqual((await info(daemon)).driver, {
        name: 'fuse',
        fallbacks: [],
        mounts: { '/one': driver, '/nested/two': driver },
      });
      assert.deepEqual(Object.keys((await info(daemon)).backend_collection), ['/nested/two', '/one']);
      for (const where of PLACES) {
        const metrics = (await daemon.get(`/api/v1/metrics?id=${where}`)) as { data_read: number };
        // the kernel reads whole pages and asks for each range once
        assert.ok(metrics.data_read >= 6 * 700_000, `${where}: ${metrics.data_read}`);
      }
      const other = at.images['/nested/two'] ?? at.image;
      await mount(daemon, at, other, '/one', driver, 'PUT');
      assert.deepEqual(typesAt(join(at.mountpoint, 'one')), ['erofs']);
      assertSame(other, join(at.mountpoint, 'one'), daemon.log);
      // the same image again, then by FUSE
      await mount(daemon, at, other, '/one', driver, 'PUT');
      assert.deepEqual(typesAt(join(at.mountpoint, 'one')), ['erofs']);
      await mount(daemon, at, at.image, '/one', 'fuse', 'PUT');
      assert.deepEqual(typesAt(join(at.mountpoint, 'one')), []);
      assertSame(at.image, join(at.mountpoint, 'one'), daemon.log);
      assert.deepEqual((await info(daemon)).driver?.mounts, { '/nested/two': driver });
      await unmount(daemon, '/nested/two');
      assert.deepEqual(typesAt(join(at.mountpoint, 'nested/two')), []);
      assert.deepEqual(readdirSync(join(at.mountpoint, 'nested/two')), []);
      assert.deepEqual(await guardiansLeft(at.dir), [], 'nothing is mounted that needs one');
      await mount(daemon, at, other, '/nested/two', driver);
      assertSame(other, join(at.mountpoint, 'nested/two'), daemon.log);
      assert.equal(await daemon.stop(), 0, daemon.log);
      await assertNothingLeft(at, daemon);
    },
  );

test(
  'by API: what the kernel cannot serve is served by FUSE, and the reason is told; --driver wins over the configuration',
  { skip, timeout: 120_000 },
  async (t) => {
    const at = images(t, 2, 100_000);
    mkdirSync(join(at.dir, 'old'));
    const old = randomImage(join(at.dir, 'old'), 2, 50_000, ['--fs-version', '5']);
    const { daemon } = await start(t, launchOptions(at, ['--driver', 'auto']));
    await mount(daemon, at, old, '/old', 'fuse');
    assert.deepEqual(typesAt(join(at.mountpoint, 'old')), []);
    assertSame(old, join(at.mountpoint, 'old'), daemon.log);
    await mount(daemon, at, at.image, '/one', undefined);
    assert.deepEqual(typesAt(join(at.mountpoint, 'one')), ['erofs']);
    await mount(daemon, at, at.image, '/one/below', undefined);
    assert.deepEqual((await info(daemon)).driver, {
      name: 'fuse',
      fallbacks: [
        '/old: fanotify: RAFS v5: EROFS is v6 only',
        '/old: fileio: RAFS v5: EROFS is v6 only',
        '/one/below: fanotify: /one is mounted, too, and one would hide the other',
        '/one/below: fileio: /one is mounted, too, and one would hide the other',
      ],
      mounts: { '/one': 'fanotify' },
    });
    assert.match(daemon.log, /driver fanotify: RAFS v5: EROFS is v6 only; the mount at \/old falls back/);
    await unmount(daemon, '/one/below');
    await unmount(daemon, '/old');
    await mount(daemon, at, at.image, '/', undefined);
    assert.deepEqual(typesAt(at.mountpoint), ['fuse']);
    assert.deepEqual((await info(daemon)).driver?.mounts, {});
    assertSame(at.image, at.mountpoint, daemon.log);
    assert.equal(await daemon.stop(), 0, daemon.log);
    await assertNothingLeft(at, daemon);
  },
);

const devices = ({ mountpoint }: Place): number[] =>
  PLACES.map((where) => statSync(join(mountpoint, where)).dev);

for (const driver of DRIVERS)
  test(
    `${driver} by API: kill -9 with a guardian, ${ROUNDS} times: readers see a pause, and the mounts are the same`,
    { skip, timeout: 120_000 + ROUNDS * 40_000 },
    async (t) => {
      const at = images(t, 8, 2_000_000);
      const options = launchOptions(at, ['--failover-policy', 'resend']);
      let { daemon } = await start(t, options);
      let guardian = await awaitKeeper(daemon.apisock);
      for (const where of PLACES) await mount(daemon, at, at.images[where] ?? at.image, where, driver);
      const before = devices(at);
      const readers = await CheckReaders.start(
        join(at.mountpoint, 'nested/two'),
        at.images['/nested/two']?.source ?? '',
      );
      t.after(() => readers.kill());
      for (let round = 0; round < ROUNDS; round++) {
        await new Promise((resolve) => setTimeout(resolve, (round * 37) % 150));
        await kill(daemon);
        ({ daemon } = await start(t, options));
        assert.equal(await stateOf(daemon), 'RUNNING', daemon.log);
        assert.match(daemon.log, /going on with the mount at .*nested\/two that a daemon before left/);
        guardian = await awaitKeeper(daemon.apisock, guardian);
      }
      assert.deepEqual(devices(at), before);
      assert.deepEqual((await info(daemon)).driver?.mounts, { '/one': driver, '/nested/two': driver });
      const report = await readers.finish();
      assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
      assertSame(at.image, join(at.mountpoint, 'one'), daemon.log);
      await unmount(daemon, '/one');
      await mount(daemon, at, at.image, '/three', driver);
      assertSame(at.image, join(at.mountpoint, 'three'), daemon.log);
      assert.equal(await daemon.stop(), 0, daemon.log);
      await assertNothingLeft(at, daemon);
    },
  );

for (const driver of DRIVERS)
  test(
    `${driver} by API: hot upgrade, ${ROUNDS} times, then a crash: readers see a pause, and the mounts are the same`,
    { skip, timeout: 120_000 + ROUNDS * 40_000 },
    async (t) => {
      const at = images(t, 8, 2_000_000);
      const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
      t.after(() => supervisor.close());
      let { daemon } = await start(t, supervised(at, supervisor, 0));
      for (const where of PLACES) await mount(daemon, at, at.images[where] ?? at.image, where, driver);
      const before = devices(at);
      const readers = await CheckReaders.start(
        join(at.mountpoint, 'nested/two'),
        at.images['/nested/two']?.source ?? '',
      );
      t.after(() => readers.kill());
      for (let round = 1; round <= ROUNDS + 1; round++) {
        await save(daemon, supervisor);
        if (round > ROUNDS) await kill(daemon);
        const { daemon: next } = await start(t, supervised(at, supervisor, round, ['--upgrade']));
        await takeOver(next, supervisor);
        if (round <= ROUNDS) {
          await command(daemon, '/api/v1/daemon/exit');
          assert.equal(await daemon.ended, 0, daemon.log);
        }
        await save(next, supervisor);
        await command(next, '/api/v1/daemon/start');
        assert.equal(await stateOf(next), 'RUNNING');
        daemon = next;
        assert.match(daemon.log, /going on with the mount at .*nested\/two that a daemon before left/);
        assert.deepEqual(devices(at), before);
      }
      assert.deepEqual((await info(daemon)).driver?.mounts, { '/one': driver, '/nested/two': driver });
      const report = await readers.finish();
      assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
      assertSame(at.image, join(at.mountpoint, 'one'), daemon.log);
      assert.equal(await daemon.stop(), 0, daemon.log);
      await assertNothingLeft(at, daemon);
    },
  );

test(
  'by API: kill -9 without anybody who keeps the FUSE mount: the next start takes everything away, and mounts anew',
  { skip, timeout: 120_000 },
  async (t) => {
    const at = images(t, 2, 300_000);
    const { daemon: first } = await start(t, launchOptions(at));
    await mount(first, at, at.image, '/one', 'fanotify');
    await mount(first, at, at.image, '/two', 'fileio');
    await kill(first);
    const { daemon } = await start(t, launchOptions(at));
    assert.deepEqual(mountsBelow(at.mountpoint), [at.mountpoint]);
    assert.deepEqual(await guardiansLeft(at.dir), []);
    await mount(daemon, at, at.image, '/one', 'fanotify');
    assertSame(at.image, join(at.mountpoint, 'one'), daemon.log);
    assert.equal(await daemon.stop(), 0, daemon.log);
    await assertNothingLeft(at, daemon);
  },
);
