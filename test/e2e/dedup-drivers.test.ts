// `nydusd --dedup-db` with the kernel drivers, over kill -9 and hot upgrade, and beside daemons that know nothing of it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { apiRequest, localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { slowFill, type RandomImage } from '../support/erofs-image.ts';
import { command, save, takeOver } from '../support/failover.ts';
import { guarded, kill, place, start, supervised, type Place } from '../support/failover-place.ts';
import { firstReason, requireFuse, requireRoot } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { nydusImage } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';
import { Supervisor } from '../support/supervisor.ts';

const skip = firstReason(requireFuse(), requireRoot());
const OWN = 600_000;

/** An image with the files of another one, and a file of its own in front. */
function sibling({ dir, image }: Place): RandomImage {
  const root = join(dir, 'sibling');
  const [source, blobs, bootstrap] = [join(root, 'source'), join(root, 'blobs'), join(root, 'boot')];
  mkdirSync(root);
  mkdirSync(blobs);
  cpSync(image.source, source, { recursive: true });
  writeFileSync(join(source, 'aaa'), noise('own', OWN));
  const args = ['create', '--compressor', 'none', '--chunk-size', '0x10000', '--blob-dir', blobs];
  nydusImage([...args, '--bootstrap', bootstrap, source]);
  return { source, bootstrap, blobs };
}

