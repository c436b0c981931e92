import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { tempDir } from '../../test/support/temporary.ts';
import { RegistryError } from '../base/errors.ts';
import { fixedCredentials } from './credentials.ts';
import { OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from './media-types.ts';
import { parseManifest } from './manifest.ts';
import { Repository } from './repository.ts';
import { RegistryServer } from './server/server.ts';
import type { RegistryServerOptions } from './server/server.ts';
import { RegistryTransport } from './transport.ts';
import type { TransportOptions } from './transport.ts';
import { sha256Of } from './verify.ts';

interface Pair {
  server: RegistryServer;
  transport: RegistryTransport;
  repository: Repository;
}

async function pair(
  t: TestContext,
  server: Partial<RegistryServerOptions> = {},
  client: Partial<TransportOptions> = {},
): Promise<Pair> {
  const registry = await RegistryServer.start({ dir: join(tempDir(t), 'store'), ...server });
  const transport = new RegistryTransport({
    host: registry.host,
    plainHttp: true,
    firstWaitMs: 1,
    ...client,
  });
  t.after(async () => {
    await transport.close();
    await registry.close();
  });
  return { server: registry, transport, repository: new Repository(transport, 'lib/app') };
}

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const out: Uint8Array[] = [];
  for await (const piece of source) out.push(piece);
  return Buffer.concat(out);
}

async function pushImage(repository: Repository, tag?: string, subject?: string): Promise<string> {
  const config = await repository.pushBytes(Buffer.from('{}'));
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, ...config },
    layers: [],
    ...(subject === undefined ? {} : { subject: { mediaType: OCI_MANIFEST, digest: subject, size: 1 } }),
  };
  return repository.putManifest(OCI_MANIFEST, Buffer.from(JSON.stringify(manifest)), tag);
}

test('Repository: a blob pushed whole and by chunks comes back, whole and by ranges', async (t) => {
  const { repository } = await pair(t);
  const data = randomBytes(300_000);
  const digest = sha256Of(data);
  assert.equal(await repository.findBlob(digest), undefined);
  const source = { digest, size: data.length, open: () => pieces(data, 70_000) };
  assert.equal(await repository.pushBlob(source), 'uploaded');
  assert.equal(await repository.pushBlob(source), 'exists');
  assert.equal(await repository.findBlob(digest), 300_000);
  assert.ok((await collect(repository.blob(digest, 300_000))).equals(data));
  assert.ok((await repository.blobRange(digest, 1000, 2001)).equals(data.subarray(1000, 2001)));
  const other = randomBytes(250_000);
  const pushed = await repository.pushStream(pieces(other, 33_333), { chunkSize: 100_000 });
  assert.deepEqual(pushed, { digest: sha256Of(other), size: 250_000 });
  assert.ok((await collect(repository.blob(pushed.digest))).equals(other));
});

test('Repository: an empty blob can be pushed and read', async (t) => {
  const { repository } = await pair(t);
  const { digest } = await repository.pushBytes(new Uint8Array(0));
  assert.equal((await collect(repository.blob(digest, 0))).length, 0);
  const streamed = await repository.pushStream(pieces(new Uint8Array(0), 1));
  assert.equal(streamed.digest, digest);
});

test('Repository: a blob of a neighbour is mounted, not sent', async (t) => {
  const { repository, transport } = await pair(t);
  const data = randomBytes(10_000);
  const { digest } = await repository.pushBytes(data);
  const other = new Repository(transport, 'lib/other');
  let sent = 0;
  const open = (): AsyncGenerator<Uint8Array> => pieces(data, 1000);
  const options = {
    mountFrom: ['lib/nothing', 'lib/app'],
    onProgress: (bytes: number) => void (sent += bytes),
  };
  assert.equal(await other.pushBlob({ digest, size: data.length, open }, options), 'mounted');
  assert.equal(sent, 0);
  assert.ok((await collect(other.blob(digest))).equals(data));
});

