// Drills for what networks and stores do to an image that is being read: outages in the middle of readers, bits that flip in
// each kind of range. OUTAGE_SECONDS (3) sets how long the registry is gone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { NydusError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { RafsInstance } from '../../src/rafs/instance.ts';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { readWhole } from '../conformance/cache-suite.ts';
import { instanceConfig } from '../conformance/instance-config.ts';
import { BlobServer } from '../support/blob-server.ts';
import { startDaemon, type Daemon } from '../support/daemon.ts';
import { startDelayProxy, type DelayProxy } from '../support/delay-proxy.ts';
import { requireFuse } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';
import { tempDir } from '../support/temporary.ts';

const FILES = ['one', 'two', 'three', 'four'];
const SECONDS = Number(process.env['OUTAGE_SECONDS'] ?? 3);

interface Built {
  dir: string;
  bootstrap: string;
  blobId: string;
  blob: Buffer;
  files: Map<string, Buffer>;
}

function build(t: TestContext, size: number): Built {
  const dir = tempDir(t);
  const source = join(dir, 'source');
  const blobs = join(dir, 'blobs');
  mkdirSync(source);
  mkdirSync(blobs);
  const files = new Map(FILES.map((name) => [name, randomBytes(size)]));
  for (const [name, data] of files) writeFileSync(join(source, name), data);
  const bootstrap = join(dir, 'bootstrap');
  nydusImage(['create', '--chunk-size', '0x10000', '--bootstrap', bootstrap, '--blob-dir', blobs, source]);
  const blobId = readdirSync(blobs)[0] ?? '';
  return { dir, bootstrap, blobId, blob: readFileSync(join(blobs, blobId)), files };
}

const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** A daemon whose registry is behind a link. */
async function linked(
  t: TestContext,
  more: object,
): Promise<{ daemon: Daemon; link: DelayProxy; files: Map<string, Buffer> }> {
  const { dir, bootstrap, blob, files } = build(t, 2_000_000);
  const server = await RegistryServer.start({ dir: join(dir, 'registry') });
  t.after(() => server.close());
  const transport = new RegistryTransport({ host: server.host, plainHttp: true });
  await new Repository(transport, 'app').pushBytes(blob);
  await transport.close();
  const target = { host: '127.0.0.1', port: server.port };
  const link = await startDelayProxy({ target, rttMs: 10, bitsPerSecond: 60e6 });
  t.after(() => link.close());
  const registry = { scheme: 'http', host: `127.0.0.1:${link.port}`, repo: 'app', timeout: 2, ...more };
  mkdirSync(join(dir, 'cache'));
  const device = {
    backend: { type: 'registry', config: registry },
    cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } },
  };
  const daemon = await startDaemon({
    bootstrap,
    workDir: join(dir, 'run'),
    config: { device, mode: 'direct' },
  });
  t.after(() => daemon[Symbol.asyncDispose]());
  return { daemon, link, files };
}

/** SHA-256 of a file, read by a process of its own: the registry of the test needs the I/O threads of this one. */
async function sumOf(daemon: Daemon, name: string): Promise<string> {
  const child = spawn('sha256sum', [join(daemon.mountpoint, name)], { stdio: ['ignore', 'pipe', 'pipe'] });
  const pieces: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (piece: Buffer) => pieces.push(piece.toString()));
  const [status] = (await once(child, 'close')) as [number];
  const text = pieces.join('');
  if (status !== 0) throw new Error(text);
  return text.split(' ')[0] ?? '';
}

const linesOf = (daemon: Daemon, what: RegExp): number =>
  daemon.log.split('\n').filter((line) => what.test(line)).length;

test('nydusd: four readers go through an outage without an error', { skip: requireFuse() }, async (t) => {
  const { daemon, link, files } = await linked(t, { outage_wait: 60 });
  const reading = Promise.all(FILES.map((name) => sumOf(daemon, name)));
  while (link.bytes().toClient < 500_000) await new Promise((resolve) => setTimeout(resolve, 5));
  await link.setDown(true);
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  const { outage } = (await daemon.get('/api/v1/metrics/backend')) as {
    outage: { down: boolean; outages: number };
  };
  assert.deepEqual([outage.down, outage.outages], [true, 1]);
  await link.setDown(false);
  const all = await reading;
  assert.deepEqual(
    all,
    FILES.map((name) => sum(files.get(name) ?? Buffer.alloc(0))),
  );
  assert.equal(linesOf(daemon, /registry 127\.0\.0\.1:\d+ is down: /), 1);
  assert.equal(linesOf(daemon, /registry 127\.0\.0\.1:\d+ is back after /), 1);
});

