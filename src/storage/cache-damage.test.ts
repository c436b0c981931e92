// A cache that was in use when the machine went down, was written by a daemon that does not flush, or was damaged: nothing of it
// is believed that its digests do not confirm, and what is good is kept.
import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectingLogger, readWhole, suiteFiles } from '../../test/conformance/cache-suite.ts';
import { instanceConfig, type InstanceConfigOptions } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../test/conformance/make-image.ts';
import { requireRoot } from '../../test/support/prerequisites.ts';
import { mountCleanup, tempDir } from '../../test/support/temporary.ts';
import { RafsInstance } from '../rafs/instance.ts';

const SIZE = 3_000_000;
const CHUNK = 65536;
const BLOCK = 4096;
const data = sampleData(SIZE, 21);
const STATE = 20;
const BOOT_ID = 24;
const BITS = 4096;

interface Case {
  image: MadeImage;
  workDir: string;
  base: string;
  lines: string[];
  open(config?: Partial<InstanceConfigOptions>): Promise<RafsInstance>;
}

function prepare(t: TestContext, version: 5 | 6): Case {
  const dir = tempDir(t);
  const image = makeImage(dir, [{ name: 'big', data }], { version, compressor: 'zstd' });
  const workDir = join(dir, 'cache');
  const lines: string[] = [];
  const open = (config: Partial<InstanceConfigOptions> = {}): Promise<RafsInstance> =>
    RafsInstance.open({
      bootstrap: image.bootstrap,
      id: 'damage',
      logger: collectingLogger(lines),
      config: instanceConfig({ blobDir: image.blobDir, workDir, rafs: { batch_size: 0 }, ...config }),
      decodeThreads: 0,
    });
  return { image, workDir, base: join(workDir, image.blobId), lines, open };
}

function change(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

function flip(path: string, at: number, mask: number): void {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ mask;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
}

const state = (base: string): number => readFileSync(`${base}.blob.data.chunk_map`).readUInt32LE(STATE);

async function fill({ open }: Case): Promise<void> {
  const instance = await open();
  assert.ok((await readWhole(instance, '/big')).equals(data));
  await instance.close();
}

/** Blocks of the data file that never reached the disk: they read as zeros, or as what stood there before. */
function loseBlocks(base: string, seed: number): Set<number> {
  const hit = new Set<number>();
  let random = seed * 7919 + 1;
  const size = statSync(`${base}.blob.data`).size;
  for (let i = 0; i < 12; i++) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    const at = Math.floor((random / 2 ** 32) * (size / BLOCK)) * BLOCK;
    change(`${base}.blob.data`, at, Buffer.alloc(Math.min(BLOCK, size - at), i % 2 === 0 ? 0 : 0xa5));
    hit.add(Math.floor(at / CHUNK));
  }
  return hit;
}

const crashes: [string, (base: string) => void][] = [
  [
    'in use, of an earlier boot',
    (base) => {
      change(`${base}.blob.data.chunk_map`, STATE, Uint8Array.of(1));
      flip(`${base}.blob.data.chunk_map`, BOOT_ID + 3, 0xff);
    },
  ],
  [
    'of a daemon that leaves no note, written before this boot',
    (base) => {
      change(`${base}.blob.data.chunk_map`, 16, Buffer.alloc(64));
      const before = Date.now() / 1000 - uptime() - 60;
      utimesSync(`${base}.blob.data.chunk_map`, before, before);
    },
  ],
];

