// Crash and upgrade under readers that check every byte: no error, no wrong byte, no hang. NYDUS_FAILOVERS sets how often (default 2).
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { CheckReaders } from '../support/check-readers.ts';
import { apiRequest, localConfig, type Daemon } from '../support/daemon.ts';
import { slowFill } from '../support/erofs-image.ts';
import { awaitKeeper, command, keeperOf, launch, save, stateOf, takeOver } from '../support/failover.ts';
import { guarded, isSleeping, kill, place, start, supervised } from '../support/failover-place.ts';
import { firstReason } from '../support/golden.ts';
import { requireFuse } from '../support/prerequisites.ts';
import { requireProgram } from '../support/programs.ts';
import { Supervisor } from '../support/supervisor.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';

const skip = firstReason(requireFuse(), requireProgram('nydus-image'), requireProgram('nydusd'));
const ROUNDS = Number(process.env['NYDUS_FAILOVERS'] ?? 2);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test(
  `kill -9, ${ROUNDS} times, with a guardian: readers see a pause`,
  { skip, timeout: 600_000 },
  async (t) => {
    const at = place(t, 12, 3_000_000);
    let { daemon } = await start(t, guarded(at));
    const readers = await CheckReaders.start(at.mountpoint, at.image.source);
    t.after(() => readers.kill());
    let guardian: number | undefined;
    for (let round = 0; round < ROUNDS; round++) {
      guardian = await awaitKeeper(daemon.apisock, guardian);
      await sleep((round * 37) % 150);
      await kill(daemon);
      // the cache is emptied now and then: reads have to wait for the backend again
      if (round % 3 === 2) rmSync(join(at.dir, 'cache'), { recursive: true });
      await sleep((round * 53) % 100);
      ({ daemon } = await start(t, guarded(at)));
      assert.equal(await stateOf(daemon), 'RUNNING');
      assert.match(daemon.log, /going on with the mount of a daemon that ended: 1 images/);
      await sleep(50);
    }
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], daemon.log);
    guardian = await awaitKeeper(daemon.apisock, guardian);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.deepEqual(mountsBelow(at.mountpoint), []);
    assert.equal(keeperOf(daemon.apisock), undefined);
    assert.equal(isSleeping(guardian), false, 'the guardian is ended');
  },
);

test(`hot upgrade, ${ROUNDS} times: readers see nothing`, { skip, timeout: 600_000 }, async (t) => {
  const at = place(t, 12, 3_000_000);
  const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
  t.after(() => supervisor.close());
  let { daemon } = await start(t, supervised(at, supervisor, 0));
  const config = JSON.stringify(slowFill(at.image, join(at.dir, 'cache')));
  const body = JSON.stringify({ fs_type: 'rafs', source: at.image.bootstrap, config });
  const mount = (to: Daemon, where: string): Promise<{ status: number; body: string }> =>
    apiRequest(to.apisock, 'POST', `/api/v1/mount?mountpoint=${where}`, body);
  for (const where of ['/one', '/nested/two']) assert.equal((await mount(daemon, where)).status, 204);
  const readers = await CheckReaders.start(join(at.mountpoint, 'nested/two'), at.image.source);
  t.after(() => readers.kill());
  for (let round = 1; round <= ROUNDS; round++) {
    await save(daemon, supervisor);
    const { daemon: next, state } = await start(t, supervised(at, supervisor, round, ['--upgrade']));
    assert.equal(state, 'INIT');
    await takeOver(next, supervisor);
    assert.equal(await stateOf(next), 'READY');
    await command(daemon, '/api/v1/daemon/exit');
    assert.equal(await daemon.ended, 0, daemon.log);
    assert.equal(existsSync(daemon.apisock), false);
    await save(next, supervisor);
    await command(next, '/api/v1/daemon/start');
    assert.equal(await stateOf(next), 'RUNNING');
    daemon = next;
    for (const where of ['/one', '/nested/two'])
      assert.equal((await mount(daemon, where)).status, 204, 'again');
    await sleep(50 + ((round * 37) % 100));
  }
  const report = await readers.finish();
  assert.deepEqual([report.wrong, report.errors], [0, {}], daemon.log);
  const other = await apiRequest(
    daemon.apisock,
    'POST',
    '/api/v1/mount?mountpoint=/one',
    JSON.stringify({ fs_type: 'rafs', source: at.image.bootstrap, config: ` ${config}` }),
  );
  assert.match(other.body, /already exists/);
  assert.deepEqual(readdirSync(at.mountpoint).sort(), ['nested', 'one']);
  assert.equal((await mount(daemon, '/three')).status, 204, 'numbers go on');
  assert.equal(readdirSync(join(at.mountpoint, 'three')).length, 12);
  assert.equal(await daemon.stop(), 0, daemon.log);
  assert.deepEqual(mountsBelow(at.mountpoint), []);
});