test('Repository: manifests by tag and digest, tags over several pages, removal', async (t) => {
  const { repository } = await pair(t);
  const digest = await pushImage(repository, 'v1');
  await pushImage(repository, 'v2');
  const found = await repository.findManifest('v1');
  assert.deepEqual([found?.digest, found?.mediaType], [digest, OCI_MANIFEST]);
  const manifest = await repository.manifest('v2');
  assert.equal(manifest.digest, digest);
  assert.equal(parseManifest(manifest.bytes).config.size, 2);
  assert.deepEqual(await repository.tags(), ['v1', 'v2']);
  assert.equal(await repository.findManifest('v3'), undefined);
  assert.equal(await repository.removeManifest('v1'), true);
  assert.equal(await repository.removeManifest('v1'), false);
  assert.deepEqual(await repository.tags(), ['v2']);
  await assert.rejects(repository.manifest('v3'), (error: RegistryError) => {
    assert.equal(error.code, 'ERR_NYDUS_REGISTRY');
    assert.equal(error.status, 404);
    assert.deepEqual(error.answer.codes, ['MANIFEST_UNKNOWN']);
    assert.match(
      error.message,
      /^GET http:\/\/127\.0\.0\.1:\d+\/v2\/lib\/app\/manifests\/v3: status 404: MANIFEST_UNKNOWN/,
    );
    return true;
  });
});

test('Repository: a manifest that names blobs the registry lacks is refused with its code', async (t) => {
  const { repository } = await pair(t);
  const config = { mediaType: OCI_CONFIG, digest: sha256Of(Buffer.from('x')), size: 1 };
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, config, layers: [] }));
  await assert.rejects(repository.putManifest(OCI_MANIFEST, bytes, 'v1'), {
    message: /MANIFEST_BLOB_UNKNOWN/,
  });
});

for (const api of [true, false]) {
  test(`Repository: referrers ${api ? 'by the API' : 'by the fallback tag'}`, async (t) => {
    const hide = (request: IncomingMessage, response: ServerResponse): boolean => {
      if (api) return false;
      response.setHeader = function set(
        this: ServerResponse,
        name: string,
        value: string | number | readonly string[],
      ) {
        if (name !== 'OCI-Subject') Object.getPrototypeOf(this).setHeader.call(this, name, value);
        return this;
      };
      if (!(request.url ?? '').includes('/referrers/')) return false;
      response.writeHead(404).end();
      return true;
    };
    const { repository } = await pair(t, { intercept: hide });
    const subject = await pushImage(repository, 'v1');
    assert.deepEqual(await repository.referrers(subject), []);
    const first = await pushImage(repository, undefined, subject);
    const list = await repository.referrers(subject);
    assert.deepEqual(
      list.map(({ digest, artifactType }) => [digest, artifactType]),
      [[first, OCI_CONFIG]],
    );
    assert.deepEqual(await repository.referrers(subject, 'text/none'), []);
    assert.deepEqual(await repository.tags(), api ? ['v1'] : [subject.replace(':', '-'), 'v1']);
    if (!api) assert.equal((await repository.findManifest(subject.replace(':', '-')))?.mediaType, OCI_INDEX);
  });
}

test('Repository: content that is not what its digest says is refused, with both digests', async (t) => {
  const lie = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (request.method !== 'GET' || !(request.url ?? '').includes('/blobs/')) return false;
    response.writeHead(200, { 'Content-Length': 5 }).end('wrong');
    return true;
  };
  const { repository } = await pair(t, { intercept: lie });
  const digest = sha256Of(Buffer.from('right'));
  const found = sha256Of(Buffer.from('wrong'));
  await assert.rejects(collect(repository.blob(digest, 5)), {
    code: 'ERR_NYDUS_INTEGRITY',
    message: `blob lib/app@${digest}: content is ${found}, expected ${digest}`,
  });
  await assert.rejects(collect(repository.blob(digest, 4)), { message: /more than the 4 bytes/ });
});