function isSame(source: string, mountpoint: string): void {
  const { status, stdout, stderr } = spawnSync('diff', ['-r', source, mountpoint], { encoding: 'utf8' });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

function chunksIn(db: string): number {
  const reader = new DatabaseSync(db, { readOnly: true });
  const { n } = reader.prepare('SELECT count(*) AS n FROM Chunks').get() as { n: number };
  reader.close();
  return n;
}

const copied = async (daemon: Daemon): Promise<number> =>
  ((await daemon.get('/api/v1/metrics/blobcache')) as { dedup_chunks: number }).dedup_chunks;
const fetched = async (daemon: Daemon): Promise<number> =>
  ((await daemon.get('/api/v1/metrics/backend')) as { read_amount_total: number }).read_amount_total;

/** A plain daemon that has served an image to its end, in a cache of its own. */
async function fill(at: Place, image: RandomImage, cache: string, args: string[]): Promise<void> {
  await using daemon = await startDaemon({
    workDir: join(at.dir, `fill-${cache}`),
    bootstrap: image.bootstrap,
    config: localConfig(image.blobs, join(at.dir, cache)),
    args,
  });
  isSame(image.source, daemon.mountpoint);
  assert.equal(await daemon.stop(), 0, daemon.log);
}

for (const driver of ['fanotify', 'fileio']) {
  test(
    `nydusd --driver ${driver} --dedup-db: copies what others have, and gives what it has once the kernel is done with it`,
    { skip: firstReason(skip, requirePreContent()) },
    async (t) => {
      const at = place(t, 4, 500_000);
      const other = sibling(at);
      const dedup = ['--dedup-db', join(at.dir, 'dedup.db')];
      await fill(at, at.image, 'first', dedup);
      const shared = chunksIn(join(at.dir, 'dedup.db'));
      {
        await using daemon = await startDaemon({
          workDir: join(at.dir, 'kernel'),
          bootstrap: other.bootstrap,
          config: localConfig(other.blobs, join(at.dir, 'second')),
          args: ['--driver', driver, ...dedup],
        });
        isSame(other.source, daemon.mountpoint);
        assert.equal(await copied(daemon), shared, daemon.log);
        assert.ok((await fetched(daemon)) <= OWN * 1.2);
        // a third one, while the kernel reads the second cache by itself and the first is gone: it has to fetch, and does
        rmSync(join(at.dir, 'first'), { recursive: true });
        await fill(at, at.image, 'third', dedup);
        assert.equal(await daemon.stop(), 0, daemon.log);
      }
      rmSync(join(at.dir, 'third'), { recursive: true });
      await using last = await startDaemon({
        workDir: join(at.dir, 'last'),
        bootstrap: at.image.bootstrap,
        config: localConfig(at.image.blobs, join(at.dir, 'fourth')),
        args: dedup,
      });
      isSame(at.image.source, last.mountpoint);
      assert.equal(await copied(last), shared, 'all from the cache that the kernel had');
    },
  );
}

test(
  'nydusd --dedup-db: a daemon that is killed in the middle; the next one goes on copying',
  { skip },
  async (t) => {
    const at = place(t, 8, 1_000_000);
    const dedup = ['--dedup-db', join(at.dir, 'dedup.db')];
    await fill(at, sibling(at), 'first', dedup);
    const options = guarded(at, { args: ['--failover-policy', 'resend', ...dedup] });
    let { daemon } = await start(t, options);
    const readers = await CheckReaders.start(at.mountpoint, at.image.source);
    t.after(() => readers.kill());
    while ((await copied(daemon)) === 0) await new Promise((resolve) => void setTimeout(resolve, 2));
    await kill(daemon);
    ({ daemon } = await start(t, options));
    isSame(at.image.source, at.mountpoint);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
    assert.ok((await fetched(daemon)) < 100_000, `${await fetched(daemon)} bytes were fetched`);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);

test('nydusd --dedup-db: hot upgrade; the successor copies, and records what it has', { skip }, async (t) => {
  const at = place(t, 6, 400_000);
  const dedup = ['--dedup-db', join(at.dir, 'dedup.db')];
  const other = sibling(at);
  await fill(at, other, 'first', dedup);
  const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
  t.after(() => supervisor.close());
  const { daemon } = await start(t, supervised(at, supervisor, 0, dedup));
  const config = JSON.stringify(slowFill(at.image, join(at.dir, 'cache')));
  const body = JSON.stringify({ fs_type: 'rafs', source: at.image.bootstrap, config });
  assert.equal((await apiRequest(daemon.apisock, 'POST', '/api/v1/mount?mountpoint=/one', body)).status, 204);
  await save(daemon, supervisor);
  const { daemon: next } = await start(t, supervised(at, supervisor, 1, ['--upgrade', ...dedup]));
  await takeOver(next, supervisor);
  await command(daemon, '/api/v1/daemon/exit');
  assert.equal(await daemon.ended, 0, daemon.log);
  await save(next, supervisor);
  await command(next, '/api/v1/daemon/start');
  isSame(at.image.source, join(at.mountpoint, 'one'));
  assert.ok((await copied(next)) > 30, next.log);
  // the first cache is gone: what the successor has recorded is all there is
  rmSync(join(at.dir, 'first'), { recursive: true });
  const before = chunksIn(join(at.dir, 'dedup.db'));
  while (chunksIn(join(at.dir, 'dedup.db')) < 2 * before - 11 && before < 80)
    await new Promise((resolve) => void setTimeout(resolve, 20));
  assert.equal(await next.stop(), 0, next.log);
  await using last = await startDaemon({
    workDir: join(at.dir, 'last'),
    bootstrap: other.bootstrap,
    config: localConfig(other.blobs, join(at.dir, 'fourth')),
    args: dedup,
  });
  isSame(other.source, last.mountpoint);
  assert.ok((await fetched(last)) <= OWN * 1.2, `${await fetched(last)}`);
});

test(
  'nydusd --dedup-db: beside a daemon on the same cache that has no database, and one that clears it up',
  { skip },
  async (t) => {
    const at = place(t, 4, 500_000);
    const other = sibling(at);
    const dedup = ['--dedup-db', join(at.dir, 'dedup.db')];
    const config = localConfig(at.image.blobs, join(at.dir, 'cache'));
    const bootstrap = at.image.bootstrap;
    {
      await using without = await startDaemon({ workDir: join(at.dir, 'a'), bootstrap, config });
      await using with_ = await startDaemon({ workDir: join(at.dir, 'b'), bootstrap, config, args: dedup });
      isSame(at.image.source, without.mountpoint);
      isSame(at.image.source, with_.mountpoint);
      // what the one has fetched is in the cache of the other too, and recorded when that closes or opens it
      assert.equal(await with_.stop(), 0, with_.log);
      assert.equal(await without.stop(), 0, without.log);
    }
    {
      await using again = await startDaemon({ workDir: join(at.dir, 'b'), bootstrap, config, args: dedup });
      isSame(at.image.source, again.mountpoint);
      while (chunksIn(join(at.dir, 'dedup.db')) < 32)
        await new Promise((resolve) => void setTimeout(resolve, 20));
      await using second = await startDaemon({
        workDir: join(at.dir, 'c'),
        bootstrap: other.bootstrap,
        config: localConfig(other.blobs, join(at.dir, 'second')),
        args: dedup,
      });
      isSame(other.source, second.mountpoint);
      assert.ok((await fetched(second)) <= OWN * 1.2);
      for (const one of [again, second]) assert.equal(await one.stop(), 0, one.log);
    }
    // a daemon that knows nothing of the database deletes the blobs: its rows are left, and are worth nothing
    {
      const small = { ...config, device: { ...(config as { device: object }).device } } as {
        device: { cache: { config: { work_dir: string; max_size?: number } } };
      };
      small.device.cache = {
        ...small.device.cache,
        config: { work_dir: join(at.dir, 'second'), max_size: 1 << 20 },
      };
      await using cleaner = await startDaemon({ workDir: join(at.dir, 'd'), bootstrap, config: small });
      while (!cleaner.log.includes('left the cache'))
        await new Promise((resolve) => void setTimeout(resolve, 50));
      assert.equal(await cleaner.stop(), 0, cleaner.log);
    }
    rmSync(join(at.dir, 'cache'), { recursive: true });
    await using last = await startDaemon({
      workDir: join(at.dir, 'e'),
      bootstrap: other.bootstrap,
      config: localConfig(other.blobs, join(at.dir, 'fresh')),
      args: dedup,
    });
    isSame(other.source, last.mountpoint);
    assert.equal(await copied(last), 0);
  },
);
