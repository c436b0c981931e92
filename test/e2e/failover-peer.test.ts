// Taking over from upstream's daemon, and the reverse: NYDUS_PEER names the folder of a nydusd that saves states, and that one has to
// pass. nydus-rs 2.2.0, the newest on crates.io, answers the requests and does nothing (decision 0006): with it this fails.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { command, stateOf, takeOver, save } from '../support/failover.ts';
import { guarded, place, start, supervised } from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requireFuse, requireRoot } from '../support/prerequisites.ts';
import { Supervisor } from '../support/supervisor.ts';

const PEER_FOLDER = process.env['NYDUS_PEER'];
const PEER = join(PEER_FOLDER ?? '', 'nydusd');
const skip =
  PEER_FOLDER === undefined
    ? 'NYDUS_PEER names no folder with a nydusd that saves states (decision 0006)'
    : firstReason(requireFuse(), requireRoot());

/** Options that only the peer needs: its default for open files is more than may be had here. */
const ITS_OWN = ['--rlimit-nofile', '0'];

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
  await save(peer, supervisor);
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
