// nydusify serve-registry: skopeo pushes to it, it is killed, started again, and skopeo pulls the same bytes.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { findProgram, requirePeer } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';
import {
  command,
  fatalOf,
  Layout,
  nydusify,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_MANIFEST,
  sha256,
} from './nydusify-sample.ts';

interface Running {
  origin: string;
  /** end it with a signal. @returns exit status and what it wrote to stderr */
  stop: (signal: NodeJS.Signals) => Promise<{ status: number | null; log: string }>;
}

async function serve(t: TestContext, args: string[]): Promise<Running> {
  const [file = '', ...first] = command();
  const child = spawn(file, [...first, 'serve-registry', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close') as Promise<[number | null]>;
  let log = '';
  child.stderr.on('data', (piece: Buffer) => (log += piece.toString()));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const line = await Promise.race([once(child.stdout, 'data'), ended.then(() => [`ended: ${log}`])]);
  const stop: Running['stop'] = async (signal) => {
    child.kill(signal);
    const [status] = await ended;
    return { status, log };
  };
  return { origin: String(line[0]).trim(), stop };
}

function skopeo(...args: string[]): string {
  const result = spawnSync(findProgram('skopeo') ?? 'skopeo', ['--insecure-policy', ...args], {
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, result.stderr);
  return result.stdout;
}

/** A layout with an image of one layer. @returns digest of its manifest */
function image(dir: string): string {
  mkdirSync(dir);
  const layout = new Layout(dir);
  const tar = Buffer.concat([Buffer.alloc(1024), randomBytes(3_000_000)]);
  const rootfs = { type: 'layers', diff_ids: [`sha256:${sha256(tar)}`] };
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs }));
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: layout.put(config, OCI_CONFIG),
    layers: [layout.put(gzipSync(tar), `${OCI_LAYER}+gzip`)],
  };
  const entry = layout.put(Buffer.from(JSON.stringify(manifest)), OCI_MANIFEST);
  const annotations = { 'org.opencontainers.image.ref.name': 'v1' };
  writeFileSync(
    join(dir, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...entry, annotations }] }),
  );
  return entry.digest;
}

const skip = requirePeer('skopeo');

test(
  'nydusify serve-registry: what skopeo pushed is there after kill -9 and a new start',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    const digest = image(join(dir, 'in'));
    const args = ['--dir', join(dir, 'store'), '--listen'];
    const first = await serve(t, [...args, '127.0.0.1:0']);
    const host = first.origin.replace(/^http:\/\//, '');
    assert.match(host, /^127\.0\.0\.1:\d+$/);
    skopeo('copy', '--dest-tls-verify=false', `oci:${join(dir, 'in')}:v1`, `docker://${host}/lib/app:v1`);
    await first.stop('SIGKILL');
    const second = await serve(t, [...args, host]);
    skopeo('copy', '--src-tls-verify=false', `docker://${host}/lib/app:v1`, `oci:${join(dir, 'out')}:v1`);
    const index = JSON.parse(readFileSync(join(dir, 'out/index.json'), 'utf8')) as {
      manifests: { digest: string }[];
    };
    assert.equal(index.manifests[0]?.digest, digest);
    const busy = await nydusify(['serve-registry', ...args, host]);
    assert.match(fatalOf(busy), /^cannot serve .* on 127\.0\.0\.1:\d+: listen EADDRINUSE/);
    const end = await second.stop('SIGINT');
    assert.equal(end.status, 0, end.log);
    assert.match(end.log, /msg="stopped"/);
  },
);

test(
  'nydusify serve-registry: --users-file lets in who knows a password, and must be private',
  { skip },
  async (t) => {
    const dir = tempDir(t);
    image(join(dir, 'in'));
    const users = join(dir, 'users');
    writeFileSync(users, '# who may push\nalice:pa:ss\n', { mode: 0o644 });
    const args = ['--dir', join(dir, 'store'), '--listen', '127.0.0.1:0', '--users-file', users];
    assert.match(
      fatalOf(await nydusify(['serve-registry', ...args])),
      /^others can read the passwords in .* \(mode 644\)/,
    );
    chmodSync(users, 0o600);
    const { origin, stop } = await serve(t, args);
    assert.equal((await fetch(`${origin}/v2/`)).status, 401);
    const target = `docker://${origin.replace(/^http:\/\//, '')}/lib/app:v1`;
    skopeo(
      'copy',
      '--dest-tls-verify=false',
      '--dest-creds',
      'alice:pa:ss',
      `oci:${join(dir, 'in')}:v1`,
      target,
    );
    const end = await stop('SIGTERM');
    assert.equal(end.status, 0);
    assert.doesNotMatch(end.log, /pa:ss/);
  },
);

test('nydusify serve-registry: mistakes in its flags', async () => {
  for (const [args, message] of [
    [['--listen', '127.0.0.1:0'], 'Required flag "dir" not set'],
    [['--dir', '/tmp/x', '--listen', 'localhost'], '--listen "localhost" is no address'],
    [['--dir', '/tmp/x', '--listen', ':99999'], '--listen ":99999" is no address'],
    [['--dir', '/tmp/x', '--tls-cert', '/etc/passwd'], '--tls-cert and --tls-key belong together'],
  ] as const) {
    assert.equal(fatalOf(await nydusify(['serve-registry', ...args])), message);
  }
});
