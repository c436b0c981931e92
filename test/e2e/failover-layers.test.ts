// Whose a writable layer is after a takeover; and what is not handed over at all. Source: docs/failover.md, decisions 0004 and 0006.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isAbandonedOverlay, isOrphanedOverlay } from '../../src/serve/overlay/kernel-overlay.ts';
import { mountInfoOf } from '../../src/serve/fuse/mount-info.ts';
import { apiRequest } from '../support/daemon.ts';
import { awaitKeeper, stateOf } from '../support/failover.ts';
import { kill, place, start, supervised } from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requireFuse, requireRoot } from '../support/prerequisites.ts';
import { requireProgram } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow } from '../support/temporary.ts';

const skip = firstReason(
  requireFuse(),
  requireRoot(),
  requireProgram('nydus-image'),
  requireProgram('nydusd'),
);
const typesAt = (path: string): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[4] === path)
    .map((line) => line.split(' - ')[1]?.split(' ')[0] ?? '');
/** Files by which daemons say whose a layer is. */
const claims = (): string[] => readdirSync('/run').filter((name) => name.startsWith('nydusd-overlay-'));

test(
  'a writable layer that was taken over is not abandoned: a daemon with another socket leaves it, also while nobody serves',
  { skip, timeout: 120_000 },
  async (t) => {
    const at = place(t, 2, 50_000);
    const { dir, mountpoint, image } = at;
    const config = {
      version: 2,
      backend: { type: 'localfs', localfs: { dir: image.blobs } },
      cache: { type: 'blobcache', filecache: { work_dir: join(dir, 'cache') } },
      rafs: { mode: 'direct' },
      overlay: { upper_dir: join(dir, 'upper'), work_dir: join(dir, 'work') },
    };
    mkdirSync(join(dir, 'cache'));
    const options = {
      dir,
      mountpoint,
      bootstrap: image.bootstrap,
      config,
      args: ['--writable', '--failover-policy', 'resend'],
    };
    const { daemon: first } = await start(t, options);
    await awaitKeeper(first.apisock);
    writeFileSync(join(mountpoint, 'kept'), 'kept');
    assert.deepEqual(typesAt(mountpoint), ['fuse', 'overlay']);
    await kill(first);
    const layer = mountInfoOf(mountpoint);
    assert.equal(isOrphanedOverlay(layer), true);
    assert.equal(isAbandonedOverlay(layer), false, 'a guardian keeps what lies below');
    const { daemon: second } = await start(t, options);
    assert.equal(await stateOf(second), 'RUNNING', second.log);
    assert.deepEqual(mountInfoOf(mountpoint), layer, 'it has stayed where it was');
    assert.equal(isOrphanedOverlay(layer), false);
    const { daemon: other } = await start(t, { dir, mountpoint, socket: 'other.sock', args: [] });
    assert.doesNotMatch(other.log, /took away/);
    assert.deepEqual(typesAt(mountpoint), ['fuse', 'overlay', 'fuse']);
    assert.equal(await other.stop(), 0, other.log);
    assert.deepEqual(typesAt(mountpoint), ['fuse', 'overlay']);
    assert.equal(readFileSync(join(mountpoint, 'kept'), 'utf8'), 'kept');
    const claim = `nydusd-overlay-${layer?.major}:${layer?.minor}`;
    assert.equal(claims().includes(claim), true);
    assert.equal(await second.stop(), 0, second.log);
    assert.deepEqual(mountsBelow(mountpoint), []);
    assert.equal(claims().includes(claim), false);
  },
);

test(
  'a shared directory is not handed over: sendfd says so, and the daemon serves on',
  { skip },
  async (t) => {
    const at = place(t, 1, 1000);
    const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
    const shared = join(at.dir, 'shared');
    mkdirSync(shared);
    writeFileSync(join(shared, 'file'), 'content');
    const { daemon } = await start(t, supervised(at, supervisor, 0, ['--shared-dir', shared]));
    const refused = await apiRequest(daemon.apisock, 'PUT', '/api/v1/daemon/fuse/sendfd');
    assert.equal(refused.status, 500);
    assert.match(refused.body, /the shared directory at \/ cannot be handed over/);
    assert.equal(await stateOf(daemon), 'RUNNING');
    assert.equal(readFileSync(join(at.mountpoint, 'file'), 'utf8'), 'content');
    assert.equal(await daemon.stop(), 0, daemon.log);
    const { daemon: empty } = await start(t, supervised(at, supervisor, 1));
    const body = JSON.stringify({ fs_type: 'passthrough_fs', source: shared, config: '' });
    assert.equal(
      (await apiRequest(empty.apisock, 'POST', '/api/v1/mount?mountpoint=/dir', body)).status,
      204,
    );
    const again = await apiRequest(empty.apisock, 'PUT', '/api/v1/daemon/fuse/sendfd');
    assert.equal(again.status, 500);
    assert.match(again.body, /the shared directory at \/dir cannot be handed over/);
    assert.equal(readFileSync(join(at.mountpoint, 'dir/file'), 'utf8'), 'content');
    assert.equal(await empty.stop(), 0, empty.log);
    assert.deepEqual(mountsBelow(at.mountpoint), []);
  },
);
