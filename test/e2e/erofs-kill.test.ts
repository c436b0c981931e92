// The kill matrix: kill -9 at random moments under readers that check every byte. NYDUS_KILLS sets how often (default 3). A reader may wait for
// as long as nobody serves it, and never sees zeros, wrong bytes or an error; with fileio it sees errors once the guardian is killed, too.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import {
  guardiansBelow,
  guardiansLeft,
  guardiansOf,
  randomImage,
  slowFill,
  type RandomImage,
} from '../support/erofs-image.ts';
import { firstReason, requirePeer, tempDir } from '../support/golden.ts';
import { requireFreezer, requirePreContent } from '../support/kernel-erofs.ts';
import { requireProgram } from '../support/programs.ts';
import { playRound, type KillRound } from '../support/kill-matrix.ts';
import { mountsBelow } from '../support/temporary.ts';

const skip = firstReason(requirePreContent(), requireProgram('nydus-image'), requireProgram('nydusd'));
const KILLS = Number(process.env['NYDUS_KILLS'] ?? 3);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function start(dir: string, image: RandomImage, env: NodeJS.ProcessEnv = {}): Promise<Daemon> {
  return startDaemon({
    workDir: join(dir, 'work'),
    bootstrap: image.bootstrap,
    config: slowFill(image, join(dir, 'cache')),
    args: ['--driver', 'fanotify'],
    // many rounds go with a machine that has other things to do
    timeoutMs: 90_000,
    env,
  });
}

/** Errors that readers of fileio may see once the guardian is dead as well, and until the mount is made again. */
const BROKEN = ['EIO', 'ENOENT', 'ENOTCONN'];
/** What a read may take when nobody has been killed, on a machine that has other things to do, ms. */
const PATIENCE = 15_000;

interface Tally {
  failures: string[];
  wentOn: number;
  reads: number;
  longest: number;
}

async function playRounds(
  t: TestContext,
  count: number,
  round: Omit<KillRound, 'number' | 'image' | 'base'>,
): Promise<Tally> {
  const base = tempDir(t);
  const image = randomImage(base, 12, 3_000_000);
  const tally: Tally = { failures: [], wentOn: 0, reads: 0, longest: 0 };
  const tolerated = round.driver === 'fileio' && round.victims === 'daemon and guardian' ? BROKEN : [];
  for (let number = 0; number < count; number++) {
    const { report, outageMs, problems, wentOn, log } = await playRound(t, { ...round, number, image, base });
    const unexpected = Object.keys(report.errors).filter((code) => !tolerated.includes(code));
    if (report.longestMs > outageMs + PATIENCE) problems.push(`a reader hung for ${report.longestMs} ms`);
    if (report.wrong + report.zeros + unexpected.length > 0) problems.push(JSON.stringify(report));
    if (problems.length > 0) tally.failures.push(`round ${number}: ${problems.join('; ')}\n${log}`);
    tally.wentOn += wentOn ? 1 : 0;
    tally.reads += report.reads;
    tally.longest = Math.max(tally.longest, report.longestMs);
  }
  t.diagnostic(
    `${count} kills, ${tally.wentOn} taken over, ${tally.reads} reads, longest ${tally.longest} ms`,
  );
  return tally;
}

const timeoutOf = (count: number): number => 120_000 + count * 20_000;

for (const driver of ['fanotify', 'fileio'] as const)
  test(
    `${driver}: kill -9 of the daemon, ${KILLS} times: readers see no wrong byte, and wait no longer than the outage`,
    { skip, timeout: timeoutOf(KILLS) },
    async (t) => {
      const { failures, wentOn } = await playRounds(t, KILLS, { driver, victims: 'daemon' });
      assert.deepEqual(failures, []);
      assert.equal(wentOn, KILLS);
    },
  );

const FEWER = Math.ceil(KILLS / 4);
for (const [guardians, env] of [
  ['a frozen guardian', {}],
  ['two guardians', { NYDUSD_FREEZE: '0' }],
] as const)
  for (const victims of ['guardian, then daemon', 'daemon and guardian'] as const)
    test(
      `fanotify with ${guardians}: kill -9 of ${victims}, ${FEWER} times: readers wait, and see no wrong byte`,
      {
        skip: firstReason(skip, guardians === 'a frozen guardian' && requireFreezer()),
        timeout: timeoutOf(FEWER),
      },
      async (t) => {
        const { failures, wentOn } = await playRounds(t, FEWER, { driver: 'fanotify', victims, env });
        assert.deepEqual(failures, []);
        assert.equal(wentOn, FEWER);
      },
    );