test('Repository: a blob whose connection breaks goes on where it broke', async (t) => {
  const data = randomBytes(100_000);
  let broken = 0;
  const ranges: string[] = [];
  const cut = (request: IncomingMessage, response: ServerResponse): boolean => {
    if (request.method !== 'GET') return false;
    ranges.push(request.headers.range ?? '');
    if (broken++ > 0) return false;
    response.writeHead(200, { 'Content-Length': data.length });
    response.write(data.subarray(0, 40_000), () => setTimeout(() => response.destroy(), 30));
    return true;
  };
  const { repository } = await pair(t, { intercept: cut });
  const { digest } = await repository.pushBytes(data);
  assert.ok((await collect(repository.blob(digest, data.length))).equals(data));
  assert.deepEqual(ranges, ['', 'bytes=40000-']);
});

test('Repository: an upload that breaks in a chunk goes on with what the registry has', async (t) => {
  let patches = 0;
  const cut = (request: IncomingMessage): boolean => {
    if (request.method !== 'PATCH' || ++patches !== 2) return false;
    request.socket.destroy();
    return true;
  };
  const { repository } = await pair(t, { intercept: cut });
  const data = randomBytes(25_000);
  const pushed = await repository.pushStream(pieces(data, 999), { chunkSize: 10_000 });
  assert.equal(pushed.digest, sha256Of(data));
  assert.equal(patches, 4);
});

test('RegistryTransport: 503 and 429 are tried again, Retry-After is obeyed, 5 tries are the end', async (t) => {
  let left = 2;
  let asked = 0;
  const busy = (_: IncomingMessage, response: ServerResponse): boolean => {
    asked++;
    if (left-- <= 0) return false;
    response.writeHead(left === 1 ? 503 : 429, { 'Retry-After': '0' }).end();
    return true;
  };
  const { repository } = await pair(t, { intercept: busy });
  assert.equal(await repository.findManifest('v1'), undefined);
  assert.equal(asked, 3);
  left = 99;
  await assert.rejects(repository.findManifest('v1'), { message: /status 429$/ });
  assert.equal(asked, 8);
});