for (const version of [5, 6] as const) {
  for (const [what, crash] of crashes) {
    test(`v${version} cache: a map ${what}: every chunk is verified before its first use, only what is wrong is fetched`, async (t) => {
      for (let round = 0; round < 5; round++) {
        const made = prepare(t, version);
        const { base, open, lines, image } = made;
        await fill(made);
        const lost = loseBlocks(base, round);
        crash(base);
        const instance = await open();
        const before = instance.metrics().backend.read_count;
        // not in order, so that no read-ahead mixes in
        const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
        for (let i = 0; i < image.chunks.length; i++) {
          const index = (i * 17) % image.chunks.length;
          const target = Buffer.alloc(100);
          await instance.read(ino, index * CHUNK, 100, target);
          assert.ok(target.equals(data.subarray(index * CHUNK, index * CHUNK + 100)), `chunk ${index}`);
        }
        assert.ok((await readWhole(instance, '/big')).equals(data));
        assert.ok(instance.metrics().backend.read_count - before <= lost.size, 'good chunks were fetched');
        assert.equal(instance.metrics().blobcache.data_all_ready, true);
        await instance.close();
        assert.equal(lines.filter((line) => line.includes('when the machine went down')).length, 1);
        assert.equal(state(base), 2);
        lines.length = 0;
        const third = await open();
        assert.ok((await readWhole(third, '/big')).equals(data));
        assert.equal(third.metrics().blobcache.whole_hits, 0);
        await third.close();
        assert.deepEqual(lines, []);
      }
    });
  }

  test(`v${version} cache: after a crash of the machine a map stays suspect until every chunk was verified`, async (t) => {
    const made = prepare(t, version);
    await fill(made);
    loseBlocks(made.base, 3);
    crashes[0]?.[1](made.base);
    const instance = await made.open();
    const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
    await instance.read(ino, 0, 10, Buffer.alloc(10));
    await instance.close();
    assert.equal(state(made.base), 3);
    const again = await made.open();
    assert.ok((await readWhole(again, '/big')).equals(data));
    await again.close();
    assert.equal(state(made.base), 2);
  });

  test(`v${version} cache: a bit that appeared in a closed map is found out`, async (t) => {
    const made = prepare(t, version);
    const first = await made.open();
    const ino = first.image.lookup(first.image.rootIno, Buffer.from('big'));
    await first.read(ino, 0, 10, Buffer.alloc(10));
    await first.close();
    flip(`${made.base}.blob.data.chunk_map`, BITS + 2, 0x18);
    const second = await made.open();
    assert.ok((await readWhole(second, '/big')).equals(data));
    await second.close();
    assert.equal(made.lines.length, 1);
  });

  test(`v${version} cache: closed in order by the last of two users, and trusted after kill -9 in the same boot`, async (t) => {
    const made = prepare(t, version);
    const [first, second] = [await made.open(), await made.open()];
    assert.ok((await readWhole(first, '/big')).equals(data));
    await first.close();
    assert.equal(state(made.base), 1);
    // what a killed daemon leaves
    const third = await made.open();
    assert.ok((await readWhole(third, '/big')).equals(data));
    assert.equal(third.metrics().blobcache.whole_hits, 0);
    await third.close();
    await second.close();
    assert.equal(state(made.base), 2);
  });

  test(
    `v${version} cache: a full disk shows in the metrics, and caching goes on when there is room again`,
    { skip: requireRoot() },
    async (t) => {
      const dir = tempDir(t);
      const files = suiteFiles();
      const image = makeImage(dir, files, { version, compressor: 'zstd' });
      const small = join(dir, 'small');
      mkdirSync(small);
      mountCleanup(t, small);
      assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=400k', 'nydus-test', small]).status, 0);
      const lines: string[] = [];
      const instance = await RafsInstance.open({
        bootstrap: image.bootstrap,
        id: 'full',
        logger: collectingLogger(lines),
        config: instanceConfig({ blobDir: image.blobDir, workDir: join(small, 'cache') }),
        decodeThreads: 0,
        cacheRetryMs: 20,
      });
      const readAll = async (): Promise<void> => {
        for (const file of files)
          assert.ok((await readWhole(instance, `/${file.name}`)).equals(Buffer.from(file.data)), file.name);
      };
      await readAll();
      const full = instance.metrics().blobcache;
      assert.equal(full.degraded_blobs, 1);
      assert.ok(full.write_errors > 0);
      assert.equal(full.data_all_ready, false);
      assert.equal(spawnSync('mount', ['-o', 'remount,size=8m', small]).status, 0);
      for (let i = 0; i < 100 && !instance.metrics().blobcache.data_all_ready; i++) {
        await readAll();
        await new Promise((resolve) => void setTimeout(resolve, 10));
      }
      assert.equal(instance.metrics().blobcache.data_all_ready, true);
      assert.equal(instance.metrics().blobcache.degraded_blobs, 0);
      // a small write may fit in between: then it goes to and fro, with one line each time
      const said = lines.map((line) => line.replace(/^(\w+) .*? (cannot|takes)/, '$1 $2'));
      assert.ok(said.length > 0 && said.length % 2 === 0, lines.join('\n'));
      said.forEach((line, at) =>
        assert.equal(
          line,
          at % 2 === 0
            ? 'warn cannot be written (ENOSPC): its blob is served without caching'
            : 'info takes data again',
        ),
      );
      await instance.close();
    },
  );

  test(
    `v${version} cache: a cache on a read-only filesystem serves what it has, and the rest from the backend`,
    { skip: requireRoot() },
    async (t) => {
      const dir = tempDir(t);
      const files = suiteFiles();
      const image = makeImage(dir, files, { version, compressor: 'zstd' });
      const small = join(dir, 'small');
      mkdirSync(small);
      mountCleanup(t, small);
      assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'nydus-test', small]).status, 0);
      const lines: string[] = [];
      const options = {
        bootstrap: image.bootstrap,
        id: 'read-only',
        logger: collectingLogger(lines),
        config: instanceConfig({ blobDir: image.blobDir, workDir: small, rafs: { batch_size: 0 } }),
        decodeThreads: 0,
      };
      const first = await RafsInstance.open(options);
      await readWhole(first, '/one');
      await first.close();
      assert.equal(spawnSync('mount', ['-o', 'remount,ro', small]).status, 0);
      const second = await RafsInstance.open(options);
      const before = second.metrics().backend.read_count;
      await readWhole(second, '/one');
      assert.equal(second.metrics().backend.read_count, before);
      for (const file of files)
        assert.ok((await readWhole(second, `/${file.name}`)).equals(Buffer.from(file.data)), file.name);
      assert.equal(second.metrics().blobcache.write_errors, 0);
      assert.equal(second.metrics().blobcache.degraded_blobs, 1);
      assert.equal(second.metrics().blobcache.data_all_ready, false);
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.match(
        lines[0] ?? '',
        /^warn cache file .* is read-only: its blob is served without further caching$/,
      );
      await second.close();
      // a directory that cannot even be made
      const elsewhere = instanceConfig({ blobDir: image.blobDir, workDir: join(small, 'none') });
      const none = await RafsInstance.open({ ...options, config: elsewhere });
      for (const file of files)
        assert.ok((await readWhole(none, `/${file.name}`)).equals(Buffer.from(file.data)), file.name);
      assert.equal(none.metrics().blobcache.degraded_blobs, 1);
      await none.close();
      assert.equal(spawnSync('mount', ['-o', 'remount,rw', small]).status, 0);
      const third = await RafsInstance.open(options);
      for (const file of files)
        assert.ok((await readWhole(third, `/${file.name}`)).equals(Buffer.from(file.data)), file.name);
      assert.equal(third.metrics().blobcache.degraded_blobs, 0);
      assert.equal(third.metrics().blobcache.data_all_ready, true);
      await third.close();
    },
  );
}

