// Who ends the guardian: every end of a daemon but kill -9, and no failed start leaves one. Guardians are found by the path of the
// record that they are started with.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { localConfig, startDaemon } from '../support/daemon.ts';
import { awaitKeeper, command, keeperOf, launch, save, stateOf, takeOver } from '../support/failover.ts';
import {
  guarded,
  isSleeping,
  kill,
  place,
  start,
  supervised,
  type Place,
} from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requireFuse, requireRoot } from '../support/prerequisites.ts';
import { requireProgram } from '../support/programs.ts';
import { guardiansBelow } from '../support/erofs-image.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';

const skip = firstReason(
  requireFuse(),
  requireRoot(),
  requireProgram('nydus-image'),
  requireProgram('nydusd'),
);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A place that nothing stays behind of. @returns it, and the guardians that are there */
function marked(t: TestContext): { at: Place; guardians: () => number[] } {
  const at = place(t, 2, 100_000);
  t.after(() => {
    for (const pid of guardiansBelow(at.dir)) process.kill(pid, 'SIGKILL');
  });
  return { at, guardians: () => guardiansBelow(at.dir) };
}

/** One that is being ended takes a moment. */
async function none(guardians: () => number[]): Promise<void> {
  for (const deadline = performance.now() + 5000; performance.now() < deadline; await sleep(5))
    if (guardians().length === 0) return;
  assert.deepEqual(guardians(), []);
}

for (const how of ['SIGTERM', 'SIGINT', 'exit', 'umount'] as const) {
  test(`${how} ends the guardian, and nothing is left for a next daemon`, { skip }, async (t) => {
    const { at, guardians } = marked(t);
    const { daemon } = await start(t, guarded(at));
    const pid = await awaitKeeper(daemon.apisock);
    assert.deepEqual(guardians(), [pid]);
    if (how === 'exit') await command(daemon, '/api/v1/daemon/exit');
    else if (how === 'umount') unmountBelow(at.mountpoint);
    else daemon.child.kill(how);
    assert.equal(await daemon.ended, 0, daemon.log);
    await none(guardians);
    assert.equal(keeperOf(daemon.apisock), undefined);
  });
}

test(
  'an end right after the start, while the guardian is being started, leaves none',
  { skip },
  async (t) => {
    const { at, guardians } = marked(t);
    for (let round = 0; round < 4; round++) {
      // no longer than until the API answers: the guardian is started beside that
      const { daemon } = await start(t, guarded(at));
      if (round % 2 === 0) daemon.child.kill('SIGTERM');
      else await command(daemon, '/api/v1/daemon/exit');
      assert.equal(await daemon.ended, 0, daemon.log);
      await none(guardians);
      assert.equal(keeperOf(daemon.apisock), undefined);
      unmountBelow(at.dir);
    }
  },
);

test(
  'a start that fails leaves none: no image, no mountpoint, no API socket, a bad configuration',
  { skip },
  async (t) => {
    const { at, guardians } = marked(t);
    mkdirSync(join(at.dir, 'taken'));
    const options = guarded(at);
    const cases: { problem: RegExp; options: typeof options }[] = [
      { problem: /bootstrap/, options: { ...options, bootstrap: join(at.dir, 'none') } },
      { problem: /mountpoint/, options: { ...options, mountpoint: join(at.dir, 'none') } },
      { problem: /is not a socket/, options: { ...options, socket: 'taken' } },
      { problem: /backend/, options: { ...options, config: { ...localConfig('/none'), device: {} } } },
    ];
    for (const { problem, options: wrong } of cases) {
      await assert.rejects(launch(wrong), problem);
      await none(guardians);
      assert.deepEqual(
        readdirSync(at.dir).filter((name) => name.includes('.failover')),
        [],
      );
      assert.deepEqual(mountsBelow(at.dir), []);
    }
  },
);

test(
  'a mount by API that fails leaves the one guardian there is; the last unmount does not end it',
  { skip },
  async (t) => {
    const { at, guardians } = marked(t);
    await using daemon = await startDaemon({
      workDir: join(at.dir, 'd'),
      args: ['--failover-policy', 'resend'],
    });
    const pid = await awaitKeeper(daemon.apisock);
    const body = (source: string): string =>
      JSON.stringify({ fs_type: 'rafs', source, config: JSON.stringify(localConfig(at.image.blobs)) });
    const { apiRequest } = await import('../support/daemon.ts');
    const call = async (method: string, text?: string): Promise<number> =>
      (await apiRequest(daemon.apisock, method, '/api/v1/mount?mountpoint=/a', text)).status;
    assert.equal(await call('POST', body(join(at.dir, 'none'))), 500);
    assert.deepEqual(guardians(), [pid]);
    assert.equal(await daemon.stop(), 0, daemon.log);
    await none(guardians);
  },
);

test('hot upgrade: neither daemon has a guardian, whichever ends first', { skip }, async (t) => {
  const { at, guardians } = marked(t);
  const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
  t.after(() => supervisor.close());
  const more = ['--failover-policy', 'resend'];
  const { daemon: old } = await start(t, { ...guarded(at), ...supervised(at, supervisor, 0, more) });
  await save(old, supervisor);
  const { daemon: next } = await start(t, supervised(at, supervisor, 1, [...more, '--upgrade']));
  await takeOver(next, supervisor);
  await command(old, '/api/v1/daemon/exit');
  assert.equal(await old.ended, 0, old.log);
  await command(next, '/api/v1/daemon/start');
  assert.equal(await stateOf(next), 'RUNNING');
  assert.deepEqual(guardians(), []);
  assert.equal(await next.stop(), 0, next.log);
  assert.deepEqual(guardians(), []);
});

test(
  'kill -9: the guardian stays; a next daemon that cannot go on leaves it, one that can replaces it',
  { skip },
  async (t) => {
    const { at, guardians } = marked(t);
    const { daemon } = await start(t, guarded(at));
    const first = await awaitKeeper(daemon.apisock);
    await kill(daemon);
    assert.deepEqual(guardians(), [first]);
    const boot = readFileSync(at.image.bootstrap);
    rmSync(at.image.bootstrap);
    await assert.rejects(launch(guarded(at)), /cannot go on with the mount of the daemon before/);
    assert.deepEqual(guardians(), [first], 'readers go on waiting');
    writeFileSync(at.image.bootstrap, boot);
    const { daemon: next } = await start(t, guarded(at));
    const second = await awaitKeeper(next.apisock, first);
    assert.equal(await next.stop(), 0, next.log);
    await none(guardians);
    assert.equal(isSleeping(second), false);
  },
);
