// Who keeps a mount of the driver fanotify where its guardians cannot be looked into (no CAP_SYS_PTRACE), are all killed, or are given up: a
// service manager that keeps open files; and what happens without one. Source: docs/drivers.md, sd_notify(3).
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { thaw } from '../../src/serve/guardian/cgroups.ts';
import { receiveWithFds } from '../../src/native/fd-passing.ts';
import { CheckReaders } from '../support/check-readers.ts';
import { startDaemon, type Daemon, type DaemonOptions } from '../support/daemon.ts';
import { guardiansOf, randomImage, slowFill, type RandomImage } from '../support/erofs-image.ts';
import { firstReason, requirePeer, tempDir } from '../support/golden.ts';
import { requireFreezer, requirePreContent } from '../support/kernel-erofs.ts';
import { programCommand, requireProgram } from '../support/programs.ts';
import { mountsBelow, unmountBelow } from '../support/temporary.ts';
import { bindDatagram } from '../support/unix-listener.ts';

const skip = firstReason(
  requirePreContent(),
  requirePeer('setpriv'),
  requireProgram('nydus-image'),
  requireProgram('nydusd'),
);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A daemon that may not look into other processes. */
const WITHOUT_PTRACE = ['setpriv', '--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace'];

function start(dir: string, image: RandomImage, more: Partial<DaemonOptions> = {}): Promise<Daemon> {
  return startDaemon({
    workDir: join(dir, 'work'),
    bootstrap: image.bootstrap,
    config: slowFill(image, join(dir, 'cache')),
    args: ['--driver', 'fanotify'],
    timeoutMs: 60_000,
    ...more,
  });
}

/** As systemd: the newest open file that a service has stored under a name. */
class Manager {
  readonly path: string;
  readonly heard: string[] = [];
  stored = -1;
  readonly #socket: number;

  constructor(path: string) {
    this.path = path;
    this.#socket = bindDatagram(path);
  }

  /** Take all messages that have come. */
  listen(): void {
    for (;;) {
      let message: { bytes: Buffer; fds: number[] };
      try {
        message = receiveWithFds(this.#socket);
      } catch {
        return; // EAGAIN: that was all
      }
      const text = message.bytes.toString();
      this.heard.push(text.split('\n')[0] ?? '');
      if (/^FDSTORE(REMOVE)?=1\nFDNAME=nydusd-erofs/.test(text)) this.#keep(message.fds[0] ?? -1);
    }
  }

  #keep(fd: number): void {
    if (this.stored >= 0) closeSync(this.stored);
    this.stored = fd;
  }

  close(): void {
    this.#keep(-1);
    closeSync(this.#socket);
  }
}

test(
  'without CAP_SYS_PTRACE: the next daemon says what to do, and leaves mount and readers alone; with what systemd keeps it goes on',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 8, 2_000_000);
    const manager = new Manager(join(dir, 'notify'));
    t.after(() => {
      manager.close();
      unmountBelow(dir);
    });
    const env = { NOTIFY_SOCKET: manager.path };
    const first = await start(dir, image, { env });
    manager.listen();
    assert.deepEqual(manager.heard, ['FDSTOREREMOVE=1', 'FDSTORE=1']);
    const readers = await CheckReaders.start(first.mountpoint, image.source, 4);
    t.after(() => readers.kill());
    first.child.kill('SIGKILL');
    await first.ended;
    const command = [...WITHOUT_PTRACE, ...programCommand('nydusd')];
    await assert.rejects(
      start(dir, image, { env, command }),
      /what process \d+.* keeps for this daemon cannot be had: EPERM[^]*CAP_SYS_PTRACE/,
    );
    assert.equal(mountsBelow(first.mountpoint).length, 1);
    const listening = { LISTEN_FDS: '1', LISTEN_FDNAMES: 'nydusd-erofs' };
    const next = await start(dir, image, {
      env: { ...env, ...listening },
      command: ['sh', '-c', 'LISTEN_PID=$$ exec "$@"', 'sh', ...command],
      inherit: [manager.stored],
    });
    assert.match(
      next.log,
      /taking over from a daemon that ended, from the service manager: 1 mounts, 1 blobs/,
    );
    assert.match(next.log, /going on with the mount/);
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], next.log);
    assert.equal(await next.stop(), 0, next.log);
    manager.listen();
    assert.equal(manager.heard.at(-1), 'FDSTOREREMOVE=1');
    assert.equal(manager.stored, -1);
    assert.deepEqual(mountsBelow(next.mountpoint), []);
  },
);

