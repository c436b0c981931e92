// nydusify with Debian's docker-registry, TLS and htpasswd: copy, convert, check; skopeo and umoci read back what it pushed.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  BLOB,
  fatalOf,
  good,
  makeSample,
  nydusify,
  readJson,
  rootOf,
  type Ended,
  type Manifest,
} from '../e2e/nydusify-sample.ts';
import {
  AUTH,
  dockerRegistry,
  login,
  makeCertificate,
  PASSWORD,
  passwordAuth,
} from '../support/docker-registry.ts';
import { firstReason, requireFuse, requirePeer, requireRoot } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

const skip = firstReason(
  requireRoot(),
  requireFuse(),
  ...['docker-registry', 'openssl', 'skopeo', 'umoci', 'tar'].map(requirePeer),
);

/** A registry with a certificate that nobody signed, and one user. @returns host:port */
function registry(t: TestContext, dir: string): Promise<string> {
  const { keyFile, certFile } = makeCertificate(dir);
  return dockerRegistry(t, dir, [passwordAuth(dir)], `, tls: {certificate: ${certFile}, key: ${keyFile}}`);
}

test(
  'nydusify: the whole way through docker-registry, and skopeo and umoci read the result',
  { skip },
  async (t) => {
    const sample = makeSample(tempDir(t));
    const { work, layout } = sample;
    const host = await registry(t, work);
    const env = login(work, host);
    const run = async (args: string[]): Promise<Ended> => {
      const more = ['--work-dir', join(work, args[0] ?? ''), '--platform', 'linux/amd64'];
      const result = await nydusify([...args, ...more], env);
      assert.equal(result.stderr.includes(AUTH) || result.stderr.includes(PASSWORD), false);
      return result;
    };
    const pass = async (args: string[]): Promise<void> => {
      const result = await run(args);
      assert.equal(result.status, 0, result.stderr);
    };
    const [image, target] = [`${host}/lib/app:1`, `${host}/lib/app:1-nydus`];
    const push = ['copy', '--source', `file://${layout.dir}`, '--target', image];
    assert.match(fatalOf(await run(push)), /certificate is not trusted/);
    await pass([...push, '--target-insecure', '--push-chunk-size', '100KB']);
    const insecure = ['--source-insecure', '--target-insecure'];
    await pass(['convert', '--source', image, '--target', target, ...insecure]);
    await pass(['check', '--source', image, '--target', target, ...insecure]);
    await pass(['copy', '--source', target, '--target', `${host}/other/app:2`, ...insecure]);
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
    const run = (args: string[]): Promise<Ended> =>
      good([...args, '--work-dir', join(work, args[0] ?? ''), '--platform', 'linux/amd64']);
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
