// The database of chunks: upstream's tables, damage, several processes, and what is taken out again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { ChunkDatabase } from './chunk-database.ts';

const id = (n: number): string => `Blake3:${n.toString(16).padStart(64, '0')}`;
const rows = (from: number, count: number): { id: string; offset: number }[] =>
  Array.from({ length: count }, (_, i) => ({ id: id(from + i), offset: (from + i) * 4096 }));

interface Opened {
  database: ChunkDatabase;
  path: string;
  lines: string[];
}

function open(t: TestContext, path = join(tempDir(t), 'dedup.db')): Opened {
  const lines: string[] = [];
  const database = ChunkDatabase.open(path, collectingLogger(lines));
  t.after(() => database.close());
  return { database, path, lines };
}

function all(path: string, sql: string): unknown[] {
  const reader = new DatabaseSync(path, { readOnly: true });
  try {
    return reader.prepare(sql).all();
  } finally {
    reader.close();
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => void setTimeout(resolve, 2));
}

test('ChunkDatabase: rows as upstream has them, in batches and while others read', async (t) => {
  const { database, path } = open(t);
  database.add('/c/a.blob.data', rows(0, 2000));
  assert.equal(database.count('/c/a.blob.data'), 0, 'written behind the back of whoever adds');
  await until(() => database.count('/c/a.blob.data') === 2000);
  database.add('/c/b.blob.data', rows(5, 1));
  // a chunk is recorded once per file, with its first place
  database.add('/c/a.blob.data', [{ id: id(7), offset: 1 }]);
  await until(() => database.count('/c/b.blob.data') === 1);
  assert.deepEqual(
    all(path, 'SELECT * FROM Blobs ORDER BY BlobId').map((row) => ({ ...(row as object) })),
    [
      { BlobId: 1, FilePath: '/c/a.blob.data' },
      { BlobId: 2, FilePath: '/c/b.blob.data' },
    ],
  );
  assert.deepEqual(
    all(path, `SELECT * FROM Chunks WHERE ChunkId = '${id(7)}'`).map((row) => ({ ...(row as object) })),
    [{ ChunkId: id(7), ChunkOffset: 7 * 4096, BlobId: 1 }],
  );
  assert.deepEqual(all(path, 'PRAGMA journal_mode')[0], { __proto__: null, journal_mode: 'wal' });
});

test('ChunkDatabase: finds the first file that has a chunk, never the one that asks', async (t) => {
  const { database } = open(t);
  database.add('/c/a.blob.data', rows(1, 2));
  database.add('/c/b.blob.data', rows(1, 1));
  await until(() => database.count('/c/b.blob.data') === 1);
  assert.deepEqual({ ...database.find(id(1), '/c/x') }, { path: '/c/a.blob.data', offset: 4096 });
  assert.deepEqual({ ...database.find(id(1), '/c/a.blob.data') }, { path: '/c/b.blob.data', offset: 4096 });
  assert.equal(database.find(id(2), '/c/a.blob.data'), undefined);
  assert.equal(database.find(id(3), '/c/x'), undefined);
});

test('ChunkDatabase: what is removed is gone, also when it was still to be written', async (t) => {
  const { database } = open(t);
  database.add('/c/a.blob.data', rows(0, 10));
  database.remove('/c/a.blob.data', [id(3)]);
  await until(() => database.count('/c/a.blob.data') > 0);
  assert.equal(database.count('/c/a.blob.data'), 9);
  database.remove('/c/a.blob.data', [id(4), id(5)]);
  assert.equal(database.count('/c/a.blob.data'), 7);
  assert.equal(database.find(id(4), ''), undefined);
  database.removeFile('/c/a.blob.data');
  assert.equal(database.find(id(0), ''), undefined);
});

test('ChunkDatabase: prune forgets files that are not there, and leaves no row when all are gone', async (t) => {
  const { database, path } = open(t);
  const there = join(tempDir(t), 'x.blob.data');
  writeFileSync(there, 'x');
  database.add(there, rows(0, 1));
  database.add('/gone/y.blob.data', rows(0, 3));
  await until(() => database.count('/gone/y.blob.data') === 3);
  database.prune();
  assert.deepEqual(all(path, 'SELECT FilePath FROM Blobs'), [{ __proto__: null, FilePath: there }]);
  assert.equal(all(path, 'SELECT * FROM Chunks').length, 1);
  rmSync(there);
  database.prune();
  assert.equal(all(path, 'SELECT * FROM Blobs UNION ALL SELECT ChunkId, ChunkOffset FROM Chunks').length, 0);
});

test('ChunkDatabase: close writes what is queued, and the next one finds it', (t) => {
  const { database, path } = open(t);
  database.add('/c/a.blob.data', rows(0, 1500));
  database.close();
  assert.equal(open(t, path).database.count('/c/a.blob.data'), 1500);
});