test(
  'kill -9 of the daemon and of every guardian: readers wait while systemd keeps what they held',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 8, 2_000_000);
    const manager = new Manager(join(dir, 'notify'));
    t.after(() => {
      manager.close();
      unmountBelow(dir);
    });
    const env = { NOTIFY_SOCKET: manager.path, NYDUSD_FREEZE: '0' };
    const first = await start(dir, image, { env });
    const readers = await CheckReaders.start(first.mountpoint, image.source, 4);
    t.after(() => readers.kill());
    manager.listen();
    for (const pid of [first.pid, ...guardiansOf(first.apisock)]) process.kill(pid, 'SIGKILL');
    await first.ended;
    await sleep(100);
    const next = await start(dir, image, {
      env: { ...env, LISTEN_FDS: '1', LISTEN_FDNAMES: 'nydusd-erofs' },
      command: ['sh', '-c', 'LISTEN_PID=$$ exec "$@"', 'sh', ...programCommand('nydusd')],
      inherit: [manager.stored],
    });
    const report = await readers.finish();
    assert.deepEqual([report.wrong, report.zeros, report.errors], [0, 0, {}], next.log);
    assert.equal(await next.stop(), 0, next.log);
  },
);

test(
  'a daemon with another driver takes the mount away; its guardian stays while a file of it is open',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 200_000);
    const first = await start(dir, image);
    t.after(() => unmountBelow(dir));
    const guardians = guardiansOf(first.apisock);
    const isThere = (): boolean => guardians.some((pid) => existsSync(`/proc/${pid}/exe`));
    const open = openSync(join(first.mountpoint, 'file0'), 'r');
    first.child.kill('SIGKILL');
    await first.ended;
    const next = await start(dir, image, { args: ['--driver', 'fileio'] });
    assert.match(next.log, /took away the mount/);
    await sleep(200);
    assert.equal(isThere(), true, 'whoever reads that file would see zeros');
    closeSync(open);
    for (let waited = 0; isThere() && waited < 100; waited++) await sleep(20);
    assert.equal(isThere(), false);
    assert.equal(await next.stop(), 0, next.log);
  },
);

test(
  'a mount given up after a crash: kill -9 does not end its frozen guardian, doctor names it, and the next nydusd ends it once no file is open',
  { skip: firstReason(skip, requireFreezer()), timeout: 120_000 },
  async (t) => {
    const dir = tempDir(t);
    const image = randomImage(dir, 2, 200_000);
    const daemon = await start(dir, image);
    const [pid = 0] = guardiansOf(daemon.apisock);
    t.after(() => thaw(pid));
    const record = `${daemon.apisock}.guardian`;
    // systemd's last killing spree leaves such processes alone
    assert.equal(readFileSync(`/proc/${pid}/cmdline`, 'latin1')[0], '@');
    daemon.child.kill('SIGKILL');
    await daemon.ended;
    const file = openSync(join(daemon.mountpoint, 'file1'), 'r');
    unmountBelow(daemon.mountpoint);
    process.kill(pid, 'SIGKILL');
    const named = (): boolean => {
      const [command, ...args] = programCommand('nydusd');
      const { stdout } = spawnSync(command, [...args, 'doctor', '--output', 'json'], { encoding: 'utf8' });
      const { findings } = JSON.parse(stdout) as { findings: { id: string; detail: string }[] };
      const row = findings.find(({ id }) => id === 'host.leftovers');
      return row?.detail.includes(`process ${pid} of ${record}`) === true;
    };
    const other = join(dir, 'other');
    mkdirSync(other);
    const startOther = (): Promise<Daemon> =>
      start(dir, image, { workDir: join(other, 'work'), config: slowFill(image, join(other, 'cache')) });
    assert.equal(named(), false, 'a file is open: who reads it must not see zeros');
    {
      await using next = await startOther();
      await sleep(2000);
      assert.equal(existsSync(`/proc/${pid}/exe`), true);
      assert.doesNotMatch(next.log, new RegExp(`ended process ${pid}`));
    }
    closeSync(file);
    // any nydusd of the machine ends it from now on, those of tests that run beside this one too
    const isThere = (): boolean => existsSync(`/proc/${pid}/exe`);
    // the kernel takes the superblock away a moment later
    let seen = false;
    for (let waited = 0; !(seen = named()) && isThere() && waited < 20; waited++) await sleep(100);
    assert.ok(seen || !isThere(), 'doctor does not name it');
    await using next = await startOther();
    for (let waited = 0; isThere() && waited < 200; waited++) await sleep(50);
    assert.equal(isThere(), false);
    // the record goes after the guardian, by the one who ended it, and then the log says so
    const byNext = (): boolean => next.log.includes(`ended process ${pid}, which kept a mount that is gone`);
    for (let waited = 0; !byNext() && waited < 40; waited++) await sleep(50);
    if (byNext()) assert.equal(existsSync(record), false);
    else t.diagnostic('the daemon of another test has ended it');
    assert.equal(await next.stop(), 0, next.log);
  },
);
