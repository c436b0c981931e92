// skopeo and Debian's docker-registry: one pushes to and pulls from our registry, the other serves our client.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST } from '../../src/registry/media-types.ts';
import { parseManifest } from '../../src/registry/manifest.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { sha256Of } from '../../src/registry/verify.ts';
import { findProgram, requirePeer } from '../support/prerequisites.ts';
import { tempDir } from '../support/temporary.ts';

/** An OCI layout with one image of two layers. @returns digest of its manifest */
function makeLayout(dir: string): string {
  const blobs = join(dir, 'blobs', 'sha256');
  mkdirSync(blobs, { recursive: true });
  const put = (bytes: Uint8Array): { digest: string; size: number } => {
    const digest = sha256Of(bytes);
    writeFileSync(join(blobs, digest.slice(7)), bytes);
    return { digest, size: bytes.length };
  };
  // an empty tar: two zero records, and something that does not compress after it
  const tars = [Buffer.alloc(1024), Buffer.concat([Buffer.alloc(1024), randomBytes(200_000)])];
  const layers = tars.map((tar) => ({ mediaType: OCI_LAYER_GZIP, ...put(gzipSync(tar)) }));
  const rootfs = { type: 'layers', diff_ids: tars.map((tar) => sha256Of(tar)) };
  const config = put(Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs })));
  const manifest = put(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: { mediaType: OCI_CONFIG, ...config },
        layers,
      }),
    ),
  );
  const entry = {
    mediaType: OCI_MANIFEST,
    ...manifest,
    annotations: { 'org.opencontainers.image.ref.name': 'v1' },
  };
  writeFileSync(
    join(dir, 'index.json'),
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] }),
  );
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  return manifest.digest;
}

async function skopeo(args: string[]): Promise<string> {
  const child = spawn(findProgram('skopeo') ?? 'skopeo', ['--insecure-policy', ...args]);
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (piece: Buffer) => (text += piece.toString()));
  const status = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(status, 0, text);
  return text;
}

for (const access of [
  { kind: 'open' },
  { kind: 'basic', users: { user: 'pass' } },
  { kind: 'token', users: { user: 'pass' }, ttlSeconds: 60 },
] as const) {
  test(
    `RegistryServer: skopeo pushes to it and pulls from it, ${access.kind}`,
    { skip: requirePeer('skopeo') },
    async (t) => {
      const dir = tempDir(t);
      await using server = await RegistryServer.start({ dir: join(dir, 'store'), access });
      const digest = makeLayout(join(dir, 'in'));
      const login = (side: string): string[] =>
        access.kind === 'open' ? [] : [`--${side}-creds`, 'user:pass'];
      const image = `docker://${server.host}/lib/app:v1`;
      await skopeo(['copy', '--dest-tls-verify=false', ...login('dest'), `oci:${join(dir, 'in')}:v1`, image]);
      await skopeo(['copy', '--src-tls-verify=false', ...login('src'), image, `oci:${join(dir, 'out')}:v1`]);
      const index = JSON.parse(readFileSync(join(dir, 'out', 'index.json'), 'utf8')) as {
        manifests: { digest: string }[];
      };
      assert.equal(index.manifests[0]?.digest, digest);
      const creds = access.kind === 'open' ? [] : ['--creds', 'user:pass'];
      const tags = await skopeo([
        'list-tags',
        '--tls-verify=false',
        ...creds,
        `docker://${server.host}/lib/app`,
      ]);
      assert.deepEqual((JSON.parse(tags) as { Tags: string[] }).Tags, ['v1']);
    },
  );
}

test('RegistryTransport: TLS with a private CA', { skip: requirePeer('openssl') }, async (t) => {
  const dir = tempDir(t);
  const [keyFile, certFile] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  const subject = ['-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const made = [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '2',
    '-keyout',
    keyFile,
    '-out',
    certFile,
  ];
  assert.equal(spawnSync('openssl', [...made, ...subject]).status, 0);
  await using server = await RegistryServer.start({ dir: join(dir, 'store'), tls: { certFile, keyFile } });
  const use = (more: object): Repository => {
    const transport = new RegistryTransport({ host: server.host, ...more });
    t.after(() => transport.close());
    return new Repository(transport, 'lib/app');
  };
  assert.deepEqual(await use({ ca: [readFileSync(certFile, 'utf8')] }).tags(), []);
  assert.deepEqual(await use({ insecure: true }).tags(), []);
  await assert.rejects(use({}).tags(), {
    code: 'ERR_NYDUS_REGISTRY',
    message: /the TLS certificate is not trusted/,
    hint: /CA certificate/,
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function dockerRegistry(t: TestContext): Promise<string> {
  const dir = tempDir(t);
  const host = `127.0.0.1:${await freePort()}`;
  const config = [
    'version: 0.1',
    `storage: {filesystem: {rootdirectory: ${dir}/data}, delete: {enabled: true}}`,
    `http: {addr: "${host}"}`,
  ];
  writeFileSync(join(dir, 'config.yml'), config.join('\n'));
  const child = spawn(findProgram('docker-registry') ?? '', ['serve', join(dir, 'config.yml')], {
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  while (child.exitCode === null) {
    if ((await fetch(`http://${host}/v2/`).catch(() => undefined))?.ok === true) return host;
    await sleep(20);
  }
  throw new Error(`docker-registry ended with ${child.exitCode}`);
}

test(
  "Repository: pushes, mounts and reads with Debian's docker-registry",
  { skip: requirePeer('docker-registry') },
  async (t) => {
    const host = await dockerRegistry(t);
    const transport = new RegistryTransport({ host });
    t.after(() => transport.close());
    const repository = new Repository(transport, 'lib/app');
    const data = randomBytes(1_500_000);
    const digest = sha256Of(data);
    const pieces = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < data.length; at += 65_536) yield data.subarray(at, at + 65_536);
    };
    const pushed = await repository.pushStream(pieces(), { chunkSize: 400_000 });
    assert.deepEqual(pushed, { digest, size: data.length });
    const source = { digest, size: data.length, open: pieces };
    assert.equal(await repository.pushBlob(source), 'exists');
    const other = new Repository(transport, 'lib/other');
    assert.equal(await other.pushBlob(source, { mountFrom: ['lib/app'] }), 'mounted');
    const whole = new Repository(transport, 'lib/whole');
    assert.equal(await whole.pushBlob(source), 'uploaded');
    const got: Uint8Array[] = [];
    for await (const piece of other.blob(digest, data.length)) got.push(piece);
    assert.ok(Buffer.concat(got).equals(data));
    assert.ok((await whole.blobRange(digest, 5, 500_000)).equals(data.subarray(5, 500_000)));
    const config = await repository.pushBytes(Buffer.from('{}'));
    const manifest = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: OCI_CONFIG, ...config },
      layers: [],
    };
    const bytes = Buffer.from(JSON.stringify(manifest));
    const subject = await repository.putManifest(OCI_MANIFEST, bytes, 'v1');
    assert.equal(parseManifest((await repository.manifest('v1')).bytes).config.digest, config.digest);
    const with_ = { ...manifest, subject: { mediaType: OCI_MANIFEST, digest: subject, size: bytes.length } };
    const referrer = await repository.putManifest(OCI_MANIFEST, Buffer.from(JSON.stringify(with_)));
    assert.deepEqual(
      (await repository.referrers(subject)).map((entry) => entry.digest),
      [referrer],
    );
    await assert.rejects(repository.manifest('none'), { status: 404 });
  },
);
