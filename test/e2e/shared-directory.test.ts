// A shared directory as its host sees it: changes made behind nydusd's back, a full disk below it, a directory that may only be read.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setXattr } from '../../src/native/xattr.ts';
import { apiRequest, localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import {
  firstReason,
  goldenPath,
  requireFuse,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';

const CASE = 'tiny-v6-zstd-blake3';
const skip = firstReason(requireFuse(), requireRoot(), skipUnlessGolden('cases', CASE, 'bootstrap'));
/** Names and attributes are asked for again after a second. */
const STALE_MS = 1100;

/** How the directory gets into the mount: each has its own way of opening files. */
const WAYS = {
  '--shared-dir': async (work: string, shared: string): Promise<[Daemon, string]> => {
    const daemon = await startDaemon({ workDir: work, args: ['--shared-dir', shared] });
    return [daemon, daemon.mountpoint];
  },
  'a mount by API beside an image at /': async (work: string, shared: string): Promise<[Daemon, string]> => {
    const bootstrap = goldenPath('cases', CASE, 'bootstrap') ?? '';
    const config = localConfig(join(bootstrap, '..', 'blobs'), join(work, 'cache'));
    const daemon = await startDaemon({
      workDir: work,
      bootstrap,
      config,
      args: ['--virtual-mountpoint', '/image'],
    });
    const body = JSON.stringify({ fs_type: 'passthrough_fs', source: shared, config: '' });
    const answer = await apiRequest(daemon.apisock, 'POST', '/api/v1/mount?mountpoint=/shared', body);
    assert.equal(answer.status, 204, answer.body);
    return [daemon, join(daemon.mountpoint, 'shared')];
  },
};

function place(t: TestContext): { work: string; shared: string } {
  const work = tempDir(t);
  const shared = join(work, 'host');
  mkdirSync(shared);
  return { work: join(work, 'd'), shared };
}

for (const [way, start] of Object.entries(WAYS)) {
  test(
    `nydusd, ${way}: what the host changes is seen by who opens the file afterwards`,
    { skip },
    async (t) => {
      const { work, shared } = place(t);
      for (const name of ['same-size', 'longer', 'shorter', 'replaced', 'removed'])
        writeFileSync(join(shared, name), 'before');
      const [daemon, seen] = await start(work, shared);
      await using _ = daemon;
      const all = (): Record<string, string> =>
        Object.fromEntries(readdirSync(seen).map((name) => [name, readFileSync(join(seen, name), 'utf8')]));
      assert.deepEqual(new Set(Object.values(all())), new Set(['before']));
      writeFileSync(join(shared, 'same-size'), 'after!');
      writeFileSync(join(shared, 'longer'), 'and much longer');
      truncateSync(join(shared, 'shorter'), 3);
      writeFileSync(join(shared, '.new'), 'new');
      renameSync(join(shared, '.new'), join(shared, 'replaced'));
      unlinkSync(join(shared, 'removed'));
      writeFileSync(join(shared, 'created'), 'created');
      await sleep(STALE_MS);
      assert.deepEqual(all(), {
        'same-size': 'after!',
        longer: 'and much longer',
        shorter: 'bef',
        replaced: 'new',
        created: 'created',
      });
      assert.equal(await daemon.stop(), 0, daemon.log);
    },
  );
}

test(
  'nydusd --shared-dir: without --writable every call that changes something is EROFS',
  { skip },
  async (t) => {
    const { work, shared } = place(t);
    writeFileSync(join(shared, 'f'), 'content');
    mkdirSync(join(shared, 'd'));
    await using daemon = await startDaemon({ workDir: work, args: ['--shared-dir', shared] });
    const at = (name: string): string => join(daemon.mountpoint, name);
    const calls: Record<string, () => unknown> = {
      'open to write': () => openSync(at('f'), 'r+'),
      'open to truncate': () => openSync(at('f'), 'w'),
      create: () => openSync(at('new'), 'w'),
      mkdir: () => mkdirSync(at('new')),
      symlink: () => symlinkSync('x', at('new')),
      link: () => linkSync(at('f'), at('new')),
      unlink: () => unlinkSync(at('f')),
      rmdir: () => rmdirSync(at('d')),
      rename: () => renameSync(at('f'), at('new')),
      truncate: () => truncateSync(at('f'), 1),
      chmod: () => chmodSync(at('f'), 0o600),
      chown: () => chownSync(at('f'), 1, 1),
      utimes: () => utimesSync(at('f'), 1, 1),
      setxattr: () => setXattr(Buffer.from(at('f')), Buffer.from('user.x'), Buffer.from('x')),
    };
    for (const [what, act] of Object.entries(calls)) assert.throws(act, { code: 'EROFS' }, what);
    assert.equal(spawnSync('mknod', [at('new'), 'p']).status, 1);
    assert.deepEqual(readdirSync(shared).toSorted(), ['d', 'f']);
    assert.equal(readFileSync(at('f'), 'utf8'), 'content');
    const fd = openSync(at('f'), 'r');
    assert.equal(readSync(fd, Buffer.alloc(9)), 7);
    closeSync(fd);
  },
);

test(
  'nydusd --shared-dir --writable: a full disk is ENOSPC to the writer, and room made is used',
  { skip },
  async (t) => {
    const { work, shared } = place(t);
    assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', shared]).status, 0);
    await using daemon = await startDaemon({ workDir: work, args: ['--shared-dir', shared, '--writable'] });
    const path = join(daemon.mountpoint, 'big');
    const fd = openSync(path, 'w');
    const piece = Buffer.alloc(256 * 1024, 'x');
    const fill = (): void => {
      for (let n = 0; n < 8; n++) writeSync(fd, piece);
    };
    assert.throws(fill, { code: 'ENOSPC' });
    const { size } = statSync(path);
    assert.ok(size > 0 && size <= 1 << 20, `${size} bytes`);
    assert.ok(readFileSync(path).equals(Buffer.alloc(size, 'x')));
    assert.throws(() => writeFileSync(join(daemon.mountpoint, 'other'), piece), { code: 'ENOSPC' });
    truncateSync(path, 4096);
    writeFileSync(join(daemon.mountpoint, 'other'), piece);
    fsyncSync(fd);
    closeSync(fd);
    assert.ok(readFileSync(join(shared, 'other')).equals(piece));
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.doesNotMatch(daemon.log, /ERROR/);
  },
);
