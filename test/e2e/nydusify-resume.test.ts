// nydusify convert, killed and started again: it goes on where it was, and the result is what an undisturbed run gives.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { Repository } from '../../src/registry/repository.ts';
import { RegistryServer, type RegistryServerOptions } from '../../src/registry/server/server.ts';
import { RegistryTransport } from '../../src/registry/transport.ts';
import { firstReason, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { noise, text } from '../support/sample-tree.ts';
import {
  command,
  contents,
  converted,
  Layout,
  nydusify,
  OCI_LAYER,
  tarOf,
  type Descriptor,
  type Manifest,
} from './nydusify-sample.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));
/** `NYDUS_KILLS=20` tries more. */
const KILLS = Number(process.env['NYDUS_KILLS'] ?? 2);
const USER = { username: 'alice', password: 'pa:ss-w0rd' };

interface Big {
  work: string;
  layout: Layout;
  manifest: Descriptor;
}

/** Five layers, one of them larger than one piece of an upload. */
function makeBig(work: string): Big {
  const layout = new Layout(join(work, 'source'));
  const tars = [9, 1, 2, 0, 1].map((size, i) => {
    const tree = join(work, `trees/${i}`);
    mkdirSync(tree, { recursive: true });
    for (let at = 0; at < size; at++)
      writeFileSync(join(tree, `noise${at}`), noise(`${i}.${at}`, 1024 * 1024));
    writeFileSync(join(tree, `text${i}`), text(`text${i}`, 400_000));
    return tarOf(tree);
  });
  const layers = tars.map((tar) => layout.put(gzipSync(tar, { level: 1 }), `${OCI_LAYER}+gzip`));
  const manifest = layout.image(tars, 'amd64', layers);
  layout.index([{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': '1.0' } }]);
  return { work, layout, manifest };
}

async function serve(t: TestContext, options: Partial<RegistryServerOptions> = {}): Promise<RegistryServer> {
  const server = await RegistryServer.start({
    dir: join(tempDir(t), 'store'),
    access: { kind: 'basic', users: { [USER.username]: USER.password } },
    ...options,
  });
  t.after(() => server.close());
  return server;
}

async function inRepository<T>(
  host: string,
  name: string,
  use: (repository: Repository) => Promise<T>,
): Promise<T> {
  const transport = new RegistryTransport({ host, plainHttp: true, credentials: fixedCredentials(USER) });
  try {
    return await use(new Repository(transport, name));
  } finally {
    await transport.close();
  }
}

function push({ layout, manifest }: Big, host: string): Promise<unknown> {
  return inRepository(host, 'lib/app', async (repository) => {
    const bytes = layout.read(manifest);
    const { config, layers } = JSON.parse(bytes.toString()) as Manifest;
    for (const part of [config, ...layers]) await repository.pushBytes(layout.read(part));
    await repository.putManifest(manifest.mediaType, bytes, '1.0');
  });
}

function digestOf(host: string, name: string): Promise<string> {
  return inRepository(host, name, async (repository) => (await repository.manifest('1.0')).digest);
}

function home(work: string, host: string): NodeJS.ProcessEnv {
  const dir = join(work, 'home');
  mkdirSync(join(dir, '.docker'), { recursive: true });
  const auth = Buffer.from(`${USER.username}:${USER.password}`).toString('base64');
  writeFileSync(join(dir, '.docker/config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
  return { HOME: dir };
}

/** Start a conversion and kill it after some time, or when `when` says so. @returns whether it was killed */
async function killed(args: string[], env: NodeJS.ProcessEnv, when: Promise<unknown>): Promise<boolean> {
  const [file, ...first] = command();
  const child = spawn(file as string, [...first, 'convert', ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: 'ignore',
  });
  const ended = new Promise<NodeJS.Signals | null>((resolve) =>
    child.on('exit', (_code, signal) => resolve(signal)),
  );
  await Promise.race([when, ended]);
  child.kill('SIGKILL');
  return (await ended) === 'SIGKILL';
}

/** What a killed run left is for its owner alone, and holds no secrets. */
function checkLeft(dir: string): void {
  if (!existsSync(dir)) return;
  const secrets = [USER.password, Buffer.from(`${USER.username}:${USER.password}`).toString('base64')];
  for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) {
      assert.equal(statSync(path).mode & 0o077, 0, path);
    } else if (entry.name === 'owner' || entry.name.endsWith('.jsonl')) {
      assert.equal(statSync(path).mode & 0o777, 0o600, path);
      const bytes = readFileSync(path, 'latin1');
      for (const secret of secrets) assert.equal(bytes.includes(secret), false, path);
    }
  }
}

describe('nydusify convert that is killed', { skip }, () => {
  it(`nydusify convert: killed at ${KILLS} random moments, the next run gives the same digests`, async (t) => {
    const big = makeBig(tempDir(t));
    const { work, layout } = big;
    const server = await serve(t);
    await push(big, server.host);
    const env = home(work, server.host);
    const tmp = join(work, 'tmp');
    const common = ['--platform', 'linux/amd64', '--work-dir', tmp];
    const remote = (name: string): string[] =>
      [
        '--source',
        `${server.host}/lib/app:1.0`,
        '--target',
        `${server.host}/${name}:1.0`,
        '--plain-http',
      ].concat(common);
    const local = (target: string): string[] =>
      [
        '--source',
        'example.org/app:1.0',
        '--source-archive',
        layout.dir,
        '--target',
        'example.org/n:1.0',
      ].concat(['--target-archive', target], common);
    const began = performance.now();
    await converted(remote('lib/whole'), env);
    const took = performance.now() - began;
    const whole = await digestOf(server.host, 'lib/whole');
    await converted(local(join(work, 'whole/')));
    await converted(local(join(work, 'whole.tar')));
    const tar = readFileSync(join(work, 'whole.tar'));
    let kills = 0;
    for (let round = 0; round < KILLS; round++) {
      const wait = (): number => Math.random() * took;
      const [name, dir, file] = [`lib/n${round}`, join(work, `n${round}/`), join(work, `n${round}.tar`)];
      if (await killed(remote(name), env, sleep(wait()))) kills++;
      checkLeft(tmp);
      await converted(remote(name), env);
      assert.equal(await digestOf(server.host, name), whole);
      await killed(local(dir), {}, sleep(wait()));
      await converted(local(dir));
      assert.deepEqual(contents(dir), contents(join(work, 'whole/')));
      await killed(local(file), {}, sleep(wait()));
      await converted(local(file));
      assert.ok(
        readFileSync(file).equals(tar),
        `${createHash('sha256').update(readFileSync(file)).digest('hex')}`,
      );
      assert.deepEqual(
        readdirSync(work).filter((entry) => entry.startsWith('.') || entry === 'tmp'),
        [],
      );
    }
    assert.ok(kills > 0 || KILLS === 0);
  });

  it('nydusify convert: what is converted is neither read nor pushed again', async (t) => {
    const big = makeBig(tempDir(t));
    const { work } = big;
    const seen: string[] = [];
    let stopAt: (() => void) | undefined;
    let hold = true;
    const server = await serve(t, {
      intercept: (request) => {
        const line = `${request.method} ${request.url}`;
        seen.push(line);
        if (!hold || !/^PUT .*lib\/nydus\/manifests/.test(line)) return false;
        stopAt?.();
        return true; // and never answers
      },
    });
    await push(big, server.host);
    const env = home(work, server.host);
    const args = ['--source', `${server.host}/lib/app:1.0`, '--target', `${server.host}/lib/nydus:1.0`];
    args.push('--platform', 'linux/amd64', '--work-dir', join(work, 'tmp'), '--plain-http');
    assert.equal(await killed(args, env, new Promise<void>((resolve) => (stopAt = resolve))), true);
    hold = false;
    const moved = (): string[] =>
      seen.filter((line) => /^(POST|PATCH|PUT) .*\/blobs\/|^GET .*\/blobs\//.test(line));
    assert.ok(
      moved().some((line) => line.startsWith('PATCH')),
      'a large layer goes out in pieces',
    );
    seen.length = 0;
    const resumed = await nydusify(['convert', ...args, '--progress', 'json'], env);
    assert.equal(resumed.status, 0, resumed.stderr);
    const { config } = JSON.parse(big.layout.read(big.manifest).toString()) as Manifest;
    assert.deepEqual(moved(), [`GET /v2/lib/app/blobs/${config.digest}`]);
    const events = resumed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.deepEqual(
      events.filter((event) => event['event'] === 'layer').map((event) => event['how']),
      Array.from({ length: 5 }, () => 'resumed'),
    );
    // and a whole new run finds that the target has everything
    const before = await digestOf(server.host, 'lib/nydus');
    seen.length = 0;
    await converted(args, env);
    assert.deepEqual(
      seen.filter((line) => /^(POST|PATCH|PUT) .*\/blobs\//.test(line)),
      [],
    );
    assert.equal(await digestOf(server.host, 'lib/nydus'), before);
    assert.equal(existsSync(join(work, 'tmp')), false);
  });
});
