import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { firstReason, requirePeer, requireRoot } from '../../../test/support/prerequisites.ts';
import { requireFreezer } from '../../../test/support/kernel-erofs.ts';
import { freeze, moveToOwnGroup, thaw } from './cgroups.ts';

const skip = firstReason(requireRoot(), requireFreezer());

test('freeze: a frozen process outlives kill -9, and ends when it is thawed', { skip }, async (t) => {
  const child = spawn('sleep', ['60']);
  const exit = once(child, 'exit');
  const pid = child.pid ?? -1;
  t.after(() => thaw(pid));
  assert.equal(await freeze(pid), true);
  child.kill('SIGKILL');
  // a process that had heard it would be gone by the time another one has started and ended
  spawnSync('true');
  assert.match(readFileSync(`/proc/${pid}/status`, 'latin1'), /^State:\tD[^]*^ShdPnd:\t0000000000000100$/m);
  thaw(pid);
  assert.deepEqual(await exit, [null, 'SIGKILL']);
  // it may have been ending while its group was to be taken away: one of the next sweeps that up
  const group = `/sys/fs/cgroup/freezer/nydusd-guardians/${pid}`;
  for (let tries = 0; existsSync(group) && tries < 50; tries++) {
    const next = spawn('sleep', ['60']);
    assert.equal(await freeze(next.pid ?? -1), true);
    thaw(next.pid ?? -1);
    next.kill('SIGKILL');
  }
  assert.equal(existsSync(group), false);
});

test(
  'freeze: works where no freezer is mounted, and is refused where NYDUSD_FREEZE says 0',
  { skip: firstReason(skip, requirePeer('unshare')) },
  () => {
    const module = fileURLToPath(new URL('./cgroups.ts', import.meta.url));
    const script = (wanted: string): string => `
      const { spawn } = require('node:child_process');
      const { freeze, thaw } = require(${JSON.stringify(module)});
      const child = spawn('sleep', ['60']);
      const state = () => require('node:fs').readFileSync('/proc/' + child.pid + '/status', 'latin1').match(/State:.(.)/)[1];
      const pause = new Int32Array(new SharedArrayBuffer(4));
      freeze(child.pid).then((done) => {
        // it may still be on its way to sleep
        for (let n = 0; n < 250 && state() !== '${wanted}'; n++) Atomics.wait(pause, 0, 0, 20);
        console.log(done, state());
        thaw(child.pid);
        child.kill('SIGKILL');
      });`;
    const run = (before: string, env: NodeJS.ProcessEnv, wanted: string): string => {
      const args = ['-m', 'sh', '-c', `${before}; exec "$0" -e "$1"`, process.execPath, script(wanted)];
      return spawnSync('unshare', args, { encoding: 'utf8', env: { ...process.env, ...env } }).stdout;
    };
    const hide = `awk '/ - cgroup / && /freezer/ { print $5 }' /proc/self/mountinfo | xargs -r umount`;
    assert.equal(run(hide, {}, 'D'), 'true D\n');
    assert.equal(run(':', { NYDUSD_FREEZE: '0' }, 'S'), 'false S\n');
  },
);

test('moveToOwnGroup: a process that is gone cannot be moved', { skip: requireRoot() }, () => {
  const { pid } = spawnSync('true');
  assert.equal(moveToOwnGroup(pid), false);
});
