// The cache stays below its size: unused blobs go, cold chunks of blobs that are served go, and no reader ever sees what is gone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { collectingLogger, readWhole } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../test/conformance/make-image.ts';
import { BlobServer } from '../../test/support/blob-server.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { RafsInstance } from '../rafs/instance.ts';
import { listCache } from './cache/cache-dir.ts';
import { evictBlobs } from './cache/evict.ts';
import { pinBlob, unpinBlob } from './cache/pins.ts';

const SECONDS = Number(process.env['NYDUS_GC_SECONDS'] ?? 2);
const CHUNK = 65536;

/** What a reader has seen. */
interface ReaderCounts {
  local: number;
  missed: number;
  wrong: number;
}

function open(
  image: MadeImage,
  workDir: string,
  more: { maxSize?: number; gcMs?: number; lines?: string[]; key?: string } = {},
): Promise<RafsInstance> {
  const { maxSize, key } = more;
  return RafsInstance.open({
    bootstrap: image.bootstrap,
    id: 'gc',
    logger: collectingLogger(more.lines ?? []),
    config: instanceConfig({
      blobDir: image.blobDir,
      workDir,
      rafs: { batch_size: 0 },
      filecache: {
        ...(maxSize === undefined ? {} : { max_size: maxSize }),
        ...(key === undefined ? {} : { enable_encryption: true, encryption_key: key }),
      },
    }),
    decodeThreads: 0,
    publishMs: 5,
    ...(more.gcMs === undefined ? {} : { gcMs: more.gcMs }),
  });
}

function makeImages(t: TestContext, count: number, size: number): { images: MadeImage[]; workDir: string } {
  const dir = tempDir(t);
  const images = Array.from({ length: count }, (_, i) =>
    makeImage(join(dir, String(i)), [{ name: 'big', data: sampleData(size, 30 + i) }], {
      version: 6,
      compressor: 'zstd',
    }),
  );
  return { images, workDir: join(dir, 'cache') };
}

async function fill(image: MadeImage, workDir: string): Promise<void> {
  const instance = await open(image, workDir);
  await readWhole(instance, '/big');
  await instance.close();
}

test('evictBlobs: the least recently used go first; what is in use, pinned or mounted by the kernel stays', async (t) => {
  const { images, workDir } = makeImages(t, 5, 500_000);
  for (const image of images) await fill(image, workDir);
  images.forEach(({ blobId }, at) => {
    for (const file of readdirSync(workDir).filter((name) => name.startsWith(blobId))) {
      // the note in the map is older or equal to now for all of them
      utimesSync(join(workDir, file), Date.now() / 1000 + 100 + at, Date.now() / 1000 + 100 + at);
    }
  });
  const [unused, used, pinned, kernel, newest] = images.map(({ blobId }) => blobId);
  assert.ok(images[1] !== undefined);
  const instance = await open(images[1], workDir);
  pinBlob(workDir, pinned ?? '', 'user');
  pinBlob(workDir, kernel ?? '', 'kernel');
  const before = listCache(workDir);
  assert.equal(before.length, 5);
  assert.ok(before.every(({ bytes, ready }) => bytes >= 500_000 && ready === 8));
  const total = before.reduce((sum, { bytes }) => sum + bytes, 0);
  const dry = evictBlobs(workDir, { maxBytes: total - 1, dryRun: true });
  assert.deepEqual(
    dry.evicted.map(({ blobId }) => blobId),
    [unused],
  );
  assert.equal(listCache(workDir).length, 5);
  const all = evictBlobs(workDir, { maxBytes: 0 });
  assert.deepEqual(
    all.evicted.map(({ blobId }) => blobId),
    [unused, newest],
  );
  assert.deepEqual(
    new Map(all.kept.map(({ blobId, reason }) => [blobId, reason])),
    new Map([
      [used, 'in use'],
      [pinned, 'pinned'],
      [kernel, 'mounted by the kernel'],
    ]),
  );
  assert.equal(
    readdirSync(workDir).some((file) => file.startsWith(unused ?? '-')),
    false,
  );
  assert.ok((await readWhole(instance, '/big')).equals(sampleData(500_000, 31)));
  await instance.close();
  unpinBlob(workDir, pinned ?? '', 'user');
  unpinBlob(workDir, kernel ?? '', 'kernel');
  assert.equal(evictBlobs(workDir, { maxBytes: 0 }).after, 0);
  assert.deepEqual(readdirSync(workDir), []);
});

