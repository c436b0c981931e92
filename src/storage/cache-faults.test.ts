// What goes wrong around a cache: a killed daemon, a full disk, damaged or foreign files, a backend without the blob.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { collectingLogger, readWhole, suiteFiles } from '../../test/conformance/cache-suite.ts';
import { instanceConfig, type InstanceConfigOptions } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../test/conformance/make-image.ts';
import { requireRoot } from '../../test/support/prerequisites.ts';
import { mountCleanup, tempDir } from '../../test/support/temporary.ts';
import { RafsInstance } from '../rafs/instance.ts';

const files = suiteFiles();
const dataOf = (name: string): Buffer => Buffer.from(files.find((file) => file.name === name)?.data ?? []);

function open(
  image: MadeImage,
  workDir: string,
  lines: string[] = [],
  config: Partial<InstanceConfigOptions> = {},
): Promise<RafsInstance> {
  return RafsInstance.open({
    bootstrap: image.bootstrap,
    id: 'faults',
    logger: collectingLogger(lines),
    config: instanceConfig({ blobDir: image.blobDir, workDir, ...config }),
    decodeThreads: 0,
  });
}

function readyChunks(path: string, count: number): number[] {
  const bytes = readFileSync(path);
  if (bytes.length < 4096) return [];
  return Array.from({ length: count }, (_, i) => i).filter(
    (i) => ((bytes[4096 + (i >> 3)] ?? 0) & (0x80 >> (i & 7))) !== 0,
  );
}

