// nydusify convert from a registry to a registry, ours and Debian's, and nydusd serving the result out of it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer, type RegistryServerOptions } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { startDaemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { findProgram, requirePeer } from '../support/prerequisites.ts';
import { compareTrees } from '../support/tree-manifest.ts';
import {
  bootstrapOf,
  contents,
  converted,
  directories,
  extractAll,
  fatalOf,
  makeSample,
  nydusify,
  readJson,
  rootOf,
  type Descriptor,
  type Manifest,
  type Sample,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));
const USER = { username: 'alice', password: 'pa:ss' };

async function serve(t: TestContext, options: Partial<RegistryServerOptions> = {}): Promise<RegistryServer> {
  const server = await RegistryServer.start({ dir: join(tempDir(t), 'store'), ...options });
  t.after(() => server.close());
  return server;
}

/** Our registry as a process of its own: walking a mount blocks this one, and readers wait for the registry. */
async function serveApart(t: TestContext): Promise<string> {
  const code =
    `import { RegistryServer } from ${JSON.stringify(new URL('../../src/registry/server/server.ts', import.meta.url).href)};` +
    `const server = await RegistryServer.start({ dir: ${JSON.stringify(join(tempDir(t), 'store'))} });` +
    'console.log(server.host);';
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  t.after(async () => {
    child.kill();
    await ended;
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return line.toString().trim();
}

/** Put the sample's image into a registry with our client. */
async function pushSample(sample: Sample, host: string): Promise<void> {
  const transport = new RegistryTransport({ host, plainHttp: true, credentials: fixedCredentials(USER) });
  try {
    const repository = new Repository(transport, 'lib/app');
    const bytes = sample.layout.read(sample.manifest);
    const manifest = JSON.parse(bytes.toString()) as Manifest;
    for (const part of [manifest.config, ...manifest.layers])
      await repository.pushBytes(sample.layout.read(part));
    await repository.putManifest(sample.manifest.mediaType, bytes, '1.0');
  } finally {
    await transport.close();
  }
}

/** Copy an image out of a registry into a layout of blobs. */
async function pull(host: string, repository: string, tag: string, layout: string): Promise<Manifest> {
  const transport = new RegistryTransport({ host, plainHttp: true, credentials: fixedCredentials(USER) });
  try {
    const from = new Repository(transport, repository);
    const root = await from.manifest(tag);
    const manifest = JSON.parse(root.bytes.toString()) as Manifest;
    mkdirSync(join(layout, 'blobs/sha256'), { recursive: true });
    for (const { digest, size } of [manifest.config, ...manifest.layers]) {
      const pieces: Uint8Array[] = [];
      for await (const piece of from.blob(digest, size)) pieces.push(piece);
      writeFileSync(join(layout, 'blobs/sha256', digest.slice(7)), Buffer.concat(pieces));
    }
    writeFileSync(join(layout, 'blobs/sha256', root.digest.slice(7)), root.bytes);
    const entry: Descriptor = { mediaType: root.mediaType, digest: root.digest, size: root.bytes.length };
    writeFileSync(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
    return manifest;
  } finally {
    await transport.close();
  }
}

function flags(sample: Sample, host: string): string[] {
  const work = ['--work-dir', join(sample.work, 'tmp'), '--platform', 'linux/amd64'];
  return ['--source', `${host}/lib/app:1.0`, '--target', `${host}/lib/app-nydus:1.0`, ...work];
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Debian's docker-registry on a free port. */
async function debianRegistry(t: TestContext, work: string): Promise<string> {
  const port = await freePort();
  const config = join(work, 'registry.yml');
  const rest = `storage: { filesystem: { rootdirectory: ${work}/registry } }\nhttp: { addr: 127.0.0.1:${port} }\n`;
  writeFileSync(config, `version: 0.1\nlog: { level: error }\n${rest}`);
  const child = spawn(findProgram('docker-registry') ?? '', ['serve', config], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  t.after(async () => {
    child.kill();
    await ended;
  });
  for (;;) {
    if (child.exitCode !== null) throw new Error('docker-registry ended');
    const up = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    await up?.arrayBuffer();
    if (up?.status === 200) return `127.0.0.1:${port}`;
    await sleep(20);
  }
}

describe('nydusify convert with a registry', { skip }, () => {
  it(
    'nydusify convert: registry to registry gives what an archive gives, and nydusd serves it',
    { skip: requireFuse() },
    async (t) => {
      const sample = makeSample(tempDir(t));
      const { work, trees, tars } = sample;
      const host = await serveApart(t);
      await pushSample(sample, host);
      // HTTPS is tried first: the server speaks HTTP only
      await converted(flags(sample, host));
      const pulled = join(work, 'pulled');
      const manifest = await pull(host, 'lib/app-nydus', '1.0', pulled);
      const local = join(work, 'local/');
      await converted(sample.args(local));
      const other = readJson<Manifest>(local, rootOf(local));
      assert.deepEqual(manifest.layers, other.layers);
      assert.equal(manifest.config.digest, other.config.digest);
      assert.equal(
        manifest.annotations['containerd.io/snapshot/nydus-source-reference'],
        `${host}/lib/app:1.0`,
      );
      assert.deepEqual(readdirSync(work).includes('tmp'), false);

      const expected = join(work, 'expected');
      extractAll(trees, tars, expected);
      const cache = join(work, 'cache');
      mkdirSync(cache);
      await using daemon = await startDaemon({
        workDir: join(work, 'daemon'),
        bootstrap: bootstrapOf(pulled, manifest, join(work, 'boot')),
        config: {
          device: {
            backend: { type: 'registry', config: { scheme: 'http', host, repo: 'lib/app-nydus' } },
            cache: { type: 'blobcache', config: { work_dir: cache } },
          },
          mode: 'direct',
          digest_validate: true,
          enable_xattr: true,
        },
      });
      const ignore = ['ino', 'blocks', 'nlink', 'mtime:/', 'mtime_nsec:/'];
      ignore.push(...directories(expected).map((path) => `size:${path}`));
      assert.deepEqual(compareTrees(expected, daemon.mountpoint, { ignore }), []);
    },
  );

  it(
    "nydusify convert: Debian's registry takes the image and gives it back",
    { skip: requirePeer('docker-registry') },
    async (t) => {
      const sample = makeSample(tempDir(t));
      const host = await debianRegistry(t, sample.work);
      await pushSample(sample, host);
      await converted([...flags(sample, host), '--plain-http', '--with-referrer']);
      const first = join(sample.work, 'first');
      await pull(host, 'lib/app-nydus', '1.0', first);
      // a second time everything is there, and it is the same
      await converted([...flags(sample, host), '--plain-http', '--with-referrer']);
      const second = join(sample.work, 'second');
      await pull(host, 'lib/app-nydus', '1.0', second);
      assert.deepEqual(contents(first), contents(second));
      assert.deepEqual(readJson<Manifest>(first, rootOf(first)).subject, sample.manifest);
    },
  );

  it('nydusify convert: logs in with the credentials of docker, and says what is missing without', async (t) => {
    const sample = makeSample(tempDir(t));
    const server = await serve(t, { access: { kind: 'basic', users: { [USER.username]: USER.password } } });
    await pushSample(sample, server.host);
    const home = join(sample.work, 'home');
    mkdirSync(home);
    const refused = await nydusify(['convert', ...flags(sample, server.host)], { HOME: home });
    assert.match(fatalOf(refused), /status 401, and there are no credentials for/);
    const auth = Buffer.from(`${USER.username}:${USER.password}`).toString('base64');
    mkdirSync(join(home, '.docker'));
    writeFileSync(join(home, '.docker/config.json'), JSON.stringify({ auths: { [server.host]: { auth } } }));
    const { status, stderr } = await nydusify(
      ['--log-level', 'trace', 'convert', ...flags(sample, server.host)],
      { HOME: home },
    );
    assert.equal(status, 0, stderr);
    assert.equal(stderr.includes(USER.password) || stderr.includes(auth), false);
    const manifest = await pull(server.host, 'lib/app-nydus', '1.0', join(sample.work, 'pulled'));
    assert.equal(manifest.layers.length, 4);
  });

  it('nydusify convert: a push that fails is tried again, as often as it may', async (t) => {
    const sample = makeSample(tempDir(t));
    let failures = 0;
    const server = await serve(t, {
      intercept: (request, response) => {
        if (request.method !== 'PUT' || !(request.url ?? '').includes('/lib/app-nydus/manifests/'))
          return false;
        if (failures === 7) return false;
        failures++;
        response.writeHead(503, { 'Content-Length': 0 }).end();
        return true;
      },
    });
    await pushSample(sample, server.host);
    const { stderr } = await converted([...flags(sample, server.host), '--push-retry-delay', '10ms']);
    assert.equal(failures, 7);
    assert.match(stderr, /level=warning msg="push of .*lib\/app-nydus:1.0 failed: .*503.*; retry 1 of 3 in/);
  });

  it('nydusify convert: a layer that the registry changes is refused, nothing is published', async (t) => {
    const sample = makeSample(tempDir(t));
    let blobs = 0;
    const server = await serve(t, {
      intercept: (request, response) => {
        const third = sample.tars[2] as Buffer;
        if (request.method !== 'GET' || !/\/blobs\/sha256:/.test(request.url ?? '')) return false;
        blobs++;
        const { layers } = JSON.parse(sample.layout.read(sample.manifest).toString()) as Manifest;
        if (!(request.url ?? '').endsWith(layers[2]?.digest ?? '')) return false;
        const bytes = Buffer.from(third);
        bytes[2000] = (bytes[2000] ?? 0) ^ 4;
        response.writeHead(200, { 'Content-Length': bytes.length }).end(bytes);
        return true;
      },
    });
    await pushSample(sample, server.host);
    const result = await nydusify(['convert', ...flags(sample, server.host)]);
    assert.match(fatalOf(result), /content is sha256:[0-9a-f]{64}, expected sha256:/);
    assert.ok(blobs >= 1);
    await assert.rejects(pull(server.host, 'lib/app-nydus', '1.0', join(sample.work, 'x')), /404/);
    assert.deepEqual(readdirSync(sample.work).sort(), ['source', 'trees']);
  });
});
