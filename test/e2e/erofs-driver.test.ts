// nydusd with the driver fanotify: the kernel's EROFS over the cache files, from start to end.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { guardianOf, randomImage, slowFill } from '../support/erofs-image.ts';
import { firstReason, requireFuse, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { nydusImage, requireProgram } from '../support/programs.ts';
import { makeSampleTree } from '../support/sample-tree.ts';
import { mountsBelow } from '../support/temporary.ts';
import { compareTrees, directorySizes, walkTree } from '../support/tree-manifest.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const OWN = ['ino', 'blocks', 'blksize', 'mtime:/', 'mtime_nsec:/', 'mode:/'];

interface Info {
  state: string;
  driver?: { name: string; fallbacks: string[] };
}

/** True while a process is there; one that was killed has a moment to go. */
async function isRunning(pid: number): Promise<boolean> {
  for (let waited = 0; waited < 50 && existsSync(`/proc/${pid}/exe`); waited++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return existsSync(`/proc/${pid}/exe`);
}

for (const [driver, compressor] of [
  ['fanotify', 'zstd'],
  ['fileio', 'lz4_block'],
] as const) {
  test(
    `nydusd --driver ${driver}: a tree (${compressor}) is seen as it is, and nothing is left`,
    { skip },
    async (t) => {
      const dir = tempDir(t);
      const source = join(dir, 'source');
      const blobs = join(dir, 'blobs');
      mkdirSync(source);
      mkdirSync(blobs);
      makeSampleTree(source, { root: true });
      const boot = join(dir, 'boot');
      nydusImage(['create', '--compressor', compressor, '--blob-dir', blobs, '--bootstrap', boot, source]);
      await using daemon = await startDaemon({
        workDir: join(dir, 'work'),
        bootstrap: boot,
        config: localConfig(blobs, join(dir, 'cache')),
        args: ['--driver', driver],
      });
      const info = (await daemon.get('/api/v1/daemon')) as Info;
      assert.deepEqual(info.driver, { name: driver, fallbacks: [] });
      const guardian = guardianOf(daemon.apisock) ?? 0;
      assert.equal(existsSync(`/proc/${guardian}/exe`), true);
      const ignore = [...OWN, ...directorySizes(walkTree(source))];
      assert.deepEqual(compareTrees(source, daemon.mountpoint, { ignore }), [], daemon.log);
      const metrics = (await daemon.get('/api/v1/metrics')) as { data_read: number; fop_errors: number[] };
      assert.ok(metrics.data_read > 0);
      assert.equal(metrics.fop_errors[4], 0);
      assert.equal(await daemon.stop(), 0, daemon.log);
      assert.deepEqual(mountsBelow(daemon.mountpoint), []);
      assert.equal(await isRunning(guardian), false);
      assert.deepEqual(
        readdirSync(join(dir, 'work')).filter((name) => /guardian|fileio/.test(name)),
        [],
      );
    },
  );
}

test(
  'nydusd --driver auto: a v5 image falls back to FUSE and says why',
  { skip: firstReason(skip, requireFuse()) },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 50_000, ['--fs-version', '5']);
    await using daemon = await startDaemon({
      workDir: join(dir, 'work'),
      bootstrap: image.bootstrap,
      config: { ...localConfig(image.blobs, join(dir, 'cache')), driver: 'auto' },
    });
    const info = (await daemon.get('/api/v1/daemon')) as Info;
    assert.deepEqual(info.driver, {
      name: 'fuse',
      fallbacks: ['fanotify: RAFS v5: EROFS is v6 only', 'fileio: RAFS v5: EROFS is v6 only'],
    });
    assert.match(daemon.log, /RAFS v5: EROFS is v6 only; falling back/);
    assert.deepEqual(
      compareTrees(image.source, daemon.mountpoint, {
        ignore: [...OWN, ...directorySizes(walkTree(image.source))],
      }),
      [],
    );
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);

test(
  'nydusd --driver fanotify: an image that it cannot have is an error with a next step',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 50_000, ['--fs-version', '5']);
    await assert.rejects(
      startDaemon({
        workDir: join(dir, 'work'),
        bootstrap: image.bootstrap,
        config: localConfig(image.blobs, join(dir, 'cache')),
        args: ['--driver', 'fanotify'],
      }),
      /the driver does not work here: fanotify: RAFS v5[^]*--driver auto or fuse/,
    );
  },
);

