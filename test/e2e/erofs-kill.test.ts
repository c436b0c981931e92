// The kill matrix of the driver fanotify: kill -9 at random moments under readers that check every byte. NYDUS_KILLS sets how often
// (default 3). A reader may wait for as long as nobody serves it, and never sees zeros, wrong bytes or an error.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { guardianOf, randomImage, slowFill, type RandomImage } from '../support/erofs-image.ts';
import { firstReason, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram } from '../support/programs.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const KILLS = Number(process.env['NYDUS_KILLS'] ?? 3);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function start(dir: string, image: RandomImage): Promise<Daemon> {
  return startDaemon({
    workDir: join(dir, 'work'),
    bootstrap: image.bootstrap,
    config: slowFill(image, join(dir, 'cache')),
    args: ['--driver', 'fanotify'],
    // many rounds go with a machine that has other things to do
    timeoutMs: 90_000,
  });
}

test(
  `kill -9 of the daemon, ${KILLS} times: readers notice a pause`,
  { skip, timeout: 120_000 + KILLS * 20_000 },
  async (t) => {
    const base = tempDir(t);
    const image = randomImage(base, 12, 3_000_000);
    let takeovers = 0;
    for (let round = 0; round < KILLS; round++) {
      const dir = join(base, `round${round}`);
      let daemon = await start(dir, image);
      t.after(() => unmountBelow(dir));
      const readers = await CheckReaders.start(daemon.mountpoint, image.source, 4, round + 1);
      t.after(() => readers.kill());
      await sleep((round * 37) % 180);
      daemon.child.kill('SIGKILL');
      await daemon.ended;
      await sleep(50 + ((round * 53) % 200));
      daemon = await start(dir, image);
      takeovers += /going on with the mount/.test(daemon.log) ? 1 : 0;
      await sleep(200);
      const report = await readers.finish();
      assert.deepEqual(
        [report.wrong, report.zeros, report.errors],
        [0, 0, {}],
        `round ${round}: ${daemon.log}`,
      );
      assert.equal(await daemon.stop(), 0, daemon.log);
      assert.deepEqual(mountsBelow(daemon.mountpoint), [], `round ${round}`);
    }
    assert.equal(takeovers, KILLS);
  },
);

test(
  'kill -9 of the guardian: the daemon starts another one, which carries the next kill',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 8, 3_000_000);
    let daemon = await start(dir, image);
    const readers = await CheckReaders.start(daemon.mountpoint, image.source, 4);
    t.after(() => readers.kill());
    for (let i = 0; i < 3; i++) {
      const guardian = guardianOf(daemon.apisock) ?? -1;
      process.kill(guardian, 'SIGKILL');
      for (let waited = 0; guardianOf(daemon.apisock) === guardian && waited < 100; waited++) await sleep(20);
      assert.notEqual(guardianOf(daemon.apisock), guardian);
    }
    daemon.child.kill('SIGKILL');
    await daemon.ended;
    daemon = await start(dir, image);
    await sleep(200);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], daemon.log);
    assert.equal(await daemon.stop(), 0, daemon.log);
  },
);

test(
  'kill -9 of both: the next start takes the mount away before anything is served, and says so',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 4, 1_000_000);
    const first = await start(dir, image);
    const guardian = guardianOf(first.apisock) ?? -1;
    first.child.kill('SIGKILL');
    process.kill(guardian, 'SIGKILL');
    await first.ended;
    await using second = await start(dir, image);
    assert.match(
      second.log,
      /took away the mount at .*, left by a daemon that ended, and that no guardian keeps/,
    );
    assert.equal(mountsBelow(second.mountpoint).length, 1);
    const readers = await CheckReaders.start(second.mountpoint, image.source, 4);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], second.log);
    assert.equal(await second.stop(), 0, second.log);
    assert.deepEqual(mountsBelow(second.mountpoint), []);
  },
);

test('a second daemon on the same socket is refused while the first one lives', { skip }, async (t) => {
  const dir = tempDir(t);
  const image = randomImage(dir, 2, 100_000);
  await using first = await start(dir, image);
  const other = startDaemon({
    workDir: join(dir, 'work'),
    bootstrap: image.bootstrap,
    config: slowFill(image, join(dir, 'cache')),
    args: ['--driver', 'fanotify'],
    timeoutMs: 5000,
    mountpoint: first.mountpoint,
  });
  // the helper sees the first daemon's API: what counts is that the second one ends and the mount is untouched
  await other.then(
    async (daemon) => assert.equal(await daemon.ended, 1, daemon.log),
    (error: unknown) => assert.match(String(error), /another nydusd answers the readers/),
  );
  assert.equal(mountsBelow(first.mountpoint).length, 1);
  assert.equal(await first.stop(), 0, first.log);
});
