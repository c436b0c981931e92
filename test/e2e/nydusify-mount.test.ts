// nydusify mount: an image in a registry is a directory until Ctrl-C, and then nothing of it is left.
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { firstReason, requireFuse, requireRoot } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { mountsBelow, tempDir, unmountBelow } from '../support/temporary.ts';
import { compareTrees } from '../support/tree-manifest.ts';
import {
  command,
  converted,
  directories,
  extractAll,
  fatalOf,
  makeSample,
  nydusify,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requireFuse(), requirePeer('tar'));

interface Running {
  child: ChildProcess;
  line: string;
  /** exit status and stderr when it has ended */
  end: () => Promise<{ status: number | null; stderr: string; stdout: string }>;
}

/** Start nydusify and wait for its first line. */
async function start(t: TestContext, args: string[], env: NodeJS.ProcessEnv = {}): Promise<Running> {
  const [file = '', ...first] = command();
  const child = spawn(file, [...first, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const ended = once(child, 'close') as Promise<[number | null]>;
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on('data', (piece: Buffer) => (stderr += piece.toString()));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const end: Running['end'] = async () => ({ status: (await ended)[0], stderr, stdout });
  await Promise.race([once(child.stdout, 'data'), ended]);
  return { child, line: stdout.split('\n')[0] ?? '', end };
}

test('nydusify mount: from a registry with a password, until SIGINT', { skip }, async (t) => {
  const sample = makeSample(tempDir(t));
  const { work, layout, trees, tars } = sample;
  t.after(() => unmountBelow(work));
  writeFileSync(join(work, 'users'), 'alice:pa:ss\n', { mode: 0o600 });
  const store = [
    '--dir',
    join(work, 'registry'),
    '--users-file',
    join(work, 'users'),
    '--listen',
    '127.0.0.1:0',
  ];
  const registry = await start(t, ['serve-registry', ...store]);
  const host = registry.line.replace('http://', '');
  mkdirSync(join(work, 'docker'));
  const auth = Buffer.from('alice:pa:ss').toString('base64');
  writeFileSync(join(work, 'docker/config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
  const env = { DOCKER_CONFIG: join(work, 'docker') };
  const tmp = ['--work-dir', join(work, 'tmp'), '--platform', 'linux/amd64'];
  const image = `${host}/lib/app:1`;
  const ends = ['--source', `file://${layout.dir}`, '--target', image];
  assert.equal((await nydusify(['copy', ...ends, ...tmp], env)).status, 0);
  await converted(['--source', image, '--target-suffix', '-nydus', ...tmp], env);
  const mountpoint = join(work, 'image');
  const args = ['--target', `${image}-nydus`, '--mount-path', mountpoint, ...tmp];
  const refused = await nydusify(['mount', '--target', image, '--mount-path', mountpoint, ...tmp], env);
  assert.match(fatalOf(refused), /lib\/app:1 is no nydus image$/);
  const mounted = await start(t, ['mount', ...args], env);
  assert.equal(mounted.line, mountpoint);
  const expected = join(work, 'expected');
  extractAll(trees, tars, expected);
  const ignore = ['ino', 'blocks', 'nlink', 'mtime:/', 'mtime_nsec:/'];
  ignore.push(...directories(expected).map((path) => `size:${path}`));
  assert.deepEqual(compareTrees(expected, mountpoint, { ignore }), []);
  const config = join(work, 'tmp/fs/nydusd_config.json');
  assert.equal(statSync(config).mode & 0o777, 0o600, 'it holds the password');
  const { device } = JSON.parse(readFileSync(config, 'utf8')) as { device: { backend: object } };
  assert.deepEqual(device.backend, {
    type: 'registry',
    config: { scheme: 'http', host, repo: 'lib/app', auth, skip_verify: false },
  });
  mounted.child.kill('SIGINT');
  const { status, stderr, stdout } = await mounted.end();
  assert.equal(status, 0, stderr);
  assert.equal(stdout, `${mountpoint}\n`);
  assert.match(stderr, /Please send signal SIGINT\/SIGTERM to umount the file system/);
  assert.equal(stderr.includes(auth) || stderr.includes('pa:ss'), false);
  assert.deepEqual([existsSync(mountpoint), existsSync(join(work, 'tmp'))], [false, false]);
  assert.deepEqual(mountsBelow(work), []);
});

test(
  'nydusify view: from a layout on disk, with a directory and work directory that stay',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work } = sample;
    t.after(() => unmountBelow(work));
    await converted(sample.args(join(work, 'out/')));
    const [mountpoint, tmp] = [join(work, 'image'), join(work, 'tmp')];
    for (const dir of [mountpoint, tmp]) mkdirSync(dir);
    writeFileSync(join(tmp, 'mine'), 'not nydusify’s');
    const image = ['--target', 'example.org/app:1.0-nydus', '--target-archive', join(work, 'out')];
    const places = ['--mount-path', mountpoint, '--work-dir', tmp, '--platform', 'linux/amd64'];
    const mounted = await start(t, ['view', ...image, ...places]);
    assert.equal(mounted.line, mountpoint);
    assert.equal(readFileSync(join(mountpoint, 'etc/app.conf'), 'utf8'), 'second\n');
    mounted.child.kill('SIGTERM');
    const { status, stderr } = await mounted.end();
    assert.equal(status, 0, stderr);
    assert.deepEqual(mountsBelow(work), []);
    assert.equal(readFileSync(join(tmp, 'mine'), 'utf8'), 'not nydusify’s');
    assert.equal(existsSync(mountpoint), true);
    const missing = await nydusify(['mount', ...image, ...places, '--nydusd', '/no/nydusd']);
    assert.match(fatalOf(missing), /cannot mount .*: \/no\/nydusd: spawn \/no\/nydusd ENOENT/);
  },
);