for (const version of [5, 6] as const) {
  test(`v${version} cache: a bit in the map never leads its data, whenever the daemon is killed`, async (t) => {
    const dir = tempDir(t);
    const data = sampleData(6_000_000, 9);
    const image = makeImage(dir, [{ name: 'big', data }], { version, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    const child = fileURLToPath(new URL('../../test/conformance/fill-cache-child.ts', import.meta.url));
    let grew = 0;
    // on a busy machine the first rounds may end before anything was published: later ones last longer
    for (let round = 0; round < 12 || (grew === 0 && round < 40); round++) {
      if (round % 4 === 0) rmSync(workDir, { recursive: true, force: true });
      const running = spawn(
        process.execPath,
        [child, image.bootstrap, image.blobDir, workDir, String(round)],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      await once(running.stdout, 'data');
      await new Promise(
        (resolve) => void setTimeout(resolve, (5 + ((round * 37) % 60)) * 2 ** Math.floor(round / 12)),
      );
      running.kill('SIGKILL');
      await once(running, 'exit');
      const ready = readyChunks(join(workDir, `${image.blobId}.blob.data.chunk_map`), image.chunks.length);
      const cached = readFileSync(join(workDir, `${image.blobId}.blob.data`));
      for (const index of ready) {
        const chunk = image.chunks[index];
        assert.ok(chunk !== undefined);
        const found = cached.subarray(chunk.plainOffset, chunk.plainOffset + chunk.plainSize);
        assert.ok(
          found.equals(data.subarray(index * 65536, index * 65536 + chunk.plainSize)),
          `round ${round}, chunk ${index}`,
        );
      }
      grew += ready.length;
    }
    assert.ok(grew > 0, 'no round published anything');
    const instance = await open(image, workDir);
    assert.ok((await readWhole(instance, '/big')).equals(data));
    await instance.close();
  });

  test(
    `v${version} cache: a full disk is warned of once, and every byte is still served`,
    { skip: requireRoot() },
    async (t) => {
      const dir = tempDir(t);
      const image = makeImage(dir, files, { version, compressor: 'zstd' });
      const small = join(dir, 'small');
      mkdirSync(small);
      mountCleanup(t, small);
      assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'nydus-test', small]).status, 0);
      const lines: string[] = [];
      const instance = await open(image, join(small, 'cache'), lines);
      for (let round = 0; round < 2; round++) {
        for (const file of files)
          assert.ok((await readWhole(instance, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      }
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.match(
        lines[0] ?? '',
        /^warn cache file .* cannot be written \(ENOSPC\): its blob is served without caching$/,
      );
      await instance.close();
      // what fitted is good
      const again = await open(image, join(small, 'cache'));
      for (const file of files)
        assert.ok((await readWhole(again, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      await again.close();
    },
  );

  test(
    `v${version} cache: no room for the map file: served without caching`,
    { skip: requireRoot() },
    async (t) => {
      const dir = tempDir(t);
      const image = makeImage(dir, files, { version, compressor: 'zstd' });
      const small = join(dir, 'small');
      mkdirSync(small);
      mountCleanup(t, small);
      assert.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'nydus-test', small]).status, 0);
      spawnSync('dd', ['if=/dev/zero', `of=${join(small, 'filler')}`, 'bs=4096']);
      const lines: string[] = [];
      const instance = await open(image, small, lines);
      for (const file of files)
        assert.ok((await readWhole(instance, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      await instance.close();
      assert.ok(
        lines.some((line) => line.includes('ENOSPC')),
        lines.join('\n'),
      );
    },
  );

  const damages: [string, (base: string) => void][] = [
    ['a map of another length', (base) => truncateSync(`${base}.blob.data.chunk_map`, 4096)],
    ['a map that is too long', (base) => appendFileSync(`${base}.blob.data.chunk_map`, 'x')],
    [
      'a map with a bad magic',
      (base) => {
        const fd = openSync(`${base}.blob.data.chunk_map`, 'r+');
        writeSync(fd, 'XXXX', 8);
        closeSync(fd);
      },
    ],
    ['a data file that was cut', (base) => truncateSync(`${base}.blob.data`, 70_000)],
    ['a data file that was removed', (base) => rmSync(`${base}.blob.data`)],
  ];
  for (const [what, damage] of damages) {
    test(`v${version} cache: ${what} is not believed`, async (t) => {
      const dir = tempDir(t);
      const image = makeImage(dir, files, { version, compressor: 'zstd' });
      const workDir = join(dir, 'cache');
      const first = await open(image, workDir);
      for (const file of files) await readWhole(first, `/${file.name}`);
      await first.close();
      // a chunk that is not what it should be, under a bit that is set
      const fd = openSync(join(workDir, `${image.blobId}.blob.data`), 'r+');
      writeSync(fd, 'wrong bytes', 65536 * 2 + 5);
      closeSync(fd);
      damage(join(workDir, image.blobId));
      const lines: string[] = [];
      const second = await open(image, workDir, lines);
      for (const file of files)
        assert.ok((await readWhole(second, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      assert.equal(lines.filter((line) => line.includes('starting a new one')).length, 1);
      await second.close();
      const third = await open(image, workDir, lines);
      for (const file of files)
        assert.ok((await readWhole(third, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      assert.equal(third.metrics().blobcache.data_all_ready, true);
      await third.close();
      assert.equal(lines.length, 1);
    });
  }

  test(`v${version} cache: with validation a chunk that changed on disk is fetched again`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor: 'lz4_block' });
    const workDir = join(dir, 'cache');
    const first = await open(image, workDir);
    for (const file of files) await readWhole(first, `/${file.name}`);
    await first.close();
    const fd = openSync(join(workDir, `${image.blobId}.blob.data`), 'r+');
    writeSync(fd, 'wrong bytes', 65536 * 2 + 5);
    closeSync(fd);
    const second = await open(image, workDir, [], { cache: { validate: true } });
    assert.ok((await readWhole(second, '/big')).equals(dataOf('big')));
    await second.close();
    // and was repaired
    const third = await open(image, workDir);
    assert.ok((await readWhole(third, '/big')).equals(dataOf('big')));
    await third.close();
  });

  test(`v${version} raw cache: a chunk that changed on disk is fetched again`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    const config = { cache: { compressed: true } };
    const first = await open(image, workDir, [], config);
    await readWhole(first, '/big');
    await first.close();
    const raw = join(workDir, `${image.blobId}.blob.raw`);
    const fd = openSync(raw, 'r+');
    writeSync(fd, 'wrong bytes', (image.chunks[2]?.offset ?? 0) + 100);
    closeSync(fd);
    const lines: string[] = [];
    const second = await open(image, workDir, lines, config);
    assert.ok((await readWhole(second, '/big')).equals(dataOf('big')));
    await second.close();
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /chunk 2 in the raw cache is damaged/);
  });

  test(`v${version} cache: a data file longer than the blob fails the mount and is left alone`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    await (await open(image, workDir)).close();
    const data = join(workDir, `${image.blobId}.blob.data`);
    appendFileSync(data, 'more');
    const size = readFileSync(data).length;
    await assert.rejects(open(image, workDir), { code: 'ERR_NYDUS_FORMAT' });
    assert.equal(readFileSync(data).length, size);
  });

  test(`v${version} cache: a complete cache serves without the backend, an incomplete one fails the mount`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    await assert.rejects(open({ ...image, blobDir: dir }, workDir), { code: 'ERR_NYDUS_BACKEND' });
    const first = await open(image, workDir);
    for (const file of files) await readWhole(first, `/${file.name}`);
    await first.close();
    const lines: string[] = [];
    const second = await open({ ...image, blobDir: dir }, workDir, lines);
    for (const file of files)
      assert.ok((await readWhole(second, `/${file.name}`)).equals(dataOf(file.name)), file.name);
    await second.close();
    assert.equal(lines.length, 1);
  });

  test(`v${version} cache: a blob that is cut short gives EIO where it ends, and serves what it has`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    const warm = await open(image, workDir);
    // loads the chunk table, and what follows in the blob
    await readWhole(warm, '/small');
    await warm.close();
    truncateSync(image.blobPath, image.chunks[3]?.offset ?? 0);
    const instance = await open(image, workDir);
    const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
    const target = Buffer.alloc(65536);
    assert.equal(await instance.read(ino, 2 * 65536, 65536, target), 65536);
    assert.ok(target.equals(dataOf('big').subarray(2 * 65536, 3 * 65536)));
    await assert.rejects(instance.read(ino, 3 * 65536, 10, target), { errno: 'EIO' });
    await instance.close();
  });
}

test('v6 cache: a damaged .blob.meta is fetched again, one of another length too', async (t) => {
  const dir = tempDir(t);
  const image = makeImage(dir, files, { version: 6, compressor: 'zstd' });
  const workDir = join(dir, 'cache');
  const path = join(workDir, `${image.blobId}.blob.meta`);
  const first = await open(image, workDir);
  await readWhole(first, '/small');
  await first.close();
  const good = readFileSync(path);
  const bad = Buffer.from(good);
  bad.writeUInt32LE(7, bad.length - 4096 + 12);
  for (const content of [bad, good.subarray(0, 100), Buffer.alloc(0)]) {
    writeFileSync(path, content);
    const instance = await open(image, workDir);
    assert.ok((await readWhole(instance, '/tail')).equals(dataOf('tail')));
    await instance.close();
    assert.ok(readFileSync(path).equals(good));
    for (const file of readdirSync(workDir)) if (!file.endsWith('.meta')) rmSync(join(workDir, file));
  }
});
