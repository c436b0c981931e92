import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { readWhole } from '../../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../../test/conformance/instance-config.ts';
import { makeImage, sampleData, type MadeImage } from '../../../test/conformance/make-image.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { silentLogger } from '../../base/log.ts';
import { RafsInstance } from '../../rafs/instance.ts';
import type { ConfigV2 } from '../../storage/config.ts';
import { main } from '../nydusd.ts';

async function run(...argv: string[]): Promise<{ status: number; out: string; err: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const status = await main(argv, { stdin: new PassThrough(), stdout, stderr, env: {} });
  const text = (stream: PassThrough): string => String((stream.read() as Buffer | null) ?? '');
  return { status, out: text(stdout), err: text(stderr) };
}

function open(image: MadeImage, config: ConfigV2): Promise<RafsInstance> {
  return RafsInstance.open({
    bootstrap: image.bootstrap,
    id: 'cli',
    logger: silentLogger,
    config,
    decodeThreads: 0,
  });
}

test('nydusd cache: ls, verify, pin, unpin and gc of a directory', async (t) => {
  const dir = tempDir(t);
  const data = sampleData(400_000, 5);
  const image = makeImage(dir, [{ name: 'big', data }], { version: 6, compressor: 'zstd' });
  const workDir = join(dir, 'cache');
  const config = instanceConfig({ blobDir: image.blobDir, workDir });
  const instance = await open(image, config);
  await readWhole(instance, '/big');
  const args = ['--work-dir', workDir];
  const inUse = await run('cache', 'ls', ...args);
  assert.equal(inUse.status, 0);
  assert.match(inUse.out, /^BLOB +SIZE +CHUNKS +LAST USED +STATE\n/);
  assert.match(inUse.out, new RegExp(`\n${image.blobId} .* in use\n1 blobs, `));
  await instance.close();

  const good = await run('cache', 'verify', ...args, '--bootstrap', image.bootstrap, '--output', 'json');
  assert.deepEqual(JSON.parse(good.out), [{ blob: image.blobId, checked: 7, damaged: 0 }]);
  assert.equal(good.status, 0);
  const fd = openSync(join(workDir, `${image.blobId}.blob.data`), 'r+');
  writeSync(fd, 'wrong', 65536 * 3 + 9);
  closeSync(fd);
  const bad = await run('cache', 'verify', ...args, '-B', image.bootstrap);
  assert.equal(bad.status, 1);
  assert.match(bad.out, new RegExp(`\n${image.blobId} +7 +1 +damaged chunks are fetched again\n$`));
  const again = await open(image, config);
  assert.ok((await readWhole(again, '/big')).equals(data));
  await again.close();

  const pinned = await run('cache', 'pin', ...args, image.blobId.slice(0, 8));
  assert.equal(pinned.out, `${image.blobId} is pinned\n`);
  const stays = await run('cache', 'gc', ...args, '--max-size', '0');
  assert.equal(stays.status, 1);
  assert.match(stays.out, /stays: pinned/);
  const list = JSON.parse((await run('cache', 'ls', ...args, '-o', 'json')).out) as {
    pins: string[];
    in_use: boolean;
  }[];
  assert.deepEqual(
    list.map(({ pins, in_use }) => [pins, in_use]),
    [[['user'], false]],
  );
  assert.equal(
    (await run('cache', 'unpin', ...args, image.blobId)).out,
    `${image.blobId} is no longer pinned\n`,
  );
  const dry = await run('cache', 'gc', ...args, '--max-size', '0', '--dry-run');
  assert.match(dry.out, /would be deleted/);
  assert.ok(readdirSync(workDir).length > 0);
  const gone = await run('cache', 'gc', ...args, '--max-size', '0');
  assert.equal(gone.status, 0);
  assert.deepEqual(readdirSync(workDir), []);
});

