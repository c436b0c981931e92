// `nydusd doctor` as users start it: as root, as nobody, without /dev/fuse, with a configuration that cannot work, and stopped halfway.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Finding, Report } from '../../src/daemon/doctor/finding.ts';
import { BlobServer } from '../support/blob-server.ts';
import { localConfig } from '../support/daemon.ts';
import { firstReason, requireFuse, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { requirePreContent } from '../support/kernel-erofs.ts';
import { programCommand, requireProgram, runProgram, type ProgramResult } from '../support/programs.ts';
import { mountsBelow } from '../support/temporary.ts';

const NOBODY = 65534;
const TIMEOUT = 60_000;
const skip = firstReason(requireProgram('nydusd'), requireFuse(), requireRoot());

/** What `--output json` printed. */
function reportOf(result: { status: number | null; stdout: string; stderr: string }): Report {
  assert.notEqual(result.stdout, '', result.stderr);
  return JSON.parse(result.stdout) as Report;
}

function find({ findings }: Report, id: string): Finding {
  const found = findings.find((one) => one.id === id);
  assert.ok(found !== undefined, `${id} is not in ${JSON.stringify(findings)}`);
  return found;
}

/** Everything that is made by the doctor goes below this directory. */
function home(t: { after(fn: () => void): void }): { dir: string; env: NodeJS.ProcessEnv } {
  const dir = tempDir(t);
  for (const name of ['tmp', 'cache', 'blobs']) mkdirSync(join(dir, name));
  return { dir, env: { ...process.env, TMPDIR: join(dir, 'tmp') } };
}

function assertNothingLeft(dir: string): void {
  assert.deepEqual(mountsBelow(dir), []);
  assert.deepEqual(readdirSync(join(dir, 'tmp')), []);
  assert.deepEqual(readdirSync(join(dir, 'cache')), []);
}

function doctor(dir: string, env: NodeJS.ProcessEnv, ...args: string[]): ProgramResult {
  return runProgram('nydusd', ['doctor', ...args], { cwd: dir, env, timeout: TIMEOUT });
}

/** Run the doctor in a mount namespace of its own. @param prepare shell script, run as root */
function inNamespace(dir: string, prepare: string, env: NodeJS.ProcessEnv, ...args: string[]): ProgramResult {
  const command = [
    '-m',
    '--propagation',
    'private',
    'sh',
    '-c',
    `set -e\n${prepare}\nexec "$@"`,
    'sh',
    ...args,
  ];
  const { status, signal, stdout, stderr } = spawnSync('unshare', command, {
    cwd: dir,
    env,
    timeout: TIMEOUT,
  });
  return { status, signal, stdout: String(stdout), stderr: String(stderr) };
}

/** Start the doctor, and stop it with ^C once something has happened. */
async function interrupted(
  dir: string,
  env: NodeJS.ProcessEnv,
  args: string[],
  when: () => boolean,
): Promise<{ status: number | null; stderr: string }> {
  const [file, ...first] = programCommand('nydusd');
  const child = spawn(file, [...first, 'doctor', ...args], {
    cwd: dir,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  const end = once(child, 'close') as Promise<[number | null]>;
  while (!when() && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
  child.kill('SIGINT');
  const [status] = await end;
  return { status, stderr };
}

describe('nydusd doctor', { skip }, () => {
  it('doctor: as root every driver works where the machine has it, and nothing is left behind', (t) => {
    const { dir, env } = home(t);
    writeFileSync(
      join(dir, 'config.json'),
      JSON.stringify(localConfig(join(dir, 'blobs'), join(dir, 'cache'))),
    );
    const result = doctor(dir, env, '--output', 'json', '--config', 'config.json');
    const report = reportOf(result);
    assert.equal(result.status, 0, result.stdout);
    assert.equal(find(report, 'configuration.backend').status, 'ok');
    assert.deepEqual([report.ok, report.driver], [true, 'fuse']);
    assert.equal(find(report, 'driver.fuse').status, 'ok');
    assert.equal(find(report, 'host.privileges').status, 'ok');
    assert.equal(find(report, 'host.guardian').status, 'ok');
    if (requirePreContent() === false) {
      for (const id of ['erofs.metadata', 'erofs.device', 'driver.fileio', 'driver.fanotify'])
        assert.equal(find(report, id).status, 'ok', JSON.stringify(find(report, id)));
    }
    assertNothingLeft(dir);
  });

  it('doctor: a cache on tmpfs has no fanotify, says what to do, and still works', (t) => {
    const { dir, env } = home(t);
    const cache = tempDir(t, '../dev/shm/nydus-doctor-');
    const result = doctor(dir, env, '--output', 'json', '--cache', cache);
    const report = reportOf(result);
    assert.equal(result.status, 0, result.stdout);
    assert.equal(find(report, 'driver.fuse').status, 'ok');
    const fanotify = find(report, 'driver.fanotify');
    assert.deepEqual([fanotify.status, fanotify.essential, fanotify.subject], ['fail', false, cache]);
    assert.match(fanotify.fix ?? '', /ext4, xfs or btrfs|Linux 6\.14/);
    assert.match(find(report, 'cache.file-system').detail, /^tmpfs /);
    assert.deepEqual(readdirSync(cache), []);
  });

  const nobody = firstReason(requirePeer('fusermount3'), requirePeer('unshare'), requirePeer('setpriv'));
  it('doctor: as nobody FUSE works, and the other drivers say what they need', { skip: nobody }, (t) => {
    const { dir, env } = home(t);
    for (const name of ['.', 'tmp', 'cache']) chownSync(join(dir, name), NOBODY, NOBODY);
    const prepare = `mknod -m 666 ${dir}/fuse c 10 229; mount --bind ${dir}/fuse /dev/fuse`;
    const user = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
    const args = ['doctor', '--output', 'json', '--cache-dir', join(dir, 'cache')];
    const result = inNamespace(dir, prepare, env, ...user, ...programCommand('nydusd'), ...args);
    const report = reportOf(result);
    assert.equal(result.status, 0, result.stdout);
    assert.notEqual(find(report, 'driver.fuse').status, 'fail');
    assert.equal(find(report, 'host.privileges').status, 'warn');
    for (const id of ['erofs.metadata', 'driver.fileio', 'driver.fanotify']) {
      assert.equal(find(report, id).status, 'fail');
      assert.equal(
        find(report, id).fix,
        'run as root, or with CAP_SYS_ADMIN',
        JSON.stringify(find(report, id)),
      );
    }
    assertNothingLeft(dir);
  });

  it(
    'doctor: without /dev/fuse it says how to get it; driver auto takes another one',
    { skip: requirePeer('unshare') },
    (t) => {
      const { dir, env } = home(t);
      mkdirSync(join(dir, 'dev'));
      const prepare = `mknod -m 666 ${dir}/dev/null c 1 3; mount --bind ${dir}/dev /dev`;
      const nydusd = [
        ...programCommand('nydusd'),
        'doctor',
        '--output',
        'json',
        '--cache-dir',
        join(dir, 'cache'),
      ];
      const result = inNamespace(dir, prepare, env, ...nydusd);
      const report = reportOf(result);
      assert.equal(result.status, 1, result.stdout);
      assert.equal(report.ok, false);
      const fuse = find(report, 'driver.fuse');
      assert.deepEqual([fuse.status, fuse.essential], ['fail', true]);
      assert.match(fuse.fix ?? '', /modprobe fuse.*--device \/dev\/fuse/);
      assert.equal(find(report, 'driver.fileio').status, 'fail');
      if (requirePreContent() === false) {
        const auto = inNamespace(
          dir,
          prepare.replace(/^mknod[^;]*; /, ''),
          env,
          ...nydusd,
          '--driver',
          'auto',
        );
        assert.equal(auto.status, 0, auto.stdout);
        assert.equal(find(reportOf(auto), 'driver.auto').detail, 'takes fanotify here');
      }
      assertNothingLeft(dir);
    },
  );

  it('doctor: a configuration that cannot work fails where it is wrong, and shows no secret', (t) => {
    const { dir, env } = home(t);
    writeFileSync(join(dir, 'bad.json'), '{');
    const bad = doctor(dir, env, '--output', 'json', '--cache-dir', 'cache', '--config', 'bad.json');
    const report = reportOf(bad);
    assert.equal(bad.status, 1);
    assert.match(find(report, 'configuration.file').detail, /^bad\.json: .*line 1, column 1/);
    assert.equal(find(report, 'driver.fuse').status, 'ok');

    writeFileSync(join(dir, 'file'), '');
    const auth = Buffer.from('user:geheim').toString('base64');
    const registry = { scheme: 'http', host: '127.0.0.1:9', repo: 'r', auth };
    const config = {
      device: {
        backend: { type: 'registry', config: registry },
        cache: { type: 'blobcache', config: { work_dir: join(dir, 'file') } },
      },
      mode: 'direct',
    };
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
    const { status, stdout, stderr } = doctor(dir, { ...env, LANG: 'C.UTF-8' }, '--config', 'config.json');
    assert.equal(status, 1, stderr);
    assert.match(stdout, /^This machine\n {2}- {4}kernel {8}Linux /);
    assert.match(stdout, /^ {2}ok {3}fuse {10}a test image was mounted through FUSE and read$/m);
    assert.match(stdout, /no {3}writable {6}\S+\/file is not a directory/);
    assert.match(stdout, /no {3}backend {7}.*127\.0\.0\.1:9.*connection refused/);
    assert.match(stdout, /\nNot ready to serve with driver fuse: cache writable, configuration backend\.\n$/);
    assert.ok(!`${stdout}${stderr}`.includes(auth) && !`${stdout}${stderr}`.includes('geheim'));
    assertNothingLeft(dir);
  });

  it('doctor: ^C leaves nothing behind, neither in the middle of a mount nor while a registry is silent', async (t) => {
    const { dir, env } = home(t);
    const mounted = await interrupted(dir, env, ['--cache-dir', 'cache'], () => mountsBelow(dir).length > 0);
    assert.equal(mounted.status, 130, mounted.stderr);
    assert.match(mounted.stderr, /stopped by SIGINT/);
    assertNothingLeft(dir);

    const server = await BlobServer.start(t, { find: () => undefined });
    server.always = () => {};
    const registry = { scheme: 'http', host: server.host, repo: 'r', timeout: 60 };
    const config = {
      device: {
        backend: { type: 'registry', config: registry },
        cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } },
      },
      mode: 'direct',
    };
    writeFileSync(join(dir, 'config.json'), JSON.stringify(config));
    const asking = await interrupted(dir, env, ['--config', 'config.json'], () => server.requests.length > 0);
    assert.equal(asking.status, 130, asking.stderr);
    assertNothingLeft(dir);
  });
});