test(
  `fileio: kill -9 of daemon and guardian, ${FEWER} times: readers see errors, and no wrong byte`,
  { skip, timeout: timeoutOf(FEWER) },
  async (t) => {
    const { failures, wentOn } = await playRounds(t, FEWER, {
      driver: 'fileio',
      victims: 'daemon and guardian',
    });
    assert.deepEqual(failures, []);
    assert.equal(wentOn, 0);
  },
);

test(
  'a frozen guardian is in a group of its own, and ends with the mount',
  { skip: firstReason(skip, requireFreezer()) },
  async (t) => {
    const dir = tempDir(t);
    const daemon = await start(dir, randomImage(dir, 2, 100_000));
    const guardians = guardiansOf(daemon.apisock);
    assert.equal(guardians.length, 1);
    const [pid = 0] = guardians;
    const groups = readFileSync(`/proc/${pid}/cgroup`, 'latin1').trim().split('\n');
    assert.ok(
      groups.some((line) => line.endsWith(`:freezer:/nydusd-guardians/${pid}`)),
      groups.join(),
    );
    assert.ok(
      groups.some((line) => /^(0:|\d+:name=systemd):\/nydusd-guardians$/.test(line)),
      groups.join(),
    );
    assert.equal(await daemon.stop(), 0, daemon.log);
    for (let waited = 0; existsSync(`/proc/${pid}`) && waited < 100; waited++) await sleep(20);
    assert.equal(existsSync(`/proc/${pid}`), false);
  },
);

test(
  'a guardian that is not frozen and dies: the daemon starts others, which carry the next kill',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 8, 3_000_000);
    let daemon = await start(dir, image, { NYDUSD_FREEZE: '0' });
    const readers = await CheckReaders.start(daemon.mountpoint, image.source, 4);
    t.after(() => readers.kill());
    for (let i = 0; i < 4; i++) {
      const before = guardiansOf(daemon.apisock);
      assert.equal(before.length, 2);
      const dead = before[i % 2] ?? -1;
      process.kill(dead, 'SIGKILL');
      // the record has one of the new ones before it has both
      const renewed = (): boolean =>
        guardiansOf(daemon.apisock).length === 2 && !guardiansOf(daemon.apisock).includes(dead);
      for (let waited = 0; !renewed() && waited < 200; waited++) await sleep(20);
      assert.equal(renewed(), true);
    }
    daemon.child.kill('SIGKILL');
    await daemon.ended;
    daemon = await start(dir, image, { NYDUSD_FREEZE: '0' });
    await sleep(200);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], daemon.log);
    const guardians = guardiansOf(daemon.apisock);
    assert.equal(await daemon.stop(), 0, daemon.log);
    for (const pid of guardians)
      for (let waited = 0; existsSync(`/proc/${pid}/exe`) && waited < 100; waited++) await sleep(20);
    assert.deepEqual(
      guardians.filter((pid) => existsSync(`/proc/${pid}/exe`)),
      [],
    );
  },
);

test(
  'kill -9 of the daemon and of all guardians: the next start takes the mount away before anything is served, and says so',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 4, 1_000_000);
    const first = await start(dir, image, { NYDUSD_FREEZE: '0' });
    const guardians = guardiansOf(first.apisock);
    first.child.kill('SIGKILL');
    for (const guardian of guardians) process.kill(guardian, 'SIGKILL');
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

test(
  'kill -9 between the start of a guardian and its record leaves no guardian, and the next daemon serves',
  { skip: firstReason(skip, requirePeer('mkfifo')) },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 100_000);
    const work = join(dir, 'work');
    mkdirSync(work);
    // whoever writes the record waits for a reader of this FIFO, in open(2)
    const draft = join(work, 'api.sock.guardian.new');
    execFileSync('mkfifo', [draft]);
    const starting = start(dir, image);
    starting.catch(() => {});
    for (let waited = 0; guardiansBelow(work).length === 0 && waited < 500; waited++) await sleep(20);
    assert.equal(guardiansBelow(work).length, 1);
    const [pid = 0] = guardiansBelow(work);
    const daemon = Number(/^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
    process.kill(daemon, 'SIGKILL');
    await assert.rejects(starting, /nydusd ended with SIGKILL/);
    assert.deepEqual(await guardiansLeft(work), []);
    rmSync(draft);
    await using next = await start(dir, image);
    const seen = readFileSync(join(next.mountpoint, 'file1'));
    assert.equal(seen.equals(readFileSync(join(image.source, 'file1'))), true);
    assert.equal(await next.stop(), 0, next.log);
    assert.deepEqual(await guardiansLeft(work), []);
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
