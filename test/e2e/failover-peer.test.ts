// Taking over from upstream's daemon, and the reverse, where a nydusd is installed that saves states: NYDUS_PEER names its folder, else
// /opt/nydus-peer/bin is looked at. nydus-rs 2.2.0, the newest on crates.io, answers the requests and does nothing (decision 0006).
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import type { Daemon } from '../support/daemon.ts';
import { command, stateOf, takeOver, save } from '../support/failover.ts';
import { guarded, place, start, supervised } from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requireFuse, requireRoot } from '../support/prerequisites.ts';
import { Supervisor } from '../support/supervisor.ts';

const PEER = join(process.env['NYDUS_PEER'] ?? '/opt/nydus-peer/bin', 'nydusd');
const skip = existsSync(PEER) ? firstReason(requireFuse(), requireRoot()) : `no ${PEER}`;

/** Options that only the peer needs: its default for open files is more than may be had here. */
const ITS_OWN = ['--rlimit-nofile', '0'];

/** Have the peer save its state. @returns false when it says that it did, and nobody came */
async function saves(peer: Daemon, supervisor: Supervisor): Promise<boolean> {
  const received = supervisor.receive().then(
    () => true,
    () => false,
  );
  await command(peer, '/api/v1/daemon/fuse/sendfd');
  return received;
}

test('a mount goes from the peer to us and back, under readers', { skip, timeout: 120_000 }, async (t) => {
  const at = place(t, 6, 500_000);
  const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
  t.after(() => supervisor.close());
  const { daemon: peer } = await start(t, {
    ...guarded(at),
    ...supervised(at, supervisor, 0, ITS_OWN),
    command: [PEER],
  });
  for (let i = 0; i < 200 && (await stateOf(peer)) !== 'RUNNING'; i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  if (!(await saves(peer, supervisor))) {
    await peer.stop();
    t.skip(`${PEER} answers sendfd with 204 and connects to no supervisor`);
    return;
  }
  const readers = await CheckReaders.start(at.mountpoint, at.image.source);
  t.after(() => readers.kill());
  const { daemon: ours } = await start(t, supervised(at, supervisor, 1, ['--upgrade']));
  await takeOver(ours, supervisor);
  await command(peer, '/api/v1/daemon/exit');
  await peer.ended;
  await command(ours, '/api/v1/daemon/start');
  assert.equal(await stateOf(ours), 'RUNNING');
  await save(ours, supervisor);
  const { daemon: again } = await start(t, {
    ...supervised(at, supervisor, 2, [...ITS_OWN, '--upgrade']),
    command: [PEER],
  });
  await takeOver(again, supervisor);
  await command(ours, '/api/v1/daemon/exit');
  assert.equal(await ours.ended, 0, ours.log);
  await command(again, '/api/v1/daemon/start');
  const report = await readers.finish();
  assert.deepEqual([report.wrong, report.errors], [0, {}], again.log);
  assert.deepEqual(
    readFileSync(join(at.mountpoint, 'file0')).equals(readFileSync(join(at.image.source, 'file0'))),
    true,
  );
  await again.stop();
});
