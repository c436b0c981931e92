// nydusify with Debian's docker-registry, TLS and htpasswd: copy, convert, check; skopeo and umoci read back what it pushed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BLOB,
  fatalOf,
  makeSample,
  nydusify,
  readJson,
  rootOf,
  type Ended,
  type Manifest,
} from '../e2e/nydusify-sample.ts';
import { findProgram, firstReason, requireFuse, requirePeer, requireRoot } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

/** bcrypt of `pa:ss`, as htpasswd writes it */
const HTPASSWD = 'user:$2b$04$SXFTzptYbk7k9t9gq78qLeWs/iNwQMk8HSZuxwLk1Ojb5zNLz/71G\n';
const skip = firstReason(
  requireRoot(),
  requireFuse(),
  ...['docker-registry', 'openssl', 'skopeo', 'umoci', 'tar'].map(requirePeer),
);

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** A registry with a certificate that nobody signed, and one user. @returns host:port */
async function registry(t: TestContext, dir: string): Promise<string> {
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  const kind = '-newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1';
  assert.equal(
    spawnSync('openssl', ['req', '-x509', ...kind.split(' '), '-keyout', key, '-out', cert]).status,
    0,
  );
  writeFileSync(join(dir, 'htpasswd'), HTPASSWD);
  const probe = createServer();
  await new Promise<void>((resolve) => void probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  const config = [
    'version: 0.1',
    'log: {level: error}',
    `storage: {filesystem: {rootdirectory: ${dir}/registry}}`,
    `http: {addr: "127.0.0.1:${port}", tls: {certificate: ${cert}, key: ${key}}}`,
    `auth: {htpasswd: {realm: test, path: ${dir}/htpasswd}}`,
  ];
  writeFileSync(join(dir, 'config.yml'), config.join('\n'));
  const program = findProgram('docker-registry') ?? '';
  const child = spawn(program, ['serve', join(dir, 'config.yml')], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  while (child.exitCode === null) {
    if (await answers(port)) return `127.0.0.1:${port}`;
    await sleep(20);
  }
  throw new Error(`docker-registry ended with ${child.exitCode}`);
}

test(
  'nydusify: the whole way through docker-registry, and skopeo and umoci read the result',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout } = sample;
    const host = await registry(t, work);
    mkdirSync(join(work, 'docker'));
    const auth = Buffer.from('user:pa:ss').toString('base64');
    writeFileSync(join(work, 'docker/config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
    const run = async (args: string[]): Promise<Ended> => {
      const env = { DOCKER_CONFIG: join(work, 'docker') };
      const more = ['--work-dir', join(work, args[0] ?? ''), '--platform', 'linux/amd64'];
      const result = await nydusify([...args, ...more], env);
      assert.equal(result.stderr.includes(auth) || result.stderr.includes('pa:ss'), false);
      return result;
    };
    const good = async (args: string[]): Promise<void> => {
      const result = await run(args);
      assert.equal(result.status, 0, result.stderr);
    };
    const [image, target] = [`${host}/lib/app:1`, `${host}/lib/app:1-nydus`];
    const push = ['copy', '--source', `file://${layout.dir}`, '--target', image];
    assert.match(fatalOf(await run(push)), /certificate is not trusted/);
    await good([...push, '--target-insecure', '--push-chunk-size', '100KB']);
    const insecure = ['--source-insecure', '--target-insecure'];
    await good(['convert', '--source', image, '--target', target, ...insecure]);
    await good(['check', '--source', image, '--target', target, ...insecure]);
    await good(['copy', '--source', target, '--target', `${host}/other/app:2`, ...insecure]);
    const pulled = join(work, 'pulled');
    const peer = [`docker://${host}/other/app:2`, `oci:${pulled}:2`];
    const flags = ['--preserve-digests', '--src-tls-verify=false', '--src-creds', 'user:pa:ss'];
    const skopeo = spawnSync('skopeo', ['--insecure-policy', 'copy', ...flags, ...peer], {
      encoding: 'utf8',
    });
    assert.equal(skopeo.status, 0, skopeo.stderr);
    const manifest = readJson<Manifest>(pulled, rootOf(pulled));
    assert.deepEqual(
      manifest.layers.map(({ mediaType }) => mediaType === BLOB),
      [true, true, true, false],
    );
    const umoci = spawnSync('umoci', ['stat', '--image', `${pulled}:2`, '--json'], { encoding: 'utf8' });
    assert.equal(umoci.status, 0, umoci.stderr);
    const { history } = JSON.parse(umoci.stdout) as { history: { comment?: string }[] };
    assert.equal(history.at(-1)?.comment, 'Nydus Bootstrap Layer');
    assert.match(readFileSync(join(work, 'check/target/nydus_manifest.json'), 'utf8'), /nydus-bootstrap/);
  },
);

test(
  'nydusify: blobs in a backend: convert, check, mount and copy agree where they are',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout } = sample;
    const dir = join(work, 'blobs');
    const backend = (prefix: string): string[] => [
      `--${prefix}backend-type`,
      'localfs',
      `--${prefix}backend-config`,
      JSON.stringify({ dir }),
    ];
    const run = async (args: string[]): Promise<void> => {
      const more = ['--work-dir', join(work, args[0] ?? ''), '--platform', 'linux/amd64'];
      const result = await nydusify([...args, ...more]);
      assert.equal(result.status, 0, result.stderr);
    };
    const source = ['--source', 'example.org/app:1.0', '--source-archive', layout.dir];
    const bare = ['--target', 'example.org/app:n', '--target-archive', join(work, 'bare/')];
    await run(['convert', ...source, ...bare, ...backend('')]);
    const { layers } = readJson<Manifest>(join(work, 'bare'), rootOf(join(work, 'bare')));
    assert.equal(layers.length, 1, 'the bootstrap alone is in the image');
    await run(['check', ...source, ...bare, ...backend('target-')]);
    const whole = `file://${join(work, 'whole')}/`;
    await run(['copy', '--source', `file://${join(work, 'bare')}`, '--target', whole, ...backend('source-')]);
    const target = ['--target', 'example.org/app:n', '--target-archive', join(work, 'whole')];
    await run(['check', ...source, ...target]);
  },
);