test(
  'nydusd: an outage longer than outage_wait is EIO, not sooner, and over when the registry is back',
  {
    skip: requireFuse(),
  },
  async (t) => {
    const { daemon, link, files } = await linked(t, { outage_wait: 1 });
    await link.setDown(true);
    const began = performance.now();
    await assert.rejects(sumOf(daemon, 'one'), /Input\/output error/);
    assert.ok(performance.now() - began >= 1000);
    await link.setDown(false);
    for (const name of FILES)
      assert.equal(await sumOf(daemon, name), sum(files.get(name) ?? Buffer.alloc(0)));
  },
);

test(
  'nydusd: tokens that end while four readers read, and a registry that forgets them all',
  { skip: requireFuse() },
  async (t) => {
    const { dir, bootstrap, blob, files } = build(t, 1_500_000);
    const users = { ann: 'secret' };
    const tokens: number[] = [];
    const server = await RegistryServer.start({
      dir: join(dir, 'registry'),
      access: { kind: 'token', users, ttlSeconds: 1 },
      intercept: ({ url }) => {
        if (url?.startsWith('/token') === true) tokens.push(performance.now());
        return false;
      },
    });
    t.after(() => server.close());
    const credentials = fixedCredentials({ username: 'ann', password: 'secret' });
    const transport = new RegistryTransport({ host: server.host, plainHttp: true, credentials });
    await new Repository(transport, 'app').pushBytes(blob);
    await transport.close();
    const link = await startDelayProxy({
      target: { host: '127.0.0.1', port: server.port },
      rttMs: 5,
      bitsPerSecond: 12e6,
    });
    t.after(() => link.close());
    const auth = Buffer.from('ann:secret').toString('base64');
    const registry = { scheme: 'http', host: `127.0.0.1:${link.port}`, repo: 'app', auth, timeout: 20 };
    mkdirSync(join(dir, 'cache'));
    const device = {
      backend: { type: 'registry', config: registry },
      cache: { type: 'blobcache', config: { work_dir: join(dir, 'cache') } },
    };
    const before = tokens.length;
    await using daemon = await startDaemon({
      bootstrap,
      workDir: join(dir, 'run'),
      config: { device, mode: 'direct', amplify_io: 0 },
    });
    const reading = Promise.all(FILES.map((name) => sumOf(daemon, name)));
    // the blob takes 4 s on this link
    while (link.bytes().toClient < 2_000_000) await new Promise((resolve) => setTimeout(resolve, 5));
    server.access.revokeAll();
    assert.deepEqual(
      await reading,
      FILES.map((name) => sum(files.get(name) ?? Buffer.alloc(0))),
    );
    assert.ok(tokens.length - before >= 3, `${tokens.length - before} tokens`);
    assert.equal(linesOf(daemon, /Input\/output|EIO| is down: |status 401/), 0, daemon.log);
    assert.ok(!daemon.log.includes('secret') && !daemon.log.includes(auth));
  },
);

