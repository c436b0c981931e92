// Several images of one process read the same blob: fetched once, counted for the image that asked, closed with the last one; and
// never with the credentials of another.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectingLogger } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData } from '../../test/conformance/make-image.ts';
import { BlobServer } from '../../test/support/blob-server.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { silentLogger } from '../base/log.ts';
import { openBackend } from '../storage/backend/backend.ts';
import { SharedStorage } from '../storage/shared-storage.ts';
import type { ConfigV2 } from '../storage/config.ts';
import { RafsInstance } from './instance.ts';

const DATA = sampleData(400_000, 3);

interface Setup {
  bootstrap: string;
  blobDir: string;
  workDir: string;
  server: BlobServer;
  storage: SharedStorage;
  lines: string[];
}

const basic = (auth: string): string => `Basic ${auth}`;

/** An image of one file and a registry that has its blob, for those who know the password. */
async function setUp(t: TestContext, passwords: readonly string[]): Promise<Setup> {
  const image = makeImage(tempDir(t), [{ name: 'big', data: DATA }], { version: 6, compressor: 'none' });
  const server = await BlobServer.start(t, {
    challenge: 'Basic realm="r"',
    authorize: ({ headers }) => (passwords.some((each) => headers.authorization === basic(each)) ? 0 : 401),
    find: ({ url }) => readFileSync(join(image.blobDir, (url ?? '').slice((url ?? '').lastIndexOf(':') + 1))),
  });
  const { bootstrap, blobDir } = image;
  return { bootstrap, blobDir, workDir: tempDir(t), server, storage: new SharedStorage(), lines: [] };
}

async function open(
  t: TestContext,
  at: Setup,
  auth: string,
  more: Partial<Setup> = {},
): Promise<RafsInstance> {
  const { bootstrap, blobDir, workDir, server, storage, lines } = { ...at, ...more };
  const config: ConfigV2 = instanceConfig({ blobDir, workDir, rafs: { batch_size: 0 } });
  const section = { host: server.host, scheme: 'http', repo: 'lib/x', auth, retry_limit: 0, outage_wait: 0 };
  const none = { localfs: null, localdisk: null, oss: null, s3: null, registry: null, 'http-proxy': null };
  const instance = await RafsInstance.open({
    bootstrap,
    id: 'shared',
    logger: collectingLogger(lines),
    decodeThreads: 0,
    config: { ...config, backend: { ...none, type: 'registry', registry: section } },
    storage,
  });
  t.after(() => instance.close());
  await instance.cacheOf(0)?.table();
  return instance;
}

async function readBig(instance: RafsInstance, from = 0, size = DATA.length): Promise<boolean> {
  const target = Buffer.alloc(size);
  const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
  const got = await instance.read(ino, from, size, target);
  return got === size && target.equals(DATA.subarray(from, from + size));
}

/** Ranges of blobs that were asked for. */
function ranges({ server }: Setup): string[] {
  return server.requests.filter(({ method }) => method === 'GET').map(({ headers }) => headers.range ?? '');
}

/** What requests were authorised with. */
function passwords({ server }: Setup): Set<string> {
  return new Set(server.requests.flatMap(({ headers }) => headers.authorization ?? []));
}

const GOOD = Buffer.from('me:good').toString('base64');
const ALSO = Buffer.from('you:also').toString('base64');
const BAD = Buffer.from('me:bad').toString('base64');

test('RafsInstance: two images that miss the same chunk at once fetch it once, and each counts what it asked for', async (t) => {
  const at = await setUp(t, [GOOD]);
  const [one, two] = [await open(t, at, GOOD), await open(t, at, GOOD)];
  assert.deepEqual(at.storage.size, { backends: 1, blobs: 1 });
  at.server.requests.length = 0;
  const held: (() => void)[] = [];
  at.server.always = (request: IncomingMessage, response: ServerResponse) =>
    void held.push(() => at.server.serve(request, response));
  const reads = Promise.all([readBig(one, 0, 1000), readBig(two, 0, 1000)]);
  while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 30));
  at.server.always = undefined;
  for (const answer of held) answer();
  assert.deepEqual(await reads, [true, true]);
  const asked = ranges(at);
  assert.equal(asked.length, new Set(asked).size);
  const [first, second] = [one.metrics(), two.metrics()];
  assert.equal(first.backend.read_count, asked.length);
  assert.deepEqual([second.backend.read_count, second.backend.read_amount_total], [0, 0]);
  assert.deepEqual([first.blobcache.total, second.blobcache.total], [1, 1]);
  assert.equal(second.blobcache.entries_count, 0);
  assert.ok(first.blobcache.entries_count > 0);
  // what one has fetched the other has at once
  assert.equal(await readBig(one), true);
  const before = ranges(at).length;
  assert.equal(await readBig(two), true);
  assert.equal(ranges(at).length, before);
  await one.close();
  assert.equal(await readBig(two), true, 'the files stay open');
  await two.close();
  assert.deepEqual(at.storage.size, { backends: 0, blobs: 0 });
  const left = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  assert.deepEqual(
    left.filter((path) => path.startsWith(at.workDir)),
    [],
  );
});