for (const [what, damage] of [
  ['no database at all', (_path: string) => Buffer.alloc(20_000, 'x')],
  [
    'pages overwritten',
    (path: string) => {
      const bytes = readFileSync(path);
      bytes.fill(0xa5, 4096);
      return bytes;
    },
  ],
] as const) {
  test(`ChunkDatabase: damaged (${what}): moved aside, begun anew, said in the log`, async (t) => {
    const dir = tempDir(t);
    const path = join(dir, 'dedup.db');
    const first = ChunkDatabase.open(path, collectingLogger([]));
    first.add('/c/a.blob.data', rows(0, 1000));
    first.close();
    writeFileSync(path, damage(path));
    const { database, lines } = open(t, path);
    let rebuilt = 0;
    database.onRebuilt(() => rebuilt++);
    database.add('/c/b.blob.data', rows(0, 5));
    database.find(id(1), '');
    await until(() => database.count('/c/b.blob.data') === 5);
    assert.equal(database.count('/c/a.blob.data'), 0);
    assert.ok(existsSync(`${path}.damaged`));
    assert.equal(lines.length, 1, lines.join('\n'));
    assert.match(
      lines[0] ?? '',
      /^warn dedup database .*dedup\.db is damaged \(.*\); moved to .*dedup\.db\.damaged, a new one is filled/,
    );
    assert.ok(rebuilt <= 1);
  });
}

test('ChunkDatabase: another daemon that has begun anew is followed', async (t) => {
  const { database, path } = open(t);
  database.add('/c/a.blob.data', rows(0, 1));
  await until(() => database.count('/c/a.blob.data') === 1);
  let told = 0;
  database.onRebuilt(() => told++);
  for (const suffix of ['', '-wal', '-shm']) renameSync(path + suffix, `${path}.damaged${suffix}`);
  const { database: other } = open(t, path);
  database.add('/c/b.blob.data', rows(0, 2));
  await until(() => other.count('/c/b.blob.data') === 2);
  assert.equal(told, 1);
  assert.equal(database.count('/c/a.blob.data'), 0);
});

test('ChunkDatabase: a file that cannot be made is a mistake of the user', (t) => {
  const path = join(tempDir(t), 'missing', 'dedup.db');
  assert.throws(() => ChunkDatabase.open(path, collectingLogger([])), {
    code: 'ERR_NYDUS_USAGE',
    message: `cannot open the dedup database ${path}: unable to open database file`,
    exitCode: 1,
  });
  mkdirSync(path, { recursive: true });
  assert.throws(() => ChunkDatabase.open(path, collectingLogger([])), { code: 'ERR_NYDUS_USAGE' });
});

test('ChunkDatabase: a writer that holds it for long delays rows, and costs nobody else anything', async (t) => {
  const { database, path, lines } = open(t);
  const other = new DatabaseSync(path);
  t.after(() => other.close());
  other.exec('BEGIN IMMEDIATE');
  database.add('/c/a.blob.data', rows(0, 3));
  await new Promise((resolve) => void setTimeout(resolve, 60));
  assert.equal(database.count('/c/a.blob.data'), 0);
  assert.equal(database.find(id(0), ''), undefined);
  other.exec('COMMIT');
  await until(() => database.count('/c/a.blob.data') === 3);
  assert.deepEqual(lines, []);
});

test('ChunkDatabase: two processes write until they are killed; what is there is whole', async (t) => {
  const path = join(tempDir(t), 'dedup.db');
  const child = fileURLToPath(new URL('testing/database-child.ts', import.meta.url));
  for (let round = 0; round < Number(process.env['NYDUS_DEDUP_KILLS'] ?? 2); round++) {
    const children = ['a', 'b'].map((name) =>
      spawn(process.execPath, [child, path, `/c/${name}.blob.data`, String(round)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      }),
    );
    await Promise.all(children.map((one) => once(one.stdout, 'data')));
    for (const one of children) {
      await new Promise((resolve) => void setTimeout(resolve, (round * 13) % 40));
      one.kill('SIGKILL');
      await once(one, 'exit');
    }
    const { database, lines } = open(t, path);
    assert.ok(database.count('/c/a.blob.data') > 0);
    database.close();
    assert.deepEqual(lines, []);
    assert.deepEqual({ ...(all(path, 'PRAGMA integrity_check')[0] as object) }, { integrity_check: 'ok' });
    // each row says where its chunk is: a torn write would show
    const wrong = all(
      path,
      `SELECT * FROM Chunks WHERE ChunkId <> printf('Blake3:%064x', ChunkOffset / 4096)`,
    );
    assert.deepEqual(wrong, []);
  }
});
