// Images of one node share chunks: what one cache has is copied into another, verified, and what is not there after all is fetched.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test, type TestContext } from 'node:test';
import { collectingLogger, readWhole } from '../../../test/conformance/cache-suite.ts';
import { instanceConfig, type InstanceConfigOptions } from '../../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../../test/conformance/make-image.ts';
import { requireLoopDevice, requirePeer, requireRoot } from '../../../test/support/prerequisites.ts';
import { mountCleanup, tempDir } from '../../../test/support/temporary.ts';
import { RafsInstance } from '../../rafs/instance.ts';

const CHUNK = 0x10000;
const COMMON = sampleData(40 * CHUNK, 1);
const OWN = sampleData(3 * CHUNK + 5, 3);
const NEW = sampleData(10 * CHUNK, 2);

interface Node {
  dir: string;
  db: string;
  lines: string[];
  /** 40 chunks, and its update: 10 new chunks, then the 40 */
  base: MadeImage;
  update: MadeImage;
  open(image: MadeImage, workDir?: string, config?: Partial<InstanceConfigOptions>): Promise<RafsInstance>;
}

function prepare(t: TestContext, version: 5 | 6, at = tempDir(t)): Node {
  const made = (name: string, files: Record<string, Buffer>): MadeImage => {
    const dir = join(at, name);
    mkdirSync(dir);
    const list = Object.entries(files).map(([file, data]) => ({ name: file, data }));
    return makeImage(dir, list, { version, compressor: 'zstd' });
  };
  const lines: string[] = [];
  const db = join(at, 'dedup.db');
  return {
    dir: at,
    db,
    lines,
    base: made('base', { common: COMMON, own: OWN }),
    update: made('update', { a: NEW, common: COMMON }),
    open: (image, workDir = join(at, 'cache'), config = {}) =>
      RafsInstance.open({
        bootstrap: image.bootstrap,
        id: 'dedup',
        logger: collectingLogger(lines),
        config: instanceConfig({ blobDir: image.blobDir, workDir, ...config }),
        decodeThreads: 0,
        publishMs: 1,
        gcMs: 3,
        dedupDb: db,
      }),
  };
}

async function fill({ open, base }: Node, workDir?: string): Promise<void> {
  const instance = await open(base, workDir);
  assert.ok((await readWhole(instance, '/common')).equals(COMMON));
  await instance.close();
}

interface Counts {
  fetched: number;
  copied: number;
}

async function readUpdate(node: Node, workDir?: string): Promise<Counts> {
  const instance = await node.open(node.update, workDir);
  assert.ok((await readWhole(instance, '/a')).equals(NEW));
  assert.ok((await readWhole(instance, '/common')).equals(COMMON));
  const { backend, blobcache } = instance.metrics();
  await instance.close();
  return { fetched: backend.read_amount_total, copied: blobcache.dedup_chunks };
}

const storedSize = ({ chunks }: MadeImage, from: number, to: number): number =>
  chunks.slice(from, to).reduce((sum, { size }) => sum + size, 0);

function rowsOf(db: string): number {
  const reader = new DatabaseSync(db, { readOnly: true });
  const { n } = reader.prepare('SELECT count(*) AS n FROM Chunks').get() as { n: number };
  reader.close();
  return n;
}

