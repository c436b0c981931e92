// `nydusd --dedup-db`: real daemons that share chunks through one database, and what happens to it when they are killed.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage, runProgram } from '../support/programs.ts';
import { noise } from '../support/sample-tree.ts';

const SHARED = noise('shared', 4_000_000);
const KILLS = Number(process.env['NYDUS_DEDUP_KILLS'] ?? 2);

interface Image {
  name: string;
  bootstrap: string;
  blobs: string;
}

/** An image that shares 80 % of its data with the others. */
function makeImage(dir: string, name: string, version = '6'): Image {
  const tree = join(dir, `tree-${name}`);
  mkdirSync(tree);
  writeFileSync(join(tree, 'shared'), SHARED);
  writeFileSync(join(tree, 'own'), noise(name, 1_000_000));
  const [blobs, bootstrap] = [join(dir, `blobs-${name}`), join(dir, `boot-${name}`)];
  mkdirSync(blobs);
  const args = ['create', '-v', version, '--chunk-size', '0x10000', '--compressor', 'none'];
  nydusImage([...args, '--blob-dir', blobs, '-B', bootstrap, tree]);
  return { name, bootstrap, blobs };
}

function start(dir: string, image: Image, cache = 'cache', args: string[] = []): Promise<Daemon> {
  return startDaemon({
    workDir: join(dir, `daemon-${image.name}`),
    bootstrap: image.bootstrap,
    config: localConfig(image.blobs, join(dir, cache)),
    args: [...args, '--dedup-db', join(dir, 'dedup.db')],
  });
}

function assertTree({ mountpoint }: Daemon, { name }: Image): void {
  assert.ok(readFileSync(join(mountpoint, 'shared')).equals(SHARED), 'shared');
  assert.ok(readFileSync(join(mountpoint, 'own')).equals(noise(name, 1_000_000)), 'own');
}

async function fetched(daemon: Daemon): Promise<number> {
  return ((await daemon.get('/api/v1/metrics/backend')) as { read_amount_total: number }).read_amount_total;
}

function count(dir: string, table: 'Blobs' | 'Chunks'): number {
  const reader = new DatabaseSync(join(dir, 'dedup.db'), { readOnly: true });
  const { n } = reader.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number };
  reader.close();
  return n;
}

describe('nydusd --dedup-db', { skip: firstReason(requireFuse(), requireRoot()) }, () => {
  for (const version of ['5', '6']) {
    it(`nydusd: a second daemon copies what the first has, while both serve (v${version})`, async (t) => {
      const dir = tempDir(t);
      const [a, b] = [makeImage(dir, 'a', version), makeImage(dir, 'b', version)];
      await using first = await start(dir, a);
      assertTree(first, a);
      const chunks = Math.ceil(SHARED.length / 65536) + Math.ceil(1_000_000 / 65536);
      while (count(dir, 'Chunks') < chunks) await sleep(20);
      assert.equal(count(dir, 'Chunks'), chunks);
      assert.equal(count(dir, 'Blobs'), 1);
      await using second = await start(dir, b, 'another');
      assertTree(second, b);
      const ratio = (await fetched(second)) / (await fetched(first));
      assert.ok(ratio <= 0.25, `${ratio}`);
      rmSync(join(dir, 'cache'), { recursive: true });
      assert.equal(await first.stop(), 0, first.log);
      assert.equal(await second.stop(), 0, second.log);
      assert.equal(count(dir, 'Blobs'), 1, 'the caches that are gone are forgotten');
    });
  }

  it('nydusd: two daemons with one database are killed again and again: no wrong byte, and nothing is lost', async (t) => {
    const dir = tempDir(t);
    const images = ['a', 'b'].map((name) => makeImage(dir, name));
    await killLoop(t, dir, images);
    const [, b] = images;
    assert.ok(b !== undefined);
    assert.ok(count(dir, 'Chunks') > 0);
    const check = new DatabaseSync(join(dir, 'dedup.db'));
    assert.deepEqual(check.prepare('PRAGMA integrity_check').all(), [
      { __proto__: null, integrity_check: 'ok' },
    ]);
    check.close();
  });

  it('nydusd: a damaged database is moved aside in the middle of serving', async (t) => {
    const dir = tempDir(t);
    const [a, b] = [makeImage(dir, 'a'), makeImage(dir, 'b')];
    writeFileSync(join(dir, 'dedup.db'), 'this is no database, whatever its name says');
    await using first = await start(dir, a);
    assertTree(first, a);
    assert.match(first.log, /dedup\.db is damaged .*; moved to .*dedup\.db\.damaged/);
    while (count(dir, 'Chunks') === 0) await sleep(20);
    assert.equal(await first.stop(), 0);
    await using second = await start(dir, b);
    assertTree(second, b);
    assert.ok((await fetched(second)) < 1_500_000);
  });

  it('nydusd: a database that cannot be opened ends the start, and leaves nothing mounted', (t) => {
    const dir = tempDir(t);
    const mnt = join(dir, 'mnt');
    mkdirSync(mnt);
    const { status, stderr } = runProgram('nydusd', [
      '--mountpoint',
      mnt,
      '--dedup-db',
      join(dir, 'no/x.db'),
    ]);
    assert.equal(status, 1);
    assert.match(stderr, /Error: cannot open the dedup database .*\/no\/x\.db: unable to open database file/);
    assert.equal(spawnSync('mountpoint', ['-q', mnt]).status === 0, false);
  });
});

async function killLoop(t: TestContext, dir: string, images: readonly Image[]): Promise<void> {
  for (let round = 0; round < KILLS; round++) {
    const daemons = await Promise.all(images.map((image) => start(dir, image)));
    try {
      const readers = daemons.map(({ mountpoint }) =>
        spawn('sh', ['-c', `while cat ${mountpoint}/* > /dev/null; do :; done`], { stdio: 'ignore' }),
      );
      const gone = Promise.all(readers.map((reader) => once(reader, 'close')));
      await sleep((round * 170) % 1500);
      for (const daemon of daemons) assert.equal(await daemon.stop('SIGKILL'), 'SIGKILL');
      await gone;
    } finally {
      for (const daemon of daemons) await daemon[Symbol.asyncDispose]();
    }
    // half of the rounds with caches that are gone while the rows are there
    if (round % 2 === 1) rmSync(join(dir, 'cache'), { recursive: true });
    for (const image of images) {
      await using daemon = await start(dir, image);
      assertTree(daemon, image);
      assert.doesNotMatch(daemon.log, /damaged|panic|failed:/);
    }
  }
  t.diagnostic(`${KILLS} rounds`);
}
