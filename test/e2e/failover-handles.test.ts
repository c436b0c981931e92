// What a program has open stays good while its daemon is replaced: files, directories that are half listed, writable layers.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { apiRequest, localConfig, type Daemon } from '../support/daemon.ts';
import { awaitKeeper, command, save, takeOver, type LaunchOptions } from '../support/failover.ts';
import { guarded, kill, place, start, supervised, type Place } from '../support/failover-place.ts';
import { firstReason, repoRoot } from '../support/golden.ts';
import type { HeldReport } from '../support/handle-holder.ts';
import { requireFuse, requireRoot } from '../support/prerequisites.ts';
import { nydusImage, requireProgram } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow } from '../support/temporary.ts';

const skip = firstReason(
  requireFuse(),
  requireRoot(),
  requireProgram('nydus-image'),
  requireProgram('nydusd'),
);

/** Many long names: their listing takes the kernel dozens of requests. */
const FILES = 1500;

/** Put many files beside those of the image, and build it anew. */
function fill({ dir, image }: Place): void {
  for (let i = 0; i < FILES; i++)
    writeFileSync(join(image.source, `${String(i).padStart(6, '0')}-${'n'.repeat(80)}`), '');
  const out = ['--blob-dir', image.blobs, '--bootstrap', image.bootstrap];
  nydusImage(['create', '--compressor', 'none', '--chunk-size', '0x10000', ...out, image.source], {
    cwd: dir,
  });
}

/** Replaces a daemon by another one, in one of the two ways. */
type Replace = (daemon: Daemon) => Promise<Daemon>;

interface BeginOptions {
  config?: object;
  args?: string[];
  /** start without an image */
  empty?: boolean;
}

function optionsFor(at: Place, { config, args = [], empty }: BeginOptions, more: string[]): LaunchOptions {
  const { bootstrap, ...rest } = guarded(at, { args: [...args, ...more], ...(config && { config }) });
  if (empty !== true) return { ...rest, ...(bootstrap && { bootstrap }) };
  const { dir, mountpoint, args: all = [] } = rest;
  return { dir, mountpoint, args: all };
}

interface Way {
  name: string;
  begin: (t: TestContext, at: Place, options: BeginOptions) => Promise<{ daemon: Daemon; replace: Replace }>;
}

const WAYS: Way[] = [
  {
    name: 'kill -9 with a guardian',
    begin: async (t, at, options) => {
      const all = optionsFor(at, options, ['--failover-policy', 'resend']);
      const { daemon } = await start(t, all);
      let guardian = await awaitKeeper(daemon.apisock);
      const replace: Replace = async (old) => {
        await kill(old);
        const { daemon: next } = await start(t, all);
        guardian = await awaitKeeper(next.apisock, guardian);
        return next;
      };
      return { daemon, replace };
    },
  },
  {
    name: 'hot upgrade with a supervisor',
    begin: async (t, at, options) => {
      const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
      t.after(() => supervisor.close());
      let n = 0;
      const first = supervised(at, supervisor, n++, options.args);
      const { daemon } = await start(t, { ...optionsFor(at, options, []), ...first });
      const replace: Replace = async (old) => {
        await save(old, supervisor);
        const more = [...(options.args ?? []), '--upgrade'];
        const { daemon: next } = await start(t, supervised(at, supervisor, n++, more));
        await takeOver(next, supervisor);
        await command(old, '/api/v1/daemon/exit');
        assert.equal(await old.ended, 0, old.log);
        await command(next, '/api/v1/daemon/start');
        return next;
      };
      return { daemon, replace };
    },
  },
];

/** Files and a listing that are open while `replace` runs: as if nothing had happened. */
async function checkHandles(
  t: TestContext,
  at: Place,
  root: string,
  replace: () => Promise<void>,
  written?: string,
): Promise<void> {
  const script = join(repoRoot, 'test/support/handle-holder.ts');
  const child = spawn(process.execPath, [script, root, ...(written === undefined ? [] : [written])], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  assert.equal((await lines.next()).value, 'ready');
  await replace();
  child.stdin.end('go\n');
  const { pieces, whole, size, names } = JSON.parse((await lines.next()).value as string) as HeldReport;
  const wanted = readFileSync(join(at.image.source, 'file0'));
  const ends = [wanted.subarray(0, 1000), wanted.subarray(wanted.length - 1000)];
  assert.deepEqual(
    pieces,
    ends.map((each) => each.toString('hex')),
  );
  assert.equal(whole, wanted.toString('hex'), 'read from where it stood');
  assert.equal(size, wanted.length);
  const own = written === undefined ? names : names.filter((each) => each !== basename(written));
  assert.deepEqual(own.sort(), readdirSync(at.image.source).sort(), 'no name is missing, none comes twice');
}

for (const { name, begin } of WAYS) {
  test(
    `${name}: open files and directories go on; the kernel does not open (image from the start)`,
    { skip, timeout: 120_000 },
    async (t) => {
      const at = place(t, 2, 200_000);
      fill(at);
      const { daemon, replace } = await begin(t, at, {});
      let now = daemon;
      await checkHandles(t, at, at.mountpoint, async () => void (now = await replace(now)));
      assert.equal(await now.stop(), 0, now.log);
      assert.deepEqual(mountsBelow(at.dir), []);
    },
  );

  test(
    `${name}: open files and directories go on; OPEN is answered (image by API)`,
    { skip, timeout: 120_000 },
    async (t) => {
      const at = place(t, 2, 200_000);
      fill(at);
      const { daemon, replace } = await begin(t, at, { empty: true });
      const config = JSON.stringify(localConfig(at.image.blobs, join(at.dir, 'cache')));
      const body = JSON.stringify({ fs_type: 'rafs', source: at.image.bootstrap, config });
      const { status } = await apiRequest(daemon.apisock, 'POST', '/api/v1/mount?mountpoint=/a/b', body);
      assert.equal(status, 204);
      let now = daemon;
      await checkHandles(t, at, join(at.mountpoint, 'a/b'), async () => void (now = await replace(now)));
      assert.equal(await now.stop(), 0, now.log);
      assert.deepEqual(mountsBelow(at.dir), []);
    },
  );

  test(
    `${name}: a writable layer goes on, with what is open on it`,
    { skip, timeout: 120_000 },
    async (t) => {
      const at = place(t, 3, 200_000);
      const config = {
        version: 2,
        backend: { type: 'localfs', localfs: { dir: at.image.blobs } },
        cache: { type: 'blobcache', filecache: { work_dir: join(at.dir, 'cache') } },
        rafs: { mode: 'direct' },
        overlay: { upper_dir: join(at.dir, 'upper'), work_dir: join(at.dir, 'work') },
      };
      const { daemon, replace } = await begin(t, at, { config, args: ['--writable'] });
      let now = daemon;
      await checkHandles(
        t,
        at,
        at.mountpoint,
        async () => void (now = await replace(now)),
        join(at.mountpoint, 'new'),
      );
      assert.equal(readFileSync(join(at.dir, 'upper/new'), 'utf8'), 'before after');
      // copied up from below only now
      writeFileSync(join(at.mountpoint, 'file1'), 'changed');
      assert.equal(readFileSync(join(at.dir, 'upper/file1'), 'utf8'), 'changed');
      assert.deepEqual(mountsBelow(at.dir), [at.mountpoint, at.mountpoint], 'one layer, not two');
      now = await replace(now);
      assert.equal(readFileSync(join(at.mountpoint, 'file1'), 'utf8'), 'changed');
      assert.equal(await now.stop(), 0, now.log);
      assert.deepEqual(mountsBelow(at.dir), []);
    },
  );
}