test('RafsInstance: one flipped bit in any kind of range never reaches a reader or the cache', async (t) => {
  const { dir, bootstrap, blob, blobId, files } = build(t, 200_000);
  let served: Buffer = blob;
  const server = await BlobServer.start(t, {
    find: ({ url }) => (url === `/${blobId}` ? served : undefined),
  });
  const common = {
    skip_verify: false,
    ca_cert_files: [],
    timeout: 5,
    connect_timeout: 5,
    retry_limit: 0,
    proxy: null,
  };
  const open = (workDir: string): Promise<RafsInstance> => {
    const config = instanceConfig({ blobDir: dir, workDir, cache: { validate: true } });
    const backend = { addr: `http://${server.host}`, path: '', ...common };
    if (config.backend !== null)
      config.backend = { ...config.backend, type: 'http-proxy', localfs: null, 'http-proxy': backend };
    return RafsInstance.open({ bootstrap, id: 'drill', logger: silentLogger, config, decodeThreads: 0 });
  };
  /** Names that failed; every other file had its bytes. */
  const readAll = async (workDir: string): Promise<string[]> => {
    const failed: string[] = [];
    const instance = await open(workDir);
    for (const [name, data] of files) {
      const bytes = await readWhole(instance, `/${name}`).catch((error: unknown) => {
        assert.ok(error instanceof NydusError, String(error));
        failed.push(name);
      });
      if (bytes !== undefined) assert.equal(sum(bytes), sum(data), `${name} has wrong bytes`);
    }
    await instance.close();
    return failed;
  };
  const first = await open(join(dir, 'probe'));
  const [info] = first.image.blobs;
  await first.close();
  assert.ok(info !== undefined);
  const ciEnd = info.ciOffset + info.ciCompressedSize + 4096;
  // the trailers between are tar headers, which nobody reads
  const ranges: Record<string, [number, number]> = {
    chunk: [0, info.ciOffset - 512],
    'compression information': [info.ciOffset, info.ciOffset + info.ciCompressedSize],
    'its header': [ciEnd - 4096, ciEnd - 3000],
    'digest array': [
      blob.length - info.tocSize - 512 - info.chunkCount * 32,
      blob.length - info.tocSize - 512,
    ],
    'table of contents': [blob.length - info.tocSize, blob.length - 512],
  };
  let failures = 0;
  for (const [what, [start, end]] of Object.entries(ranges)) {
    for (let round = 0; round < 4; round++) {
      const at = start + Math.floor(((round + 0.5) / 4) * (end - start));
      served = Buffer.from(blob);
      served[at] = (served[at] ?? 0) ^ (1 << round);
      const workDir = join(dir, `cache-${what}-${round}`);
      const failed = await readAll(workDir);
      failures += failed.length;
      if (what === 'chunk') assert.equal(failed.length, 1, `a bit at ${at} of ${what}: ${failed.join()}`);
      served = blob;
      assert.deepEqual(await readAll(workDir), [], `after a bit at ${at} of ${what}`);
    }
  }
  assert.ok(failures > 4);
});

test('RafsInstance: one flipped bit in the bootstrap is an error or changes no byte of a file', async (t) => {
  const { dir, bootstrap, blobId, files } = build(t, 100_000);
  const image = readFileSync(bootstrap);
  const blobDir = join(dir, 'blobs');
  assert.ok(readdirSync(blobDir).includes(blobId));
  const bits = 64;
  const digests = new Set([...files.values()].map(sum));
  for (let round = 0; round < bits; round++) {
    const at = Math.floor(((round + 0.5) / bits) * image.length);
    const damaged = Buffer.from(image);
    damaged[at] = (damaged[at] ?? 0) ^ (1 << (round % 8));
    const path = join(dir, `bootstrap-${round}`);
    writeFileSync(path, damaged);
    const config = instanceConfig({ blobDir, workDir: join(dir, `cache-${round}`) });
    let instance: RafsInstance | undefined;
    try {
      instance = await RafsInstance.open({
        bootstrap: path,
        id: 'drill',
        logger: silentLogger,
        config,
        decodeThreads: 0,
      });
      for (const name of files.keys()) {
        const bytes: Buffer | void = await readWhole(instance, `/${name}`).catch((error: unknown) => {
          assert.ok(error instanceof NydusError, String(error));
        });
        if (bytes === undefined) continue;
        // metadata has no digest: a size may have changed, then it is the start of a file, or a file with zeros behind it
        const whole = files.get(name) ?? Buffer.alloc(0);
        const common = Math.min(bytes.length, whole.length);
        const same: boolean = bytes.subarray(0, common).equals(whole.subarray(0, common));
        assert.ok(same || digests.has(sum(bytes)), `a bit at ${at}: ${name} has wrong bytes`);
      }
    } catch (error) {
      assert.ok(error instanceof NydusError, String(error));
    } finally {
      await instance?.close();
    }
  }
});
