// What every way of caching must do, run on an instance over localfs. A new cache starts by passing this.
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { IntegrityError } from '../../src/base/errors.ts';
import type { Logger } from '../../src/base/log.ts';
import { RafsInstance } from '../../src/rafs/instance.ts';
import { LocalReader, MISS } from '../../src/rafs/local-reader.ts';
import { resolvePath } from '../../src/rafs/path.ts';
import { tempDir } from '../support/temporary.ts';
import { instanceConfig, type InstanceConfigOptions } from './instance-config.ts';
import { makeImage, sampleData, type MadeFile, type MadeImage } from './make-image.ts';

export interface CacheSuiteOptions {
  name: string;
  version: 5 | 6;
  compressor: 'none' | 'lz4_block' | 'zstd';
  /** part of the configuration that selects this cache */
  config: Omit<InstanceConfigOptions, 'blobDir' | 'workDir'>;
  /** false: nothing is kept on disk */
  keeps: boolean;
  /** true: readers find chunks in a plain data file */
  plain: boolean;
}

/** A logger that keeps its lines, `level message`. */
export function collectingLogger(lines: string[]): Logger {
  const add =
    (level: string) =>
    (message: string): void =>
      void lines.push(`${level} ${message}`);
  return { error: add('error'), warn: add('warn'), info: add('info'), debug: () => {}, trace: () => {} };
}

/** Files of the suite: several chunks, one chunk, less than a block, empty. */
export function suiteFiles(): MadeFile[] {
  return [
    { name: 'big', data: sampleData(1_000_000, 1) },
    { name: 'empty', data: new Uint8Array(0) },
    { name: 'one', data: sampleData(65536, 2) },
    { name: 'small', data: sampleData(100, 3) },
    { name: 'tail', data: sampleData(200_001, 4) },
  ];
}

/** Read a whole file in pieces. */
export async function readWhole(instance: RafsInstance, path: string, piece = 131072): Promise<Buffer> {
  const ino = resolvePath(instance.image, path);
  const parts: Buffer[] = [];
  for (let at = 0; ;) {
    const target = Buffer.alloc(piece);
    const got = await instance.read(ino, at, piece, target);
    if (got === 0) return Buffer.concat(parts);
    parts.push(target.subarray(0, got));
    at += got;
  }
}

/** Flip one stored bit of a chunk in the blob file. */
export function damageChunk(image: MadeImage, index: number): void {
  const chunk = image.chunks[index];
  assert.ok(chunk !== undefined);
  const fd = openSync(image.blobPath, 'r+');
  const at = chunk.offset + (chunk.size >> 1);
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 0x10;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
}

