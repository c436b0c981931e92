// nydusify convert while registries and networks fail: it succeeds with the same digests, or says what is wrong in bounded
// time; never another image.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { RegistryServer } from '../../src/registry/server/server.ts';
import { firstReason, requireRoot, tempDir } from '../support/golden.ts';
import { requirePeer } from '../support/prerequisites.ts';
import { noise, text } from '../support/sample-tree.ts';
import {
  fatalOf,
  Layout,
  nydusify,
  OCI_LAYER,
  tarOf,
  type Descriptor,
  type Ended,
  type Manifest,
} from './nydusify-sample.ts';
import { digestOf, documentOf, pushImage, serve, USER } from './registry-images.ts';

const skip = firstReason(requireRoot(), requirePeer('tar'));

type Fault = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

interface Image {
  layout: Layout;
  manifest: Descriptor;
  layers: { descriptor: Descriptor; bytes: Buffer }[];
}

/** Two layers; the blob of the first needs more than one piece. */
function makeImage(work: string): Image {
  const layout = new Layout(join(work, 'source'));
  const tars = [9, 0].map((size, i) => {
    const tree = join(work, `tree${i}`);
    mkdirSync(tree);
    for (let at = 0; at < size; at++)
      writeFileSync(join(tree, `noise${at}`), noise(`${i}.${at}`, 1024 * 1024));
    writeFileSync(join(tree, `text${i}`), text(`text${i}`, 400_000));
    return tarOf(tree);
  });
  const packed = tars.map((tar) => gzipSync(tar, { level: 1 }));
  const descriptors = packed.map((bytes) => layout.put(bytes, `${OCI_LAYER}+gzip`));
  const manifest = layout.image(tars, 'amd64', descriptors);
  const layers = descriptors.map((descriptor, i) => ({ descriptor, bytes: packed[i] as Buffer }));
  return { layout, manifest, layers };
}