test('RafsInstance: images with other credentials share nothing', async (t) => {
  const at = await setUp(t, [GOOD, ALSO]);
  const mine = await open(t, at, GOOD);
  const yours = await open(t, at, ALSO, { workDir: tempDir(t) });
  assert.deepEqual(at.storage.size, { backends: 2, blobs: 2 });
  at.server.requests.length = 0;
  assert.deepEqual(await Promise.all([readBig(mine, 0, 1000), readBig(yours, 0, 1000)]), [true, true]);
  assert.deepEqual(passwords(at), new Set([basic(ALSO), basic(GOOD)]));
});

test('RafsInstance.configure: new credentials are those of one image; the other keeps its own', async (t) => {
  const at = await setUp(t, [GOOD, ALSO]);
  const [one, two] = [await open(t, at, GOOD), await open(t, at, GOOD)];
  one.configure('registry_auth', ALSO);
  assert.deepEqual(at.storage.size, { backends: 2, blobs: 1 });
  at.server.requests.length = 0;
  assert.equal(await readBig(one, 0, 1000), true);
  assert.deepEqual(passwords(at), new Set([basic(ALSO)]));
  at.server.requests.length = 0;
  assert.equal(await readBig(two), true);
  assert.deepEqual(passwords(at), new Set([basic(GOOD)]));
  // alone with its backend: no other is opened
  two.configure('registry_auth', BAD);
  assert.equal(at.storage.size.backends, 2);
  await one.close();
  assert.equal(at.storage.size.backends, 1);
  await two.close();
  assert.deepEqual(at.storage.size, { backends: 0, blobs: 0 });
});

test('RafsInstance: what another image could not fetch is asked for once more with its own credentials', async (t) => {
  const at = await setUp(t, [GOOD]);
  const [bad, good] = [await open(t, at, GOOD), await open(t, at, GOOD)];
  bad.configure('registry_auth', BAD);
  const ends = await Promise.allSettled([readBig(bad, 0, 1000), readBig(good, 0, 1000)]);
  assert.deepEqual(
    ends.map((end) => (end.status === 'fulfilled' ? end.value : (end.reason as { code?: string }).code)),
    ['ERR_NYDUS_BACKEND', true],
  );
});

test('RafsInstance.close: reads of this image over the network end, those of another go on', async (t) => {
  const at = await setUp(t, [GOOD]);
  const [one, two] = [await open(t, at, GOOD), await open(t, at, GOOD)];
  const held: (() => void)[] = [];
  at.server.always = (request: IncomingMessage, response: ServerResponse) =>
    void held.push(() => at.server.serve(request, response));
  const ours = readBig(one, 0, 1000).then(
    () => 'read',
    () => 'given up',
  );
  while (held.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const theirs = readBig(two, 0, 1000);
  await new Promise((resolve) => setTimeout(resolve, 10));
  at.server.always = undefined;
  await one.close();
  assert.equal(await ours, 'given up');
  assert.equal(await theirs, true);
});

test('SharedStorage: a blob that no image uses is closed while its backend stays, and one that is missing is looked for again', async (t) => {
  const image = makeImage(tempDir(t), [{ name: 'big', data: DATA }], { version: 6, compressor: 'none' });
  const config = instanceConfig({ blobDir: image.blobDir, workDir: tempDir(t) });
  const backendConfig = config.backend;
  assert.ok(backendConfig !== null);
  let opened = 0;
  const storage = new SharedStorage((section, logger) => {
    opened++;
    return openBackend(section, logger);
  });
  const [one, two] = [
    storage.backend(backendConfig, silentLogger),
    storage.backend(backendConfig, silentLogger),
  ];
  const blobId = readdirSync(image.blobDir)[0] ?? '';
  const isOpen = (fd: number): boolean => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).endsWith(blobId);
    } catch {
      return false;
    }
  };
  await assert.rejects(one.open('a'.repeat(64)), { code: 'ERR_NYDUS_BACKEND' });
  await assert.rejects(one.open('a'.repeat(64)), { code: 'ERR_NYDUS_BACKEND' });
  const reader = await one.open(blobId);
  assert.equal(isOpen(reader.fd), true);
  await one.close();
  assert.equal(isOpen(reader.fd), false, 'nobody else has this blob');
  const again = await two.open(blobId);
  assert.equal((await again.read(0, 10)).length, 10);
  assert.deepEqual(
    [two.meter.metrics('localfs').read_count, one.meter.metrics('localfs').read_count],
    [1, 0],
  );
  await two.close();
  assert.deepEqual([opened, storage.size.backends, isOpen(again.fd)], [1, 0, false]);
});
