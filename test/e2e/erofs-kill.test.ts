// The kill matrix: kill -9 at random moments under readers that check every byte. NYDUS_KILLS sets how often (default 3). With fanotify
// a reader may wait for as long as nobody serves it, and never sees zeros, wrong bytes or an error; with fileio it sees errors.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { guardianOf, randomImage, slowFill, type RandomImage } from '../support/erofs-image.ts';
import { firstReason, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram } from '../support/programs.ts';
import { playRound } from '../support/kill-matrix.ts';
import { mountsBelow } from '../support/temporary.ts';

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

/** Errors that readers may see while nobody serves, and until the mount is made again. */
const TOLERATED = { fanotify: [], fileio: ['EIO', 'ENOENT', 'ENOTCONN'] } as const;
/** What a read may take when nobody has been killed, on a machine that has other things to do, ms. */
const PATIENCE = 15_000;

for (const driver of ['fanotify', 'fileio'] as const)
  test(
    `${driver}: kill -9 of the daemon, ${KILLS} times: readers see no wrong byte, and wait no longer than the outage`,
    { skip, timeout: 120_000 + KILLS * 20_000 },
    async (t) => {
      const base = tempDir(t);
      const image = randomImage(base, 12, 3_000_000);
      const failures: string[] = [];
      let [wentOn, reads, longest] = [0, 0, 0];
      for (let number = 0; number < KILLS; number++) {
        const outcome = await playRound(t, { number, driver, victims: 'daemon', image, base });
        const { report, outageMs, problems, log } = outcome;
        const unexpected = Object.keys(report.errors).filter(
          (code) => !(TOLERATED[driver] as readonly string[]).includes(code),
        );
        if (report.longestMs > outageMs + PATIENCE) problems.push(`a reader hung for ${report.longestMs} ms`);
        if (report.wrong + report.zeros + unexpected.length > 0) problems.push(JSON.stringify(report));
        if (problems.length > 0) failures.push(`round ${number}: ${problems.join('; ')}\n${log}`);
        wentOn += outcome.wentOn ? 1 : 0;
        reads += report.reads;
        longest = Math.max(longest, report.longestMs);
      }
      t.diagnostic(`${driver}: ${KILLS} kills, ${wentOn} taken over, ${reads} reads, longest ${longest} ms`);
      assert.deepEqual(failures, []);
      assert.equal(wentOn, driver === 'fanotify' ? KILLS : 0);
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
