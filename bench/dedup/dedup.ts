// Issue 6 section 4: a second image that shares 80 % of its chunks with one that the node has. Bytes that it fetches with `--dedup-db`,
// against those that it fetches without, and the time until all of it was read, over a registry on loopback.
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startDaemon } from '../../test/support/daemon.ts';
import { noise } from '../../test/support/sample-tree.ts';
import { dropCaches, median, settle, type BenchContext, type Line } from '../support/context.ts';
import { buildImage, type RafsImage } from '../support/images.ts';

const FILES = 200;
const SHARED = 0.8;
const SIZE = 512 * 1024;
const GROUP = 'chunks shared on a node';

/** Files whose content depends on the name and, for those that are not shared, on the image. */
function makeTree(dir: string, image: string): void {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  for (let n = 0; n < FILES; n++) {
    // spread over the image, as the files that an update changes are
    const own = n % 5 >= SHARED * 5;
    writeFileSync(join(dir, `file-${n}`), noise(own ? `${image} ${n}` : `shared ${n}`, SIZE));
  }
}

interface Outcome {
  bytes: number;
  seconds: number;
}

async function readAll(
  work: string,
  image: RafsImage,
  cache: string,
  db: string | undefined,
): Promise<Outcome> {
  mkdirSync(cache, { recursive: true });
  const backend = { type: 'localfs', config: { dir: image.blobs } };
  const config = {
    device: { backend, cache: { type: 'blobcache', config: { work_dir: cache } } },
    mode: 'direct',
    digest_validate: false,
    enable_xattr: true,
  };
  const began = performance.now();
  await using daemon = await startDaemon({
    workDir: work,
    bootstrap: image.bootstrap,
    config,
    args: ['--log-level', 'warn', ...(db === undefined ? [] : ['--dedup-db', db])],
  });
  const { status } = spawnSync('sh', ['-c', `cat ${daemon.mountpoint}/* > /dev/null`]);
  if (status !== 0) throw new Error(`cat ended with ${status}: ${daemon.log}`);
  const { read_amount_total: bytes } = (await daemon.get('/api/v1/metrics/backend')) as {
    read_amount_total: number;
  };
  const seconds = (performance.now() - began) / 1000;
  await daemon.stop();
  return { bytes, seconds };
}

/** Lines about the database of chunks. */
export async function benchDedup(context: BenchContext): Promise<Line[]> {
  const work = join(context.dir, 'work', 'dedup');
  const images: RafsImage[] = [];
  for (const name of ['first', 'second']) {
    const tree = join(work, `tree-${name}`);
    makeTree(tree, name);
    images.push(await buildImage(context, `dedup-${name}`, tree, 'zstd'));
  }
  const [first, second] = images;
  if (first === undefined || second === undefined) throw new Error('two images were to be built');
  const [withDb, without]: [Outcome[], Outcome[]] = [[], []];
  for (let round = 0; round < context.rounds; round++) {
    const caches = join(work, 'caches');
    rmSync(caches, { recursive: true, force: true });
    mkdirSync(caches, { recursive: true });
    const db = join(caches, 'dedup.db');
    await readAll(join(work, 'daemon'), first, join(caches, 'first'), db);
    for (const [list, file] of [
      [without, undefined],
      [withDb, db],
    ] as const) {
      await settle();
      dropCaches(3);
      const cache = join(caches, file === undefined ? 'second-alone' : 'second');
      list.push(await readAll(join(work, 'daemon'), second, cache, file));
    }
    context.note(
      `dedup: ${withDb.at(-1)?.bytes} bytes fetched, ${without.at(-1)?.bytes} without the database`,
    );
  }
  const of = (list: Outcome[], key: keyof Outcome): number => median(list.map((one) => one[key]));
  const what = `second image, ${SHARED * 100} % of its chunks known`;
  return [
    {
      group: GROUP,
      what: `${what}: bytes fetched`,
      unit: '% of those without the database',
      better: 'less',
      figures: { ours: (100 * of(withDb, 'bytes')) / of(without, 'bytes') },
      target: { limit: 25 },
      remark: `${(of(withDb, 'bytes') / 1e6).toFixed(1)} MB of ${(of(without, 'bytes') / 1e6).toFixed(1)} MB`,
    },
    {
      group: GROUP,
      what: `${what}: start, read all (local backend)`,
      unit: 's',
      better: 'less',
      figures: { ours: of(withDb, 'seconds'), 'without it': of(without, 'seconds') },
    },
  ];
}