test('nydusd cache: what is wrong is said, with the next step', async (t) => {
  const dir = tempDir(t);
  for (const [argv, status, text] of [
    [['cache'], 1, /needs a subcommand/],
    [['cache', 'ls'], 2, /--work-dir <DIR>/],
    [['cache', 'ls', '--work-dir', join(dir, 'none')], 1, /is not a directory/],
    [['cache', 'gc', '--work-dir', dir, '--max-size', 'lots'], 1, /--max-size lots is no size/],
    [['cache', 'pin', '--work-dir', dir, 'abc'], 1, /no blob begins with abc/],
  ] as const) {
    const result = await run(...argv);
    assert.equal(result.status, status, argv.join(' '));
    assert.match(result.err, text);
  }
  const help = await run('cache', 'gc', '--help');
  assert.match(help.out, /nydusd cache gc --work-dir \/var\/lib\/nydus\/cache --max-size 10GiB/);
});

const encryption_key = '0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20';
const kinds = [
  ['compressed', { cache: { compressed: true } }, 'raw'],
  ['encrypted with one key', { filecache: { enable_encryption: true, encryption_key } }, 'data'],
  [
    'encrypted with a key for each chunk',
    { filecache: { enable_encryption: true, enable_convergent_encryption: true } },
    'data',
  ],
] as const;

for (const [kind, options, suffix] of kinds) {
  test(`nydusd cache verify: a cache that is ${kind}`, async (t) => {
    const dir = tempDir(t);
    const data = sampleData(400_000, 6);
    const image = makeImage(dir, [{ name: 'big', data }], { version: 6, compressor: 'zstd' });
    const workDir = join(dir, 'cache');
    const config = instanceConfig({ blobDir: image.blobDir, workDir, ...options });
    const instance = await open(image, config);
    await readWhole(instance, '/big');
    await instance.close();
    const file = join(dir, 'config.json');
    writeFileSync(file, JSON.stringify(config));
    const args = ['--work-dir', workDir, '-B', image.bootstrap, '--output', 'json'];
    const verify = async (...more: string[]): Promise<unknown> =>
      JSON.parse((await run('cache', 'verify', ...args, ...more)).out);
    const good = [{ blob: image.blobId, checked: 7, damaged: 0 }];
    assert.deepEqual(await verify('--config', file), good);
    if (suffix === 'data') {
      // without the key, or with another, nothing is forgotten
      const problem = /^not one chunk is what the image says/;
      const wrong = join(dir, 'wrong.json');
      const filecache = { ...config.cache?.filecache, encryption_key: encryption_key.replace('01', '09') };
      const other = { ...filecache, enable_convergent_encryption: false };
      writeFileSync(wrong, JSON.stringify({ ...config, cache: { ...config.cache, filecache: other } }));
      for (const more of [[], ['--config', wrong]]) {
        const [result] = (await verify(...more)) as { checked: number; problem: string }[];
        assert.equal(result?.checked, 7);
        assert.match(result.problem, problem);
      }
      assert.deepEqual(await verify('--config', file), good);
    } else assert.deepEqual(await verify(), good, 'no key is needed');
    const fd = openSync(join(workDir, `${image.blobId}.blob.${suffix}`), 'r+');
    const at = suffix === 'raw' ? (image.chunks[3]?.offset ?? 0) + 50 : 65536 * 3 + 9;
    writeSync(fd, 'wrong', at);
    closeSync(fd);
    assert.deepEqual(await verify('--config', file), [{ blob: image.blobId, checked: 7, damaged: 1 }]);
    assert.deepEqual(await verify('--config', file), [{ blob: image.blobId, checked: 6, damaged: 0 }]);
    const again = await open(image, config);
    assert.ok((await readWhole(again, '/big')).equals(data));
    await again.close();
  });
}

function rowsIn(db: string): { path: string; chunks: number }[] {
  const reader = new DatabaseSync(db, { readOnly: true });
  const sql =
    'SELECT FilePath AS path, count(ChunkId) AS chunks FROM Blobs LEFT JOIN Chunks USING (BlobId) GROUP BY BlobId';
  const rows = reader.prepare(sql).all() as { path: string; chunks: number }[];
  reader.close();
  return rows.map((row) => ({ ...row }));
}