test('evictBlobs: a blob whose files another process has open, without any lock, stays', async (t) => {
  const { images, workDir } = makeImages(t, 1, 100_000);
  const [image] = images;
  assert.ok(image !== undefined);
  await fill(image, workDir);
  for (const suffix of ['blob.data', 'blob.meta']) {
    const fd = openSync(join(workDir, `${image.blobId}.${suffix}`), 'r');
    const holder = spawn('sleep', ['100'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
    await once(holder, 'spawn');
    closeSync(fd);
    const { evicted, kept } = evictBlobs(workDir, { maxBytes: 0 });
    holder.kill('SIGKILL');
    await once(holder, 'exit');
    assert.deepEqual([evicted.length, kept[0]?.reason], [0, 'in use'], suffix);
  }
  assert.equal(evictBlobs(workDir, { maxBytes: 0 }).after, 0);
});

test('BlobCache.giveBack: nothing while a second user has the blob; then cold chunks, and the file has their bits no more', async (t) => {
  const { images, workDir } = makeImages(t, 1, 1_000_000);
  const [image] = images;
  assert.ok(image !== undefined);
  await fill(image, workDir);
  const [first, second] = [await open(image, workDir), await open(image, workDir)];
  const cache = first.cacheOf(0);
  assert.ok(cache !== undefined);
  assert.equal(await cache.giveBack(300_000), 0);
  await second.close();
  await readWhole(first, '/big');
  const ino = first.image.lookup(first.image.rootIno, Buffer.from('big'));
  assert.equal(await cache.giveBack(CHUNK), CHUNK, 'everything was read since the last look: the first goes');
  for (const index of [1, 7]) await first.read(ino, index * CHUNK, 10, Buffer.alloc(10));
  assert.equal(await cache.giveBack(5 * CHUNK), 5 * CHUNK);
  assert.deepEqual(
    Array.from({ length: 16 }, (_, i) => i).filter((index) => !cache.map.isReady(index)),
    [0, 2, 3, 4, 5, 6],
  );
  const map = readFileSync(join(workDir, `${image.blobId}.blob.data.chunk_map`));
  assert.equal(map.readUInt32LE(12), 0, 'all ready is said no longer');
  assert.equal(map.toString('hex', 4096), '41ff');
  assert.equal(listCache(workDir)[0]?.ready, 10);
  assert.ok((await readWhole(first, '/big')).equals(sampleData(1_000_000, 30)));
  await first.close();
  const third = await open(image, workDir);
  const before = third.metrics().backend.read_count;
  assert.ok((await readWhole(third, '/big')).equals(sampleData(1_000_000, 30)));
  assert.equal(third.metrics().backend.read_count, before);
  await third.close();
});

test('CacheKeeper: four readers in threads of their own see right bytes while chunks are taken away under them', async (t) => {
  const { images, workDir } = makeImages(t, 2, 3_000_000);
  const [image, other] = images;
  assert.ok(image !== undefined && other !== undefined);
  await fill(other, workDir);
  const data = sampleData(3_000_000, 30);
  const lines: string[] = [];
  const instance = await open(image, workDir, { maxSize: 1_500_000, gcMs: 3, lines });
  const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
  const shared = new Uint8Array(new SharedArrayBuffer(data.length));
  shared.set(data);
  const workers = [1, 2, 3, 4].map(
    (seed) =>
      new Worker(new URL('../../test/conformance/gc-reader.ts', import.meta.url), {
        workerData: { share: instance.share, data: shared, seed },
      }),
  );
  let wrong = 0;
  for (const worker of workers) {
    worker.on('message', ({ fetch }: { fetch?: number }) => {
      if (fetch === undefined) return;
      const target = Buffer.alloc(200_000);
      void instance.read(ino, fetch, target.length, target).then((got) => {
        if (!target.subarray(0, got).equals(data.subarray(fetch, fetch + got))) wrong++;
        worker.postMessage('done');
      });
    });
  }
  // until it has happened a few times, however slow the machine is
  const times = (): number => instance.cacheOf(0)?.map.epoch[0] ?? 0;
  for (let i = 0; i < SECONDS * 20 || (times() < 4 && i < 600); i++)
    await new Promise((resolve) => void setTimeout(resolve, 50));
  const ends = workers.map((worker) => {
    const end = Promise.withResolvers<ReaderCounts>();
    // one listener for good: `once` loses a message that comes right behind another
    worker.on('message', ({ counts: own }: { counts?: ReaderCounts }) => own && end.resolve(own));
    worker.on('error', end.reject);
    worker.postMessage('stop');
    return end.promise;
  });
  const counts = await Promise.all(ends);
  const metrics = instance.metrics().blobcache;
  const epoch = instance.cacheOf(0)?.map.epoch[0] ?? 0;
  await Promise.all(workers.map((worker) => worker.terminate()));
  await instance.close();
  t.diagnostic(`${JSON.stringify(counts)}, ${epoch} times, ${metrics.evicted_bytes} bytes`);
  assert.equal(wrong + counts.reduce((sum, each) => sum + each.wrong, 0), 0);
  assert.ok(counts.every(({ local }) => local > 0));
  assert.ok(counts.some(({ missed }) => missed > 0));
  assert.ok(epoch >= 4, 'chunks were hardly ever taken away');
  assert.ok(metrics.evicted_bytes > 3_000_000);
  assert.ok(
    lines.some((line) => line.startsWith(`info blob ${other.blobId} left the cache`)),
    'unused blobs go first',
  );
  assert.equal(existsSync(join(workDir, `${other.blobId}.blob.data`)), false);
  const again = await open(image, workDir);
  assert.ok((await readWhole(again, '/big')).equals(data));
  await again.close();
});

test('CacheKeeper: while the backend is down nothing is taken; when it is back the cache shrinks by itself', async (t) => {
  const { images, workDir } = makeImages(t, 2, 2_000_000);
  const [image, other] = images;
  assert.ok(image !== undefined && other !== undefined);
  await fill(other, workDir);
  const blob = readFileSync(join(image.blobDir, image.blobId));
  const server = await BlobServer.start(t, { find: () => blob });
  const config = instanceConfig({
    blobDir: image.blobDir,
    workDir,
    rafs: { batch_size: 0 },
    filecache: { max_size: 1 << 20 },
  });
  assert.ok(config.backend !== null);
  const backend = { addr: `http://${server.host}`, timeout: 5, outage_wait: 600 };
  config.backend = { ...config.backend, type: 'http-proxy', localfs: null, 'http-proxy': backend };
  const options = { bootstrap: image.bootstrap, id: 'gc', logger: collectingLogger([]), config };
  const instance = await RafsInstance.open({ ...options, decodeThreads: 0, publishMs: 5, gcMs: 3_600_000 });
  const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
  const read = async (index: number): Promise<void> => {
    const target = Buffer.alloc(100);
    await instance.read(ino, index * CHUNK, 100, target);
    assert.ok(target.equals(sampleData(2_000_000, 30).subarray(index * CHUNK, index * CHUNK + 100)));
  };
  for (let index = 0; index < 25; index++) await read(index);
  await server.down();
  const waiting = read(28);
  while (instance.metrics().backend.outage?.down !== true)
    await new Promise((resolve) => void setTimeout(resolve, 5));
  for (let round = 0; round < 3; round++) await instance.collectGarbage();
  assert.equal(instance.metrics().blobcache.evicted_bytes, 0);
  assert.ok(existsSync(join(workDir, `${other.blobId}.blob.data`)));
  // what is cached is served meanwhile
  for (let index = 0; index < 25; index++) await read(index);
  await server.up();
  await waiting;
  // the reader has its bytes a moment before the request is over
  while (instance.metrics().backend.outage?.down !== false)
    await new Promise((resolve) => void setTimeout(resolve, 5));
  await instance.collectGarbage();
  assert.ok(instance.metrics().blobcache.evicted_bytes > 1_000_000);
  assert.equal(existsSync(join(workDir, `${other.blobId}.blob.data`)), false);
  for (let index = 0; index < 30; index++) await read(index);
  await instance.close();
});

test('CacheKeeper: an encrypted cache gives chunks back as well', async (t) => {
  const { images, workDir } = makeImages(t, 1, 2_000_000);
  const [image] = images;
  assert.ok(image !== undefined);
  const key = '0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20';
  const instance = await open(image, workDir, { maxSize: 1_048_576, gcMs: 3, key });
  for (let round = 0; round < 4; round++)
    assert.ok((await readWhole(instance, '/big')).equals(sampleData(2_000_000, 30)));
  for (let i = 0; i < 1000 && instance.metrics().blobcache.evicted_bytes === 0; i++)
    await new Promise((resolve) => void setTimeout(resolve, 5));
  assert.ok(instance.metrics().blobcache.evicted_bytes > 0);
  assert.ok((await readWhole(instance, '/big')).equals(sampleData(2_000_000, 30)));
  await instance.close();
});