test(
  'nydusd --detach-when-complete: ends when all is local, and the mount stays good',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 6, 300_000);
    await using daemon = await startDaemon({
      workDir: join(dir, 'work'),
      bootstrap: image.bootstrap,
      config: localConfig(image.blobs, join(dir, 'cache')),
      args: ['--driver', 'fanotify', '--detach-when-complete'],
    });
    const ignore = [...OWN, ...directorySizes(walkTree(image.source))];
    assert.deepEqual(compareTrees(image.source, daemon.mountpoint, { ignore }), [], daemon.log);
    assert.equal(await daemon.ended, 0, daemon.log);
    assert.deepEqual(mountsBelow(daemon.mountpoint), [daemon.mountpoint]);
    assert.equal(await isRunning(guardianOf(daemon.apisock) ?? -1), false);
    const readers = await CheckReaders.start(daemon.mountpoint, image.source, 2);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}]);
  },
);

test(
  'nydusd --driver fanotify: exit by API leaves the mount, readers wait for the next daemon',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 10, 1_000_000);
    const start = () =>
      startDaemon({
        workDir: join(dir, 'work'),
        bootstrap: image.bootstrap,
        config: slowFill(image, join(dir, 'cache')),
        args: ['--driver', 'fanotify'],
      });
    {
      const first = await start();
      const { apiRequest } = await import('../support/daemon.ts');
      assert.equal((await apiRequest(first.apisock, 'PUT', '/api/v1/daemon/exit')).status, 204);
      assert.equal(await first.ended, 0, first.log);
      assert.deepEqual(mountsBelow(first.mountpoint), [first.mountpoint]);
    }
    const starting = CheckReaders.start(join(dir, 'work/mnt'), image.source, 4);
    await using second = await start();
    const readers = await starting;
    await new Promise((resolve) => setTimeout(resolve, 300));
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], second.log);
    assert.match(second.log, /going on with the mount/);
    assert.deepEqual(mountsBelow(second.mountpoint), [second.mountpoint]);
    assert.equal(await second.stop(), 0, second.log);
    assert.deepEqual(mountsBelow(second.mountpoint), []);
  },
);

test(
  'nydusd --driver fileio: killed with its guardian, readers get EIO and never zeros; the next start serves again',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 10, 2_000_000);
    const start = () =>
      startDaemon({
        workDir: join(dir, 'work'),
        bootstrap: image.bootstrap,
        config: slowFill(image, join(dir, 'cache')),
        args: ['--driver', 'fileio'],
      });
    const first = await start();
    const readers = await CheckReaders.start(first.mountpoint, image.source, 4);
    await new Promise((resolve) => setTimeout(resolve, 60));
    first.child.kill('SIGKILL');
    process.kill(guardianOf(first.apisock) ?? 0, 'SIGKILL');
    await first.ended;
    await new Promise((resolve) => setTimeout(resolve, 100));
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros], [0, 0]);
    assert.deepEqual(Object.keys(report.errors), ['EIO']);
    await using second = await start();
    assert.match(second.log, /took away the mount/);
    const again = await CheckReaders.start(second.mountpoint, image.source, 4);
    const after = await again.finish();
    assert.deepEqual([after.wrong, after.errors], [0, {}], second.log);
    assert.equal(await second.stop(), 0, second.log);
    assert.deepEqual(mountsBelow(second.mountpoint), []);
  },
);