test('nydusd cache: what is deleted or damaged is no longer offered to other images; ls says what is', async (t) => {
  const dir = tempDir(t);
  const shared = sampleData(400_000, 7);
  const make = (name: string, files: Record<string, Buffer>): MadeImage => {
    mkdirSync(join(dir, name));
    const list = Object.entries(files).map(([file, data]) => ({ name: file, data }));
    return makeImage(join(dir, name), list, { version: 6, compressor: 'zstd' });
  };
  const [one, two] = [make('one', { shared }), make('two', { a: sampleData(100_000, 8), shared })];
  const [workDir, db] = [join(dir, 'cache'), join(dir, 'dedup.db')];
  const serve = async (image: MadeImage, at: string): Promise<number> => {
    const instance = await RafsInstance.open({
      bootstrap: image.bootstrap,
      id: 'cli',
      logger: silentLogger,
      config: instanceConfig({ blobDir: image.blobDir, workDir: at }),
      decodeThreads: 0,
      dedupDb: db,
    });
    assert.ok((await readWhole(instance, '/shared')).equals(shared));
    const { dedup_chunks } = instance.metrics().blobcache;
    await instance.close();
    return dedup_chunks;
  };
  assert.equal(await serve(one, workDir), 0);
  const path = join(workDir, `${one.blobId}.blob.data`);
  assert.deepEqual(rowsIn(db), [{ path, chunks: 7 }]);
  const args = ['--work-dir', workDir, '--dedup-db', db];
  const listed = await run('cache', 'ls', ...args);
  assert.match(listed.out, /^BLOB +SIZE +CHUNKS +SHARED +LAST USED +STATE\n[0-9a-f]{64} .* 7 +7 +2/);
  assert.match((await run('cache', 'ls', ...args, '-o', 'json')).out, /"shared_chunks": 7/);
  assert.doesNotMatch((await run('cache', 'ls', '--work-dir', workDir, '-o', 'json')).out, /shared_chunks/);

  const fd = openSync(path, 'r+');
  writeSync(fd, 'wrong', 65536 * 3 + 9);
  closeSync(fd);
  assert.equal((await run('cache', 'verify', ...args, '-B', one.bootstrap)).status, 1);
  assert.deepEqual(rowsIn(db), [{ path, chunks: 6 }]);
  assert.equal(await serve(two, join(dir, 'other')), 6);

  assert.equal((await run('cache', 'gc', ...args, '--max-size', '0', '--dry-run')).status, 0);
  assert.equal(rowsIn(db).length, 2, 'a dry run forgets nothing');
  // what somebody deleted by hand is forgotten with it
  rmSync(join(dir, 'other'), { recursive: true });
  assert.equal((await run('cache', 'gc', ...args, '--max-size', '0')).status, 0);
  assert.deepEqual(rowsIn(db), []);
  assert.equal(await serve(two, workDir), 0);

  const none = await run('cache', 'ls', '--work-dir', workDir, '--dedup-db', join(dir, 'none.db'));
  assert.equal(none.status, 1);
  assert.match(none.err, /there is no dedup database .*none\.db/);
  assert.equal(existsSync(join(dir, 'none.db')), false);
});

test('nydusd cache gc: a blob that stays keeps its rows', async (t) => {
  const dir = tempDir(t);
  const data = sampleData(200_000, 9);
  const image = makeImage(dir, [{ name: 'f', data }], { version: 5, compressor: 'none' });
  const [workDir, db] = [join(dir, 'cache'), join(dir, 'dedup.db')];
  const config = instanceConfig({ blobDir: image.blobDir, workDir });
  const options = { bootstrap: image.bootstrap, id: 'cli', logger: silentLogger, config, publishMs: 1 };
  const instance = await RafsInstance.open({ ...options, decodeThreads: 0, dedupDb: db });
  await readWhole(instance, '/f');
  while (rowsIn(db)[0]?.chunks !== 4) await new Promise((resolve) => void setTimeout(resolve, 3));
  const args = ['--work-dir', workDir, '--dedup-db', db, '--max-size', '0'];
  assert.match((await run('cache', 'gc', ...args)).out, /stays: in use/);
  await instance.close();
  await run('cache', 'pin', '--work-dir', workDir, image.blobId);
  assert.match((await run('cache', 'gc', ...args)).out, /stays: pinned/);
  assert.equal(rowsIn(db)[0]?.chunks, 4);
});