test('RegistryTransport: basic and token authorization, and what a refusal says', async (t) => {
  const users = { user: 'pa:ss' };
  for (const access of [
    { kind: 'basic', users },
    { kind: 'token', users, ttlSeconds: 60 },
  ] as const) {
    const good = fixedCredentials({ username: 'user', password: 'pa:ss' });
    const { repository, server } = await pair(t, { access }, { credentials: good });
    await pushImage(repository, 'v1');
    assert.deepEqual(await repository.tags(), ['v1']);
    const refused = async (password: string | undefined): Promise<RegistryError> => {
      const credentials =
        password === undefined ? undefined : fixedCredentials({ username: 'user', password });
      const options = {
        host: server.host,
        plainHttp: true,
        firstWaitMs: 1,
        ...(credentials && { credentials }),
      };
      const transport = new RegistryTransport(options);
      t.after(() => transport.close());
      const error = await new Repository(transport, 'lib/app').tags().then(
        () => assert.fail('it was let in'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof RegistryError);
      assert.doesNotMatch(JSON.stringify([error.message, error.hint, error.answer]), /secret|c2VjcmV0/);
      return error;
    };
    assert.equal((await refused('secret')).status, 401);
    assert.match((await refused(undefined)).hint ?? '', /docker login/);
  }
});

test('RegistryTransport: many requests at once ask for one token, and a revoked one is replaced', async (t) => {
  let tokens = 0;
  const count = (request: IncomingMessage): boolean => {
    if ((request.url ?? '').startsWith('/token')) tokens++;
    return false;
  };
  const { repository, server } = await pair(t, {
    access: { kind: 'token', ttlSeconds: 60 },
    intercept: count,
  });
  await Promise.all(Array.from({ length: 20 }, () => repository.findManifest('v1')));
  assert.equal(tokens, 1);
  server.access.revokeAll();
  assert.equal(await repository.findManifest('v1'), undefined);
  assert.equal(tokens, 2);
});

test('RegistryTransport: a redirect to another host carries no credentials', async (t) => {
  const seen: (string | undefined)[] = [];
  const data = randomBytes(1000);
  const store = await pair(t, {
    intercept: (request, response) => {
      seen.push(request.headers.authorization);
      response.writeHead(200, { 'Content-Length': data.length }).end(data);
      return true;
    },
  });
  const { repository } = await pair(
    t,
    {
      access: { kind: 'basic', users: { u: 'p' } },
      intercept: (request, response) => {
        if (request.method !== 'GET' || request.headers.authorization === undefined) return false;
        response.writeHead(307, { Location: `${store.server.origin}/data?sig=1` }).end();
        return true;
      },
    },
    { credentials: fixedCredentials({ username: 'u', password: 'p' }) },
  );
  assert.ok((await collect(repository.blob(sha256Of(data), 1000))).equals(data));
  assert.deepEqual(seen, [undefined]);
});

test('RegistryTransport: HTTPS first; a loopback server that speaks HTTP is used as it is', async (t) => {
  const { repository, transport } = await pair(t, {}, { plainHttp: false });
  const all = await Promise.all([repository.tags(), repository.tags(), repository.findManifest('v1')]);
  assert.deepEqual(all, [[], [], undefined]);
  assert.equal(transport.scheme, 'http');
});

test('RegistryTransport: an abort ends a request with its reason', async (t) => {
  const { repository } = await pair(t, { intercept: () => true });
  const reason = new Error('enough');
  const abort = new AbortController();
  setTimeout(() => abort.abort(reason), 20);
  await assert.rejects(repository.manifest('v1', abort.signal), reason);
});

test('RegistryTransport: a server that never answers is told from one that is not there', async (t) => {
  const { repository } = await pair(t, { intercept: () => true }, { headersTimeoutMs: 1000, attempts: 1 });
  await assert.rejects(repository.tags(), { message: /connected, but no answer within 1 s/ });
  const gone = await pair(t);
  await gone.server.close();
  const transport = new RegistryTransport({ host: gone.transport.host, plainHttp: true, attempts: 1 });
  t.after(() => transport.close());
  await assert.rejects(new Repository(transport, 'a').tags(), { message: /connection refused$/ });
});

test('RegistryServer: an upload whose digest differs is refused and leaves nothing', async (t) => {
  const dir = tempDir(t);
  const { repository } = await pair(t, { dir });
  const data = Buffer.from('data');
  const digest = `sha256:${createHash('sha256').update('other').digest('hex')}`;
  const source = { digest, size: 4, open: () => pieces(data, 4) };
  await assert.rejects(repository.pushBlob(source), { message: /status 400: DIGEST_INVALID/ });
  assert.deepEqual(readdirSync(join(dir, 'uploads')), []);
  assert.deepEqual(readdirSync(join(dir, 'blobs')), []);
});

test('Repository: a source that fails or is not as long as announced ends the push with its own error', async (t) => {
  const { repository } = await pair(t);
  const data = randomBytes(5000);
  const short = { digest: sha256Of(data), size: 6000, open: () => pieces(data, 1000) };
  await assert.rejects(repository.pushBlob(short), {
    code: 'ERR_NYDUS_INTEGRITY',
    message: /has 5000 bytes, not 6000$/,
  });
  const long = { ...short, size: 4000 };
  await assert.rejects(repository.pushBlob(long), { code: 'ERR_NYDUS_INTEGRITY', message: /not 4000$/ });
  assert.equal(await repository.findBlob(short.digest), undefined);
});

test('Repository: a manifest over the limit is refused before it is held', async (t) => {
  const { repository } = await pair(t, {
    intercept: (_, response) => {
      response.writeHead(200, { 'Content-Type': OCI_MANIFEST });
      response.end(Buffer.alloc(5_000_000, 0x20));
      return true;
    },
  });
  await assert.rejects(repository.manifest('v1'), {
    code: 'ERR_NYDUS_FORMAT',
    message: /longer than the limit of 4194304/,
  });
});