test(
  'kill -9 with a supervisor: the same command waits, takes over and starts',
  { skip, timeout: 120_000 },
  async (t) => {
    const at = place(t, 8, 2_000_000);
    const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
    t.after(() => supervisor.close());
    const options = guarded(at, {
      args: ['--supervisor', supervisor.path, '--id', 'd1', '--failover-policy', 'resend'],
    });
    let { daemon } = await start(t, options);
    await save(daemon, supervisor);
    assert.equal(keeperOf(daemon.apisock), undefined, 'no guardian beside a supervisor');
    const readers = await CheckReaders.start(at.mountpoint, at.image.source);
    t.after(() => readers.kill());
    for (let round = 0; round < Math.min(ROUNDS, 20); round++) {
      await sleep(30 + ((round * 37) % 100));
      await kill(daemon);
      let state: string;
      ({ daemon, state } = await start(t, options));
      assert.equal(state, 'INIT', daemon.log);
      assert.match(daemon.log, /A previous daemon crashed! Try to failover later\./);
      await takeOver(daemon, supervisor);
      await command(daemon, '/api/v1/daemon/start');
      assert.equal(await stateOf(daemon), 'RUNNING');
    }
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.errors], [0, {}], daemon.log);
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.deepEqual(mountsBelow(at.mountpoint), []);
  },
);

test(
  'guardian killed: another one takes its place; both killed: the mount is taken away',
  { skip },
  async (t) => {
    const at = place(t, 4, 300_000);
    const { daemon } = await start(t, guarded(at));
    const first = await awaitKeeper(daemon.apisock);
    process.kill(first, 'SIGKILL');
    const second = await awaitKeeper(daemon.apisock, first);
    await kill(daemon);
    const { daemon: next } = await start(t, guarded(at));
    const third = await awaitKeeper(next.apisock, second);
    assert.equal(
      readFileSync(join(at.mountpoint, 'file0')).equals(readFileSync(join(at.image.source, 'file0'))),
      true,
    );
    for (let waited = 0; isSleeping(second) && waited < 100; waited++) await sleep(20);
    // the daemon must not see its death
    next.child.kill('SIGSTOP');
    process.kill(third, 'SIGKILL');
    await kill(next);
    const { daemon: last } = await start(t, guarded(at));
    assert.match(last.log, /took away a dead mount at .*, left by a daemon that was killed/);
    assert.equal(mountsBelow(at.mountpoint).length, 1);
    assert.equal(
      readFileSync(join(at.mountpoint, 'file1')).equals(readFileSync(join(at.image.source, 'file1'))),
      true,
    );
    assert.equal(await last.stop(), 0, last.log);
  },
);

test(
  'a second daemon on what a living one serves is refused; a kept mount that is gone is forgotten',
  { skip },
  async (t) => {
    const at = place(t, 2, 100_000);
    const { daemon } = await start(t, guarded(at));
    const guardian = await awaitKeeper(daemon.apisock);
    await assert.rejects(
      launch(guarded(at)).then(async ({ daemon: other }) => assert.equal(await other.ended, 0, other.log)),
      /another nydusd serves/,
    );
    assert.equal(await stateOf(daemon), 'RUNNING');
    await kill(daemon);
    unmountBelow(at.dir);
    const { daemon: next } = await start(t, guarded(at));
    assert.match(next.log, new RegExp(`the mount that process ${guardian} keeps is gone`));
    await awaitKeeper(next.apisock, guardian);
    assert.equal(isSleeping(guardian), false);
    await command(next, '/api/v1/daemon/exit');
    assert.equal(await next.ended, 0);
    assert.equal(keeperOf(next.apisock), undefined, 'exit ends the guardian');
  },
);

