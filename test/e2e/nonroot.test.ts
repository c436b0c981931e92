// nydusd for users who are not root: mounted by fusermount3, read, unmounted; and what it says where FUSE may not be used.
// Each daemon runs in a mount namespace of its own, in which /dev/fuse has the mode that the case needs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { firstReason, requireFuse, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage, programCommand } from '../support/programs.ts';

const NOBODY = 65534;
const CONTENT = Buffer.from('for everybody\n'.repeat(10_000));

const skip = firstReason(
  requireFuse(),
  requireRoot(),
  requirePeer('fusermount3'),
  requirePeer('unshare'),
  requirePeer('setpriv'),
);

/** A directory of nobody's with an image in it. */
function home(t: TestContext): string {
  const dir = tempDir(t);
  for (const name of ['tree', 'blobs', 'mnt']) mkdirSync(join(dir, name));
  writeFileSync(join(dir, 'tree/file'), CONTENT);
  nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'tree'], { cwd: dir });
  for (const name of ['.', 'blobs', 'mnt']) chownSync(join(dir, name), NOBODY, NOBODY);
  return dir;
}

/** Run a script as nobody where /dev/fuse is prepared by another one, that runs as root. */
function asNobody(cwd: string, prepare: string, script: string): { status: number | null; output: string } {
  const node = join(cwd, 'fuse-device');
  const all = `set -e
mknod ${node} c 10 229
${prepare}
exec setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups sh -c "$SCRIPT"`;
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    ['-m', '--propagation', 'private', 'sh', '-c', all],
    {
      cwd,
      env: { PATH: process.env['PATH'], NODE: node, SCRIPT: script, HOME: cwd },
      timeout: 60_000,
    },
  );
  return { status, output: `${String(stdout)}${String(stderr)}` };
}

const OPEN_TO_ALL = 'chmod 0666 $NODE; mount --bind $NODE /dev/fuse';
const nydusd = programCommand('nydusd')
  .map((word) => `'${word}'`)
  .join(' ');
/** Serve, wait for the mount, read, stop; the status is the daemon's. */
const SERVE = `${nydusd} -B boot -D blobs -M mnt --rlimit-nofile 0 --apisock api.sock & pid=$!
until grep -q " $PWD/mnt fuse" /proc/self/mounts; do kill -0 $pid || { wait $pid; exit; }; sleep 0.05; done
cat mnt/file > copy || ls -la . mnt tree >&2
grep " $PWD/mnt fuse" /proc/self/mounts > options
kill -TERM $pid; wait $pid; status=$?
! grep " $PWD/mnt " /proc/self/mounts || exit 99
cmp copy tree/file || exit 98
exit $status`;

describe('nydusd, not as root', { skip }, () => {
  it('nydusd: mounts with fusermount3, serves, and unmounts at SIGTERM', (t) => {
    const { status, output } = asNobody(home(t), OPEN_TO_ALL, SERVE);
    assert.equal(status, 0, output);
    assert.match(output, /INFO serving boot at /);
    assert.match(output, /INFO nydusd quits/);
  });

  it('nydusd: a device that the user may not open is told with the next step', (t) => {
    const { status, output } = asNobody(home(t), 'chmod 0600 $NODE; mount --bind $NODE /dev/fuse', SERVE);
    assert.equal(status, 1, output);
    assert.match(
      output,
      /\nError: fusermount3 cannot mount at \S+: .*\/dev\/fuse: Permission denied\n\nHint: /,
    );
  });

  it('nydusd: no /dev/fuse is told with the next step', (t) => {
    const dir = home(t);
    mkdirSync(join(dir, 'dev'));
    const dev = join(dir, 'dev');
    const none = `mknod -m 666 ${dev}/null c 1 3; mount --bind ${dev} /dev`;
    const user = asNobody(dir, none, `exec ${nydusd} -B boot -D blobs -M mnt --rlimit-nofile 0 2>&1`);
    assert.equal(user.status, 1, user.output);
    assert.match(
      user.output,
      /Error: .*fuse device not found.*\n\nHint: .*modprobe fuse.*--device \/dev\/fuse/,
    );
  });

  it('nydusd: without fusermount3 it says which package has it', (t) => {
    const dir = home(t);
    mkdirSync(join(dir, 'bin'));
    chmodSync(join(dir, 'bin'), 0o755);
    const script = `PATH=${join(dir, 'bin')}; export PATH; exec ${nydusd} -B boot -D blobs -M mnt --rlimit-nofile 0`;
    const { status, output } = asNobody(dir, OPEN_TO_ALL, script);
    assert.equal(status, 1, output);
    assert.match(output, /Error: cannot run fusermount3: [\s\S]*Hint: install fuse3/);
  });
});