function login(work: string, host: string): NodeJS.ProcessEnv {
  const dir = join(work, 'home/.docker');
  mkdirSync(dir, { recursive: true });
  const auth = Buffer.from(`${USER.username}:${USER.password}`).toString('base64');
  writeFileSync(join(dir, 'config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
  return { HOME: join(work, 'home') };
}

const isBlobRead = ({ method, url = '' }: IncomingMessage): boolean =>
  method === 'GET' && /\/blobs\/sha256:/.test(url);

describe('nydusify convert under faults', { skip }, () => {
  const work = tempDir({ after });
  const basic = { kind: 'basic', users: { [USER.username]: USER.password } } as const;
  let image: Image;
  let server: RegistryServer;
  let host = '';
  let env: NodeJS.ProcessEnv = {};
  let fault: Fault = () => false;
  let expected = '';
  let runs = 0;

  const start = (port: number): Promise<RegistryServer> =>
    RegistryServer.start({
      dir: join(work, 'store'),
      port,
      access: basic,
      intercept: (request, response) => fault(request, response),
    });

  /** Convert into a repository of its own while a fault is in force. */
  async function convert(during: Fault, more: string[] = []): Promise<Ended & { name: string }> {
    const name = `lib/n${runs++}`;
    const args = ['--source', `${host}/lib/app:1.0`, '--target', `${host}/${name}:1.0`, '--plain-http'];
    args.push(
      '--platform',
      'linux/amd64',
      '--work-dir',
      join(work, `tmp${runs}`),
      '--push-retry-delay',
      '20ms',
    );
    fault = during;
    try {
      return { name, ...(await nydusify(['--log-level', 'trace', 'convert', ...args, ...more], env)) };
    } finally {
      fault = () => false;
    }
  }

  async function succeeds(during: Fault): Promise<string> {
    const { name, status, stderr } = await convert(during);
    assert.equal(status, 0, stderr);
    assert.equal(await digestOf(host, name), expected);
    assert.equal(stderr.includes(USER.password), false);
    return stderr;
  }

  before(async () => {
    image = makeImage(work);
    server = await start(0);
    ({ host } = server);
    env = login(work, host);
    await pushImage(image.layout, image.manifest, host, 'lib/app', '1.0');
    const { name, status, stderr } = await convert(() => false);
    assert.equal(status, 0, stderr);
    expected = await digestOf(host, name);
  });

  after(() => server.close());

  it('the registry is stopped and started again, and has forgotten its uploads', async () => {
    const port = Number(host.split(':')[1]);
    let restarted: Promise<void> | undefined;
    await succeeds((request) => {
      if (restarted !== undefined || request.method !== 'PATCH') return false;
      restarted = (async () => {
        await server.close();
        await sleep(300);
        server = await start(port);
      })();
      request.socket.destroy();
      return true;
    });
    assert.notEqual(restarted, undefined);
    await restarted;
  });

  it('429 and 503, with and without Retry-After, once for every request', async () => {
    const kinds: [number, Record<string, string>][] = [
      [503, {}],
      [429, { 'Retry-After': '0' }],
      [429, {}],
      [503, { 'Retry-After': '1' }],
    ];
    const seen = new Set<string>();
    let refused = 0;
    await succeeds((request, response) => {
      // a push that begins anew has another place
      const path = (request.url ?? '').replace(/\?.*/, '').replace(/[0-9a-f-]{36}$/, 'place');
      const key = `${request.method} ${path}`;
      if (seen.has(key) || request.method === 'DELETE') return false;
      seen.add(key);
      const [status, headers] = kinds[refused++ % kinds.length] as (typeof kinds)[number];
      request.resume();
      response.writeHead(status, { ...headers, 'Content-Length': 0 }).end();
      return true;
    });
    assert.ok(refused >= 10, `${refused} requests were refused`);
  });

  it('bodies that end early are gone on with where they ended', async () => {
    const cut = new Set<string>();
    await succeeds((request, response) => {
      const found = image.layers.find(({ descriptor }) => (request.url ?? '').endsWith(descriptor.digest));
      if (!isBlobRead(request) || found === undefined || cut.has(found.descriptor.digest)) return false;
      cut.add(found.descriptor.digest);
      const { bytes } = found;
      response.writeHead(200, { 'Content-Length': bytes.length });
      response.write(bytes.subarray(0, bytes.length >> 1), () => response.destroy());
      return true;
    });
    assert.equal(cut.size, 2);
  });

  it('a bit that flips on the way once: the layer is read again, and right', async () => {
    const flipped = new Set<string>();
    const stderr = await succeeds((request, response) => {
      const found = image.layers.find(({ descriptor }) => (request.url ?? '').endsWith(descriptor.digest));
      if (!isBlobRead(request) || found === undefined || flipped.has(found.descriptor.digest)) return false;
      flipped.add(found.descriptor.digest);
      const bytes = Buffer.from(found.bytes);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      response.writeHead(200, { 'Content-Length': bytes.length }).end(bytes);
      return true;
    });
    assert.equal(flipped.size, 2);
    assert.match(stderr, /layer sha256:[0-9a-f]{64} failed: .*; again in 0 ms/);
  });

  it('a bit that always flips, and a blob that is always cut short: an error that says so, and no image', async () => {
    for (const [damage, message] of [
      [
        (bytes: Buffer): Buffer => ((bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1), bytes),
        /content is sha256:.*, expected sha256:/,
      ],
      [(bytes: Buffer): Buffer => bytes.subarray(0, bytes.length - 1), /\d+ bytes, sha256:.* has \d+/],
    ] as const) {
      const failed = await convert((request, response) => {
        const found = image.layers[1];
        if (!isBlobRead(request) || !(request.url ?? '').endsWith(found?.descriptor.digest ?? '-'))
          return false;
        const bytes = damage(Buffer.from(found?.bytes ?? []));
        response.writeHead(200, { 'Content-Length': bytes.length }).end(bytes);
        return true;
      });
      assert.match(fatalOf(failed), message);
      await assert.rejects(digestOf(host, failed.name), /404/);
    }
  });

  it('an outage that does not end: an error in bounded time, and the state for another try', async () => {
    const failed = await convert(
      (request, response) => {
        if (request.method !== 'PATCH') return false;
        request.resume();
        response.writeHead(500, { 'Content-Length': 0 }).end();
        return true;
      },
      ['--push-retry-count', '0'],
    );
    assert.match(fatalOf(failed), /PATCH .*: .*500/);
    const left = readdirSync(join(work, `tmp${runs}`), { recursive: true, encoding: 'utf8' });
    // the small layer was done
    assert.equal(left.filter((path) => /layers\/[0-9a-f]{64}$/.test(path)).length, 1);
    await assert.rejects(digestOf(host, failed.name), /404/);
  });

  it('a registry that takes no blobs in pieces gets them whole', async () => {
    const methods = new Set<string>();
    await succeeds((request, response) => {
      methods.add(request.method ?? '');
      if (request.method !== 'PATCH') return false;
      request.resume();
      response.writeHead(405, { 'Content-Length': 0 }).end();
      return true;
    });
    assert.ok(methods.has('PATCH'));
  });

  it('tokens that end after two seconds, or are no longer taken, while a push goes on', async (t) => {
    const refused = new Set<string>();
    let forgetful = false;
    const tokens = await serve(t, {
      access: { kind: 'token', users: { [USER.username]: USER.password }, ttlSeconds: 2 },
      intercept: async (request) => {
        const key = `${request.method} ${(request.url ?? '').split('?')[0]}`;
        // the first of each kind comes with a token that the registry has forgotten
        if (forgetful && !/token/.test(key) && !refused.has(key)) {
          refused.add(key);
          request.headers.authorization = 'Bearer forgotten';
        }
        if (request.method === 'PATCH' || request.method === 'POST') await sleep(900);
        return false;
      },
    });
    await pushImage(image.layout, image.manifest, tokens.host, 'lib/app', '1.0');
    forgetful = true;
    const args = [
      '--source',
      `${tokens.host}/lib/app:1.0`,
      '--target',
      `${tokens.host}/lib/n:1.0`,
      '--plain-http',
    ];
    args.push('--platform', 'linux/amd64', '--work-dir', join(work, 'tokens'));
    const run = await nydusify(
      ['--log-level', 'trace', 'convert', ...args],
      login(join(work, 'other'), tokens.host),
    );
    assert.equal(run.status, 0, run.stderr);
    assert.equal(run.stderr.includes(USER.password), false);
    assert.ok(refused.size >= 8, `${refused.size} requests were refused`);
    const layersOf = async (at: string, name: string): Promise<Descriptor[]> =>
      (await documentOf<Manifest>(at, name, '1.0')).layers;
    assert.deepEqual(await layersOf(tokens.host, 'lib/n'), await layersOf(host, 'lib/n0'));
  });
});