function change(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

for (const version of [5, 6] as const) {
  test(`v${version} dedup: a second image fetches the chunks that no other has, and those only`, async (t) => {
    const node = prepare(t, version);
    await fill(node);
    assert.ok(rowsOf(node.db) >= 40);
    const { fetched, copied } = await readUpdate(node, join(node.dir, 'elsewhere'));
    assert.equal(copied, 40);
    const meta = version === 6 ? 50 * 16 + 4096 : 0;
    assert.equal(fetched, storedSize(node.update, 0, 10) + meta);
    assert.deepEqual(node.lines, []);
  });

  test(`v${version} dedup: a cache whose bytes are wrong gives none of them`, async (t) => {
    const node = prepare(t, version);
    await fill(node);
    const file = join(node.dir, 'cache', `${node.base.blobId}.blob.data`);
    for (const index of [0, 7, 39]) change(file, index * CHUNK + 99, Uint8Array.of(1, 2, 3));
    assert.equal((await readUpdate(node)).copied, 37);
    // what was wrong is not asked for again: it comes from the second image now
    rmSync(join(node.dir, 'third'), { recursive: true, force: true });
    assert.equal((await readUpdate(node, join(node.dir, 'third'))).copied, 50);
  });

  test(`v${version} dedup: the other cache is gone, cut or empty: everything is fetched`, async (t) => {
    for (const damage of [
      (file: string): void => rmSync(file),
      (file: string): void => truncateSync(file, 0),
      (file: string): void => truncateSync(file, 100),
      (file: string): void => {
        rmSync(file);
        mkdirSync(file);
      },
      (file: string): void => {
        rmSync(file);
        spawnSync('mkfifo', [file]);
      },
    ]) {
      const node = prepare(t, version);
      await fill(node);
      damage(join(node.dir, 'cache', `${node.base.blobId}.blob.data`));
      assert.equal((await readUpdate(node, join(node.dir, 'elsewhere'))).copied, 0);
    }
  });
}

test('dedup: rows that lie about files and offsets do no harm', async (t) => {
  const node = prepare(t, 6);
  await fill(node);
  const secret = join(node.dir, 'secret');
  const writer = new DatabaseSync(node.db);
  writer.prepare('UPDATE Blobs SET FilePath = ?').run(secret);
  writer.exec('UPDATE Chunks SET ChunkOffset = ChunkOffset + 4096');
  writer.close();
  assert.equal((await readUpdate(node)).copied, 0);
});

test('dedup: what is taken out of a cache is taken out of the database first', async (t) => {
  const node = prepare(t, 6);
  const instance = await node.open(node.base, undefined, { filecache: { max_size: 1_500_000 } });
  assert.ok((await readWhole(instance, '/common')).equals(COMMON));
  const file = join(node.dir, 'cache', `${node.base.blobId}.blob.data`);
  while (statSync(file).blocks * 512 > 1_500_000) await new Promise((resolve) => void setTimeout(resolve, 3));
  await instance.close();
  const reader = new DatabaseSync(node.db, { readOnly: true });
  const offsets = reader.prepare('SELECT ChunkOffset AS offset FROM Chunks').all() as { offset: number }[];
  reader.close();
  const bytes = readFileSync(file);
  const whole = Buffer.concat([COMMON, OWN]);
  assert.ok(offsets.length < 24, `${offsets.length} rows`);
  for (const { offset } of offsets)
    assert.ok(bytes.subarray(offset, offset + 5).equals(whole.subarray(offset, offset + 5)), `${offset}`);
});

test('dedup: a cache filled before there was a database is recorded when it is opened', async (t) => {
  const node = prepare(t, 6);
  await fill(node);
  for (const suffix of ['', '-wal', '-shm']) rmSync(node.db + suffix, { force: true });
  const instance = await node.open(node.base);
  await readWhole(instance, '/own');
  while (rowsOf(node.db) < 44) await new Promise((resolve) => void setTimeout(resolve, 3));
  await instance.close();
  assert.equal((await readUpdate(node, join(node.dir, 'elsewhere'))).copied, 40);
});

test('dedup: closing forgets caches that were deleted, and a new file at the same place starts with nothing', async (t) => {
  const node = prepare(t, 6);
  await fill(node);
  rmSync(join(node.dir, 'cache'), { recursive: true });
  const instance = await node.open(node.base);
  await readWhole(instance, '/own');
  await instance.close();
  assert.equal(rowsOf(node.db), 4);
  rmSync(join(node.dir, 'cache'), { recursive: true });
  await (await node.open(node.update, join(node.dir, 'elsewhere'))).close();
  assert.equal(rowsOf(node.db), 0);
});

for (const [name, config] of [
  ['compressed', { cache: { compressed: true } }],
  ['encrypted', { filecache: { enable_encryption: true, enable_convergent_encryption: true } }],
] as const) {
  test(`dedup: a ${name} cache takes no part`, async (t) => {
    const node = prepare(t, 6);
    const instance = await node.open(node.base, undefined, config);
    assert.ok((await readWhole(instance, '/common')).equals(COMMON));
    await instance.close();
    assert.equal(statSync(node.db, { throwIfNoEntry: false }), undefined);
  });
}

for (const [type, mkfs, args] of [
  ['btrfs', 'mkfs.btrfs', ['-q']],
  ['xfs', 'mkfs.xfs', ['-q']],
] as const) {
  const skip = requireRoot() || requirePeer(mkfs) || requireLoopDevice();
  test(`dedup: on ${type} the blocks are shared`, { skip }, async (t) => {
    const dir = tempDir(t);
    const [disk, mnt] = [join(dir, 'disk'), join(dir, 'mnt')];
    mkdirSync(mnt);
    closeSync(openSync(disk, 'w'));
    truncateSync(disk, 400 << 20);
    assert.equal(spawnSync(mkfs, [...args, disk]).status, 0);
    mountCleanup(t, mnt);
    const mounted = spawnSync('mount', ['-o', 'loop', disk, mnt], { encoding: 'utf8' });
    assert.equal(mounted.status, 0, mounted.stderr);
    const node = prepare(t, 6, mnt);
    await fill(node);
    const instance = await node.open(node.update, join(mnt, 'elsewhere'));
    assert.ok((await readWhole(instance, '/common')).equals(COMMON));
    const { dedup_chunks, dedup_shared_bytes } = instance.metrics().blobcache;
    await instance.close();
    assert.equal(dedup_chunks, 40);
    assert.equal(dedup_shared_bytes, COMMON.length);
    // each has its own bytes all the same
    change(join(mnt, 'cache', `${node.base.blobId}.blob.data`), 10, Buffer.alloc(100_000));
    const again = await node.open(node.update, join(mnt, 'elsewhere'));
    assert.ok((await readWhole(again, '/common')).equals(COMMON));
    await again.close();
  });
}