// entries of version 1, 16 bytes: see ciEntryV1
const META_DAMAGES: [string, number, number][] = [
  ['a stored size', 7 * 16 + 5, 0x20],
  ['a stored offset', 9 * 16 + 1, 0x04],
  ['a plain offset', 11 * 16 + 10, 0x01],
  ['the plain size of the last chunk', 45 * 16 + 14, 0x10],
];

for (const noted of [true, false]) {
  for (const [what, at, mask] of META_DAMAGES) {
    test(`v6 cache: a .blob.meta with one flipped bit in ${what} is replaced, ${noted ? 'its checksum tells' : 'the data tells'}`, async (t) => {
      const made = prepare(t, 6);
      const { base, open } = made;
      const first = await open();
      const ino = first.image.lookup(first.image.rootIno, Buffer.from('big'));
      await first.read(ino, 0, 10, Buffer.alloc(10));
      await first.close();
      const good = readFileSync(`${base}.blob.meta`);
      flip(`${base}.blob.meta`, at, mask);
      assert.ok(!readFileSync(`${base}.blob.meta`).equals(good));
      // no checksum: as upstream leaves it
      if (!noted) change(`${base}.blob.data.chunk_map`, 44, Buffer.alloc(4));
      const second = await open();
      assert.ok((await readWhole(second, '/big')).equals(data));
      await second.close();
      assert.ok(readFileSync(`${base}.blob.meta`).equals(good), 'the file was not repaired');
      const third = await open({ rafs: {} });
      assert.ok((await readWhole(third, '/big')).equals(data));
      await third.close();
    });
  }
}