export function cacheSuite(options: CacheSuiteOptions): void {
  const { name, version, compressor, config } = options;
  const files = suiteFiles();
  const dataOf = (file: string): Buffer => Buffer.from(files.find((each) => each.name === file)?.data ?? []);

  const open = (
    image: MadeImage,
    dir: string,
    lines: string[] = [],
    decodeThreads = 0,
  ): Promise<RafsInstance> =>
    RafsInstance.open({
      bootstrap: image.bootstrap,
      id: name,
      logger: collectingLogger(lines),
      config: instanceConfig({
        ...config,
        blobDir: image.blobDir,
        workDir: options.keeps ? join(dir, 'cache') : undefined,
      }),
      decodeThreads,
    });

  for (const threads of [0, 2]) {
    test(`${name}: every file reads back, with ${threads} decode threads`, async (t) => {
      const dir = tempDir(t);
      const image = makeImage(dir, files, { version, compressor });
      const lines: string[] = [];
      const instance = await open(image, dir, lines, threads);
      for (const file of files)
        assert.ok((await readWhole(instance, `/${file.name}`)).equals(dataOf(file.name)), file.name);
      // again, now with what was kept
      for (const file of files)
        assert.ok((await readWhole(instance, `/${file.name}`, 5000)).equals(dataOf(file.name)), file.name);
      await instance.close();
      assert.deepEqual(lines, []);
    });
  }

  test(`${name}: odd ranges, the end of a file and reads behind it`, async (t) => {
    const dir = tempDir(t);
    const instance = await open(makeImage(dir, files, { version, compressor }), dir);
    const ino = resolvePath(instance.image, '/tail');
    const expected = dataOf('tail');
    for (const [offset, size] of [
      [0, 1],
      [65535, 2],
      [65536, 65536],
      [200_000, 4096],
      [131_071, 68_930],
      [200_001, 10],
      [300_000, 10],
    ] as const) {
      const target = Buffer.alloc(size, 0xee);
      const got = await instance.read(ino, offset, size, target);
      assert.equal(got, Math.max(0, Math.min(size, expected.length - offset)));
      assert.ok(target.subarray(0, got).equals(expected.subarray(offset, offset + got)), `${offset} ${size}`);
    }
    await instance.close();
  });

  test(`${name}: readers of one chunk at the same time share one fetch`, async (t) => {
    const dir = tempDir(t);
    const instance = await open(makeImage(dir, files, { version, compressor }), dir);
    const ino = resolvePath(instance.image, '/one');
    await instance.read(resolvePath(instance.image, '/small'), 0, 1, Buffer.alloc(1)).catch(() => 0);
    const before = instance.metrics().backend.read_count;
    const targets = Array.from({ length: 20 }, () => Buffer.alloc(65536));
    await Promise.all(targets.map((target) => instance.read(ino, 0, target.length, target)));
    for (const target of targets) assert.ok(target.equals(dataOf('one')));
    assert.ok(instance.metrics().backend.read_count - before <= 1);
    await instance.close();
  });

  test(`${name}: a damaged chunk gives EIO and a log line that names it, never bytes`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor });
    damageChunk(image, 3);
    const lines: string[] = [];
    const instance = await open(image, dir, lines);
    const ino = resolvePath(instance.image, '/big');
    const target = Buffer.alloc(4096, 0xee);
    await assert.rejects(instance.read(ino, 3 * 65536 + 5, 4096, target), (error: unknown) => {
      assert.ok(error instanceof IntegrityError);
      assert.equal(error.errno, 'EIO');
      assert.ok(error.message.startsWith(`blob ${image.blobId}: chunk 3: `), error.message);
      return true;
    });
    assert.ok(target.equals(Buffer.alloc(4096, 0xee)), 'the target was touched');
    assert.ok(
      lines.some((line) => line.startsWith(`error blob ${image.blobId}: chunk 3: `)),
      lines.join('\n'),
    );
    // its neighbours are not affected
    for (const at of [2, 4]) {
      const good = Buffer.alloc(65536);
      assert.equal(await instance.read(ino, at * 65536, good.length, good), good.length);
      assert.ok(good.equals(dataOf('big').subarray(at * 65536, (at + 1) * 65536)));
    }
    await instance.close();
    // and no later run believes the chunk
    const again = await open(image, dir);
    await assert.rejects(again.read(ino, 3 * 65536, 10, Buffer.alloc(10)), { errno: 'EIO' });
    await again.close();
  });

  test(`${name}: a read that is cancelled rejects with the reason, and the next one works`, async (t) => {
    const dir = tempDir(t);
    const instance = await open(makeImage(dir, files, { version, compressor }), dir);
    const ino = resolvePath(instance.image, '/big');
    const controller = new AbortController();
    const reason = new Error('interrupted');
    const read = instance.read(ino, 0, 65536, Buffer.alloc(65536), controller.signal);
    controller.abort(reason);
    await assert.rejects(read, reason);
    const target = Buffer.alloc(65536);
    await instance.read(ino, 0, 65536, target);
    assert.ok(target.equals(dataOf('big').subarray(0, 65536)));
    await instance.close();
  });

  test(`${name}: two instances on one directory do not hurt each other`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor });
    const both = await Promise.all([open(image, dir), open(image, dir)]);
    await Promise.all(
      both.flatMap((instance, at) =>
        (at === 0 ? files : files.toReversed()).map(async (file) =>
          assert.ok((await readWhole(instance, `/${file.name}`, 30_000)).equals(dataOf(file.name))),
        ),
      ),
    );
    await Promise.all(both.map((instance) => instance.close()));
    const third = await open(image, dir);
    for (const file of files) assert.ok((await readWhole(third, `/${file.name}`)).equals(dataOf(file.name)));
    await third.close();
  });

  if (!options.keeps) {
    test(`${name}: nothing is written`, async (t) => {
      const dir = tempDir(t);
      const instance = await open(makeImage(dir, files, { version, compressor }), dir);
      await readWhole(instance, '/big');
      await instance.close();
      assert.deepEqual(readdirSync(dir).sort(), ['blobs', 'bootstrap']);
    });
    return;
  }

  test(`${name}: what was read is there for the next instance`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor });
    const first = await open(image, dir);
    await readWhole(first, '/big');
    await first.close();
    const second = await open(image, dir);
    const idle = second.metrics().backend.read_amount_total;
    assert.ok((await readWhole(second, '/big')).equals(dataOf('big')));
    assert.equal(second.metrics().backend.read_amount_total, idle);
    await second.close();
  });

  test(`${name}: chunks that another instance published are not fetched again`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor });
    const [first, second] = [await open(image, dir), await open(image, dir)];
    await readWhole(first, '/big');
    await first.close();
    // loads the chunk table
    await readWhole(second, '/empty');
    const idle = second.metrics().backend.read_amount_total;
    const published = readdirSync(join(dir, 'cache')).some((file) => file.endsWith('.chunk_map'));
    assert.ok((await readWhole(second, '/big')).equals(dataOf('big')));
    if (published) assert.equal(second.metrics().backend.read_amount_total, idle);
    await second.close();
  });

  if (!options.plain) return;

  test(`${name}: LocalReader answers what is local and nothing else`, async (t) => {
    const dir = tempDir(t);
    const instance = await open(makeImage(dir, files, { version, compressor }), dir);
    const reader = new LocalReader(structuredClone(instance.share));
    const ino = resolvePath(reader.image, '/big');
    const target = Buffer.alloc(200_000, 0xee);
    assert.equal(reader.read(ino, 0, 100, target, 0), MISS);
    await readWhole(instance, '/big');
    assert.equal(reader.read(ino, 60_000, 150_000, target, 7), 150_000);
    assert.ok(target.subarray(7, 150_007).equals(dataOf('big').subarray(60_000, 210_000)));
    assert.deepEqual([...target.subarray(0, 7)], new Array(7).fill(0xee));
    assert.equal(target[150_007], 0xee);
    assert.equal(reader.read(ino, 999_990, 100, target, 0), 10);
    assert.equal(reader.read(ino, 1_000_000, 100, target, 0), 0);
    assert.equal(reader.read(resolvePath(reader.image, '/empty'), 0, 100, target, 0), 0);
    await instance.close();
  });

  test(`${name}: the plain data file has every chunk at its place`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, files, { version, compressor });
    const instance = await open(image, dir);
    for (const file of files) await readWhole(instance, `/${file.name}`);
    await instance.close();
    const data = readFileSync(join(dir, 'cache', `${image.blobId}.blob.data`));
    const all = Buffer.concat(files.map((file) => file.data));
    let from = 0;
    for (const { plainOffset, plainSize } of image.chunks) {
      assert.ok(
        data.subarray(plainOffset, plainOffset + plainSize).equals(all.subarray(from, from + plainSize)),
      );
      from += plainSize;
    }
  });
}
