// The read-write POSIX suite on a shared directory, and on a plain directory to show that the suite is right.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync, chmodSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { apiRequest, startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { posixWriteSuite } from './posix-write-suite.ts';

const skip = firstReason(
  requireFuse(),
  requireRoot(),
  requirePeer('python3'),
  requirePeer('setfattr'),
  requirePeer('flock'),
);

test('posixWriteSuite: a plain directory', { skip }, async (t) => {
  const dir = tempDir(t);
  chmodSync(dir, 0o755);
  await posixWriteSuite(t, dir);
});

test('posixWriteSuite: --shared-dir --writable', { skip }, async (t) => {
  const work = tempDir(t);
  chmodSync(work, 0o755);
  const shared = join(work, 'shared');
  mkdirSync(shared);
  const workDir = join(work, 'd');
  await using daemon = await startDaemon({ workDir, args: ['--shared-dir', shared, '--writable'] });
  chmodSync(workDir, 0o755);
  await posixWriteSuite(t, daemon.mountpoint);
  assert.deepEqual(readdirSync(daemon.mountpoint).sort(), readdirSync(shared).sort());
  assert.equal(await daemon.stop(), 0, daemon.log);
  assert.doesNotMatch(daemon.log, /ERROR/);
});

test(
  'passthrough: without --writable nothing can be written, and a mount by API reads',
  { skip },
  async (t) => {
    const work = tempDir(t);
    const shared = join(work, 'shared');
    mkdirSync(shared);
    writeFileSync(join(shared, 'file'), 'content');
    await using daemon = await startDaemon({ workDir: join(work, 'd') });
    const body = JSON.stringify({ fs_type: 'passthrough_fs', source: shared, config: '' });
    const answer = await apiRequest(daemon.apisock, 'POST', '/api/v1/mount?mountpoint=/s', body);
    assert.equal(answer.status, 204, answer.body);
    assert.equal(readFileSync(join(daemon.mountpoint, 's/file'), 'utf8'), 'content');
    assert.throws(() => writeFileSync(join(daemon.mountpoint, 's/file'), 'x'), { code: 'EROFS' });
    const none = await apiRequest(
      daemon.apisock,
      'POST',
      '/api/v1/mount?mountpoint=/n',
      JSON.stringify({ fs_type: 'passthrough_fs', source: '/nonexistent', config: '' }),
    );
    assert.equal(none.status, 500);
    assert.match(
      none.body,
      /passthroughfs failed to handle request, No such file or directory \(os error 2\)/,
    );
  },
);