/** A registry that never answers its first read of a blob, and every other one. @returns its host, and when that read came */
async function stuckRegistry(t: TestContext, blobs: string): Promise<{ host: string; stuck: Promise<void> }> {
  const stuck = Promise.withResolvers<void>();
  let first = true;
  const server = createServer((request, response) => {
    const id = /blobs\/sha256:(\w+)$/.exec(request.url ?? '')?.[1];
    if (id === undefined) {
      response.end('{}');
      return;
    }
    if (request.method === 'GET' && first) {
      first = false;
      stuck.resolve();
      return;
    }
    const blob = readFileSync(join(blobs, id));
    const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '');
    const [from, to] = [
      Number(range?.[1] ?? 0),
      Math.min(Number(range?.[2] || blob.length), blob.length - 1),
    ];
    const piece = blob.subarray(from, to + 1);
    response.writeHead(range === null ? 200 : 206, {
      'content-length': String(piece.length),
      ...(range === null ? {} : { 'content-range': `bytes ${from}-${to}/${blob.length}` }),
    });
    response.end(request.method === 'HEAD' ? undefined : piece);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  return { host: `127.0.0.1:${port}`, stuck: stuck.promise };
}

function sha256sum(path: string): { child: ChildProcess; text: Promise<string> } {
  const child = spawn('sha256sum', [path], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (piece: Buffer) => (text += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (text += piece.toString()));
  return {
    child,
    text: once(child, 'close').then(() => (text.startsWith('sha256sum:') ? text : text.slice(0, 64))),
  };
}

for (const kind of ['guardian', 'supervisor'] as const) {
  test(
    `a reader that waits for the backend at kill -9 gets its bytes from the successor (${kind})`,
    { skip, timeout: 60_000 },
    async (t) => {
      const at = place(t, 1, 200_000);
      const { host, stuck } = await stuckRegistry(t, at.image.blobs);
      const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
      t.after(() => supervisor.close());
      const config = {
        ...localConfig('/none', join(at.dir, 'cache')),
        device: {
          backend: { type: 'registry', config: { scheme: 'http', host, repo: 'lib/x' } },
          cache: { type: 'blobcache', config: { work_dir: join(at.dir, 'cache') } },
        },
      };
      const args =
        kind === 'guardian'
          ? ['--failover-policy', 'resend']
          : ['--supervisor', supervisor.path, '--id', 'd1'];
      const options = guarded(at, { config, args });
      const { daemon } = await start(t, options);
      if (kind === 'guardian') await awaitKeeper(daemon.apisock);
      else await save(daemon, supervisor);
      const reader = sha256sum(join(at.mountpoint, 'file0'));
      t.after(() => reader.child.kill('SIGKILL'));
      await stuck;
      await kill(daemon);
      const { daemon: next } = await start(t, options);
      if (kind === 'supervisor') {
        await takeOver(next, supervisor);
        await command(next, '/api/v1/daemon/start');
      }
      assert.equal(
        await reader.text,
        await sha256sum(join(at.image.source, 'file0')).text,
        daemon.log + next.log,
      );
      assert.equal(await next.stop(), 0, next.log);
    },
  );
}

test('statuses: before, during and after a takeover', { skip, timeout: 60_000 }, async (t) => {
  const at = place(t, 1, 1000);
  const supervisor = new Supervisor(join(at.dir, 'd1.sock'));
  t.after(() => supervisor.close());
  const { daemon } = await start(t, supervised(at, supervisor, 0));
  const put = async (to: Daemon, path: string): Promise<string> => {
    const { status, body } = await apiRequest(to.apisock, 'PUT', `/api/v1/daemon/${path}`);
    return `${status} ${body}`;
  };
  assert.match(
    await put(daemon, 'fuse/sendfd'),
    /^500 .*Upgrade\(DaemonAbnormal\(UpgradeManager\(.*StorageBackendError\(CreateUnixStream\(Os \{ code: 2/,
  );
  assert.match(await put(daemon, 'fuse/takeover'), /^400 .*UnexpectedEvent\(\\"Takeover\\"\)/);
  await save(daemon, supervisor);
  const { daemon: next } = await start(t, supervised(at, supervisor, 1, ['--upgrade']));
  assert.deepEqual(
    [await put(next, 'fuse/sendfd'), await put(next, 'start')],
    [
      '503 {"code":"UNDEFINED","message":"Upgrade(DaemonAbnormal(NotReady))"}',
      '400 {"code":"UNDEFINED","message":"Configure(DaemonAbnormal(UnexpectedEvent(\\"Start\\")))"}',
    ],
  );
  const info = (await next.get('/api/v1/daemon')) as Record<string, unknown>;
  assert.deepEqual([info['id'], info['supervisor'], info['state']], ['d1', supervisor.path, 'INIT']);
  await takeOver(next, supervisor);
  assert.match(await put(next, 'fuse/takeover'), /^400 /);
  await command(daemon, '/api/v1/daemon/exit');
  await command(next, '/api/v1/daemon/start');
  assert.deepEqual(readdirSync(at.mountpoint), []);
  await next.stop();
  // nonsense in the place of a state
  supervisor.state = Buffer.from('no state at all');
  const { daemon: lost } = await start(t, supervised(at, supervisor, 2, ['--upgrade']));
  const sent = supervisor.send();
  assert.match(await put(lost, 'fuse/takeover'), /^500 .*UpgradeManager\(.*saved state\.size/);
  await sent;
  assert.equal(await stateOf(lost), 'INIT');
  assert.equal(await lost.stop(), 0, lost.log);
});
