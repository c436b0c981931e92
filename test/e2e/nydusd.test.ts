// nydusd as a process: what it serves, how it is asked, how it ends.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { apiRequest, localConfig, startDaemon } from '../support/daemon.ts';
import {
  firstReason,
  goldenPath,
  requireFuse,
  requireRoot,
  skipUnlessGolden,
  tempDir,
} from '../support/golden.ts';
import { programCommand } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

const V6 = 'tiny-v6-zstd-blake3';
const V5 = 'tiny-v5-zstd-blake3';
/** Of both images. */
const NAMES = ['d', 'data', 'empty', 's'];

const skip = firstReason(
  skipUnlessGolden('cases', V6, 'bootstrap'),
  skipUnlessGolden('cases', V5, 'bootstrap'),
  requireFuse(),
);

function image(name: string): { bootstrap: string; blobs: string } {
  const bootstrap = goldenPath('cases', name, 'bootstrap') ?? '';
  return { bootstrap, blobs: join(bootstrap, '..', 'blobs') };
}

/** Wait until something holds; the test's own time-out is the limit. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(10);
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.on('error', reject);
  });
}

describe('nydusd', { skip }, () => {
  for (const name of [V6, V5]) {
    it(`nydusd: serves ${name} to readers, and SIGTERM takes everything away`, async (t: TestContext) => {
      const work = tempDir(t);
      const { bootstrap, blobs } = image(name);
      await using daemon = await startDaemon({
        workDir: work,
        bootstrap,
        config: localConfig(blobs, join(work, 'cache')),
      });
      assert.deepEqual(readdirSync(daemon.mountpoint).toSorted(), NAMES);
      assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
      assert.equal(readFileSync(join(daemon.mountpoint, 'd', 'f'), 'utf8').length, 6);
      const metrics = (await daemon.get('/api/v1/metrics')) as { data_read: number; fop_hits: number[] };
      assert.equal(metrics.data_read, 8006);
      assert.equal(metrics.fop_hits[4], 2);
      assert.equal(await daemon.stop('SIGTERM'), 0, daemon.log);
      assert.deepEqual(mountsBelow(work), []);
      assert.equal(existsSync(daemon.apisock), false);
    });
  }

  it('nydusd: SIGINT ends it too, while files are open and a reader reads', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V6);
    await using daemon = await startDaemon({
      workDir: work,
      bootstrap,
      config: localConfig(blobs, join(work, 'cache')),
    });
    const fd = openSync(join(daemon.mountpoint, 'data'), 'r');
    readSync(fd, Buffer.alloc(100));
    const reader = spawn('sh', ['-c', `while :; do ls -lR ${daemon.mountpoint} >/dev/null 2>&1; done`], {
      stdio: 'ignore',
    });
    await sleep(100);
    const end = await daemon.stop('SIGINT');
    reader.kill('SIGKILL');
    closeSync(fd);
    assert.equal(end, 0, daemon.log);
    assert.deepEqual(mountsBelow(work), []);
  });

  it('nydusd: a second SIGTERM does not disturb the end', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V6);
    await using daemon = await startDaemon({
      workDir: work,
      bootstrap,
      config: localConfig(blobs, join(work, 'cache')),
    });
    daemon.child.kill('SIGTERM');
    daemon.child.kill('SIGTERM');
    assert.equal(await daemon.stop('SIGTERM'), 0, daemon.log);
    assert.deepEqual(mountsBelow(work), []);
    assert.equal(existsSync(daemon.apisock), false);
    assert.doesNotMatch(daemon.log, /not down after/);
  });

  it('nydusd: ends by itself when somebody unmounts it', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V6);
    await using daemon = await startDaemon({
      workDir: work,
      bootstrap,
      config: localConfig(blobs, join(work, 'cache')),
    });
    const umount = requireRoot() === false ? ['umount', '-l'] : ['fusermount3', '-u', '-z'];
    assert.equal(spawnSync(umount[0] ?? '', [...umount.slice(1), daemon.mountpoint]).status, 0);
    const late = sleep(10_000, 'still running after 10 s', { ref: false });
    assert.equal(await Promise.race([daemon.ended, late]), 0, daemon.log);
    assert.equal(existsSync(daemon.apisock), false);
  });

  it('nydusd: started empty, mounts, remounts and unmounts at / by API', async (t: TestContext) => {
    const work = tempDir(t);
    await using daemon = await startDaemon({ workDir: work });
    const list = (): string[] => readdirSync(daemon.mountpoint).toSorted();
    const ask = async (method: string, path: string, body?: unknown): Promise<number> => {
      const answer = await apiRequest(
        daemon.apisock,
        method,
        path,
        body === undefined ? body : JSON.stringify(body),
      );
      return answer.status;
    };
    const body = (name: string): object => ({
      fs_type: 'rafs',
      source: image(name).bootstrap,
      config: JSON.stringify(localConfig(image(name).blobs, join(work, name))),
    });
    assert.deepEqual(list(), []);
    assert.equal(await ask('POST', '/api/v1/mount?mountpoint=/', body(V5)), 204);
    assert.deepEqual(list(), NAMES);
    assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
    assert.equal(await ask('POST', '/api/v1/mount?mountpoint=/', body(V5)), 500);
    assert.equal(await ask('PUT', '/api/v1/mount?mountpoint=/', body(V6)), 204);
    assert.deepEqual(list(), NAMES);
    assert.equal(readFileSync(join(daemon.mountpoint, 'd', 'f')).length, 6);
    assert.equal(await ask('DELETE', '/api/v1/mount?mountpoint=/'), 204);
    assert.deepEqual(list(), []);
    assert.equal((await apiRequest(daemon.apisock, 'GET', '/api/v1/metrics')).status, 404);

    // the older form, its configuration in a file, with comments
    const text = `// of the image\n${JSON.stringify(localConfig(image(V6).blobs, join(work, 'older')))}`;
    writeFileSync(join(work, 'older.json'), text);
    const older = {
      source: image(V6).bootstrap,
      fstype: 'rafs',
      mountpoint: '/',
      config: join(work, 'older.json'),
    };
    assert.equal(await ask('PUT', '/api/v1/mount', older), 204);
    assert.deepEqual(list(), NAMES);
    assert.equal(await ask('PUT', '/api/v1/mount', { ...older, source: image(V6).bootstrap }), 204);
    assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
    const metrics = (await daemon.get('/api/v1/metrics?id=/')) as { data_read: number };
    assert.equal(metrics.data_read, 8000);
    assert.equal(await daemon.stop(), 0, daemon.log);
  });

  it('nydusd: a silent connection lives as long as the daemon, and dies with it', async (t: TestContext) => {
    const work = tempDir(t);
    await using daemon = await startDaemon({ workDir: work });
    const silent = await open(daemon.apisock);
    let closed = false;
    silent.on('close', () => (closed = true));
    silent.resume();
    await sleep(3000);
    assert.equal(closed, false);
    assert.equal(await daemon.stop(), 0, daemon.log);
    await until(() => closed);
  });

  it('nydusd: exit by API leaves the mount; the next daemon mounts over it', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V6);
    const options = { workDir: work, bootstrap, config: localConfig(blobs, join(work, 'cache')) };
    const first = await startDaemon(options);
    assert.equal((await apiRequest(first.apisock, 'PUT', '/api/v1/daemon/exit')).status, 204);
    assert.equal(await first.ended, 0, first.log);
    assert.deepEqual(mountsBelow(work), [first.mountpoint]);
    assert.equal(existsSync(first.apisock), false);
    // nobody may touch the dead mount meanwhile, so not startDaemon
    const [file, ...program] = programCommand('nydusd');
    const args = [
      '-M',
      first.mountpoint,
      '-A',
      first.apisock,
      '-B',
      bootstrap,
      '-C',
      join(work, 'nydusd.json'),
    ];
    const second = spawn(file, [...program, ...args], { stdio: 'ignore' });
    t.after(() => second.kill('SIGKILL'));
    await until(() => existsSync(first.apisock) || second.exitCode !== null);
    assert.deepEqual(readdirSync(first.mountpoint).toSorted(), NAMES);
    second.kill('SIGTERM');
    await until(() => second.exitCode !== null);
    assert.equal(second.exitCode, 0);
    await first[Symbol.asyncDispose]();
  });

  it('nydusd: --localfs-dir, --prefetch-files, --log-file and a changed log level', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V6);
    cpSync(blobs, join(work, 'blobs'), { recursive: true, dereference: true });
    for (const name of readdirSync(join(work, 'blobs'))) chmodSync(join(work, 'blobs', name), 0o644);
    writeFileSync(join(work, 'list'), '/data\n\n/d\n');
    const args = [
      '-D',
      join(work, 'blobs'),
      '--prefetch-files',
      join(work, 'list'),
      '-L',
      join(work, 'daemon'),
    ];
    await using daemon = await startDaemon({ workDir: work, bootstrap, args: [...args, '--thread-num=1'] });
    assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
    assert.ok(readdirSync(join(work, 'blobs')).some((name) => name.endsWith('.blob.data')));
    const log = (): string => readFileSync(join(work, 'daemon.log'), 'utf8');
    assert.match(log(), /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} [+-]\d\d:\d\d\] INFO Program Version: v/);
    assert.doesNotMatch(log(), / DEBUG /);
    await apiRequest(daemon.apisock, 'PUT', '/api/v1/daemon', '{"log_level":"debug"}');
    await daemon.get('/api/v1/daemon');
    assert.match(log(), /\] DEBUG \[[^\]]+\] API: GET \/api\/v1\/daemon: 200\n/);
    assert.equal(await daemon.stop(), 0);
    assert.equal(daemon.log, '');
    assert.match(log(), /INFO nydusd quits\n$/);
  });

  it('nydusd: a version 2 configuration in TOML, unknown keys warned about', async (t: TestContext) => {
    const work = tempDir(t);
    const { bootstrap, blobs } = image(V5);
    const toml = `version = 2
[backend]
type = "localfs"
[backend.localfs]
dir = "${blobs}"
[cache]
type = "blobcache"
[cache.filecache]
work_dir = "${join(work, 'cache')}"
[rafs]
mode = "direct"
iostat_files = true
`;
    writeFileSync(join(work, 'c.toml'), toml);
    const args = ['-C', join(work, 'c.toml')];
    await using daemon = await startDaemon({ workDir: join(work, 'd'), bootstrap, args });
    assert.equal(readFileSync(join(daemon.mountpoint, 'data')).length, 8000);
    assert.match(daemon.log, /WARN .*unknown key `rafs\.iostat_files` at line 12 is ignored/);
    assert.equal(await daemon.stop(), 0);
  });

  it('nydusd: many clients at once, some of them hostile, and the daemon goes on', async (t: TestContext) => {
    const work = tempDir(t);
    await using daemon = await startDaemon({ workDir: work });
    const hostile = [
      'GET / HTTP/1.1\r\n'.repeat(3),
      '\0'.repeat(4096),
      'PUT /api/v1/mount?mountpoint=/ HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n',
      `PUT /api/v1/config HTTP/1.1\r\nContent-Length: 40000\r\n\r\n${'['.repeat(40000)}`,
      `POST /api/v1/mount?mountpoint=/ HTTP/1.1\r\nContent-Length: 3\r\n\r\n{"s`,
      'GET /api/v1/metrics?id=%zz%00 HTTP/1.1\r\n\r\n',
      'PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{"a":',
    ];
    const sockets = await Promise.all(Array.from({ length: 60 }, () => open(daemon.apisock)));
    for (const [index, socket] of sockets.entries()) {
      socket.on('error', () => {});
      socket.resume();
      socket.write(hostile[index % hostile.length] ?? '');
    }
    for (let i = 0; i < 20; i++) {
      const { state } = (await daemon.get('/api/v1/daemon')) as { state: string };
      assert.equal(state, 'RUNNING');
    }
    for (const socket of sockets) socket.destroy();
    assert.equal(await daemon.stop(), 0, daemon.log);
    assert.doesNotMatch(daemon.log, /nydusd failed|\bat \S+:\d+:\d+/);
  });
});
