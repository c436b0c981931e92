// What each key of the common configuration does, seen through a daemon that mounts an image with it. Source: issue 5 section 6,
// nydusd.md 7.1, blob-and-cache.md 21.6.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  closeSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getXattr, listXattrs, setXattr } from '../../src/native/xattr.ts';
import { BlobServer } from '../support/blob-server.ts';
import { localConfig, startDaemon, type Daemon } from '../support/daemon.ts';
import { firstReason, requireFuse, requirePeer, requireRoot, tempDir } from '../support/golden.ts';
import { nydusImage } from '../support/programs.ts';

const skip = firstReason(requireFuse(), requireRoot(), requirePeer('getfattr'));
const CHUNK = 0x1_0000;
const SIZE = 32 * CHUNK;

interface Image {
  dir: string;
  bootstrap: string;
  blobs: string;
  blob: string;
  data: Buffer;
}

/** One file of 32 chunks that do not compress, with an attribute. */
function image(t: TestContext, version = '6'): Image {
  const dir = tempDir(t);
  for (const name of ['source', 'blobs']) mkdirSync(join(dir, name));
  const data = randomBytes(SIZE);
  writeFileSync(join(dir, 'source/file'), data);
  setXattr(Buffer.from(join(dir, 'source/file')), Buffer.from('user.color'), Buffer.from('blue'));
  const args = [
    'create',
    '-v',
    version,
    '--compressor',
    'none',
    '--chunk-size',
    String(CHUNK),
    '--blob-dir',
    'blobs',
  ];
  nydusImage([...args, '--bootstrap', 'boot', 'source'], { cwd: dir });
  const blobs = join(dir, 'blobs');
  return { dir, bootstrap: join(dir, 'boot'), blobs, blob: join(blobs, readdirSync(blobs)[0] ?? ''), data };
}

let runs = 0;

/** Run a daemon with a configuration, do something with it, and end it. */
async function during(
  { dir, bootstrap }: Image,
  config: object,
  act: (daemon: Daemon, file: string) => Promise<void> | void,
): Promise<void> {
  await using daemon = await startDaemon({ workDir: join(dir, `run${runs++}`), bootstrap, config });
  await act(daemon, join(daemon.mountpoint, 'file'));
  assert.equal(await daemon.stop(), 0, daemon.log);
}

async function metrics(daemon: Daemon, kind: string): Promise<Record<string, number>> {
  return (await daemon.get(`/api/v1/metrics/${kind}`)) as Record<string, number>;
}

test(
  'readahead, readahead_sec: what is read in the first seconds is in the page cache after the next start',
  {
    skip: firstReason(skip, requirePeer('fincore')),
  },
  async (t) => {
    // without a cache every read reaches the blob; v6 images are not served so
    const at = image(t, '5');
    const config = (seconds: number, on: boolean): object => ({
      device: {
        backend: { type: 'localfs', config: { dir: at.blobs, readahead: on, readahead_sec: seconds } },
        cache: {},
      },
      mode: 'direct',
      amplify_io: 0,
    });
    const read = (file: string, chunk: number): void => {
      const fd = openSync(file, 'r');
      assert.equal(readSync(fd, Buffer.alloc(4096), 0, 4096, chunk * CHUNK), 4096);
      closeSync(fd);
    };
    const log = `${at.blob}.access`;
    await during(at, config(3600, false), (_, file) => read(file, 20));
    assert.equal(existsSync(log), false);
    await during(at, config(4, true), async (_, file) => {
      read(file, 20);
      for (let wait = 0; wait < 1000 && !existsSync(log); wait++) await sleep(10);
      // the time is over: this is not recorded
      read(file, 5);
    });
    const records = readFileSync(log);
    assert.equal(records.length % 16, 0);
    const ranges = Array.from({ length: records.length / 16 }, (_, n) => [
      Number(records.readBigUInt64LE(n * 16)),
      records.readUInt32LE(n * 16 + 8),
    ]);
    const covers = (chunk: number): boolean =>
      ranges.some(([start = 0, size = 0]) => start <= chunk * CHUNK && start + size >= (chunk + 1) * CHUNK);
    assert.deepEqual([covers(20), covers(5)], [true, false], JSON.stringify(ranges));
    const resident = (): number =>
      Number(
        spawnSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', at.blob], { encoding: 'utf8' })
          .stdout,
      );
    spawnSync('dd', [`of=${at.blob}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0']);
    assert.ok(resident() < CHUNK, `${resident()} bytes of the blob are cached before`);
    await during(at, config(1, true), async () => {
      for (let wait = 0; wait < 500 && resident() < CHUNK; wait++) await sleep(10);
      assert.ok(resident() >= CHUNK, `${resident()} bytes`);
    });
  },
);

test('merging_size: how much a request of the prefetch fetches', { skip }, async (t) => {
  const at = image(t);
  for (const [size, requests] of [
    [131_072, SIZE / 131_072],
    [1_048_576, SIZE / 1_048_576],
  ] as const) {
    const prefetch = { enable: true, threads_count: 1, merging_size: size };
    const config = localConfig(at.blobs, join(at.dir, `cache${size}`), { fs_prefetch: prefetch });
    await during(at, config, async (daemon) => {
      for (;;) {
        const seen = await metrics(daemon, 'blobcache');
        if (seen['prefetch_data_amount'] === SIZE) {
          assert.equal(seen['prefetch_requests_count'], requests);
          return;
        }
        await sleep(10);
      }
    });
  }
});

test(
  'threads_count: the most requests that prefetch has under way; over a network it begins with one',
  { skip },
  async (t) => {
    const at = image(t);
    const blob = readFileSync(at.blob);
    const server = await BlobServer.start(t, { find: () => blob });
    const held: ServerResponse[] = [];
    server.always = (request, response) => {
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? Infinity);
      if (start >= SIZE) return server.serve(request, response);
      held.push(response);
    };
    for (const threads of [1, 3]) {
      held.splice(0);
      mkdirSync(join(at.dir, `cache${threads}`));
      const prefetch = { enable: true, threads, batch_size: 131_072, prefetch_all: true };
      const config = {
        version: 2,
        backend: { type: 'http-proxy', 'http-proxy': { addr: `http://${server.host}`, timeout: 3600 } },
        cache: { type: 'blobcache', filecache: { work_dir: join(at.dir, `cache${threads}`) }, prefetch },
        rafs: { mode: 'direct', prefetch },
      };
      await during(at, config, async (daemon) => {
        for (let wait = 0; wait < 500 && held.length === 0; wait++) await sleep(10);
        await sleep(200);
        assert.ok(held.length >= 1 && held.length <= threads, `${held.length} of ${threads}`);
        assert.equal((await metrics(daemon, 'blobcache'))['prefetch_workers'], threads);
      });
    }
  },
);

test(
  'iostats_files, access_pattern, latest_read_files: counted when asked for, and only then',
  { skip },
  async (t) => {
    const at = image(t);
    for (const on of [true, false]) {
      const more = { iostats_files: on, access_pattern: on, latest_read_files: on };
      await during(at, localConfig(at.blobs, join(at.dir, 'cache'), more), async (daemon, file) => {
        readFileSync(file);
        const files = Object.values(
          (await daemon.get('/api/v1/metrics/files')) as Record<string, { data_read: number }>,
        );
        const read = files.filter(({ data_read }) => data_read > 0);
        assert.deepEqual(
          read.map(({ data_read }) => data_read),
          on ? [SIZE] : [],
        );
        assert.equal(((await daemon.get('/api/v1/metrics/pattern')) as unknown[]).length, on ? 1 : 0);
        assert.equal(
          ((await daemon.get('/api/v1/metrics/files?latest=true')) as unknown[]).length,
          on ? 1 : 0,
        );
      });
    }
  },
);

test(
  'enable_xattr: an image that says it has attributes shows them anyway; one that says nothing, when asked to',
  {
    skip,
  },
  async (t) => {
    const at = image(t);
    const plain = join(at.dir, 'plain');
    mkdirSync(join(plain, 'source'), { recursive: true });
    writeFileSync(join(plain, 'source/file'), 'no attributes');
    mkdirSync(join(plain, 'blobs'));
    nydusImage(['create', '--blob-dir', 'blobs', '--bootstrap', 'boot', 'source'], { cwd: plain });
    const without = { ...at, dir: plain, bootstrap: join(plain, 'boot'), blobs: join(plain, 'blobs') };
    const color = Buffer.from('user.color');
    for (const on of [true, false]) {
      const config = (of: Image): object =>
        localConfig(of.blobs, join(of.dir, 'cache'), { enable_xattr: on });
      await during(at, config(at), (_, file) => {
        assert.deepEqual(listXattrs(Buffer.from(file)).map(String), ['user.color']);
        assert.equal(String(getXattr(Buffer.from(file), color)), 'blue');
      });
      await during(without, config(without), (_, file) => {
        // no attributes, or no such thing as attributes
        const asked = spawnSync('getfattr', ['-n', 'user.color', file], { encoding: 'utf8' });
        assert.match(asked.stderr, on ? /No such attribute/ : /Operation not supported/);
      });
    }
  },
);

test(
  'digest_validate: what an earlier daemon cached is verified before it is served again',
  { skip },
  async (t) => {
    const at = image(t);
    const cache = join(at.dir, 'cache');
    const config = (validate: boolean): object =>
      localConfig(at.blobs, cache, { digest_validate: validate, amplify_io: 0 });
    await during(at, config(false), (_, file) => assert.ok(readFileSync(file).equals(at.data)));
    const cached = join(cache, readdirSync(cache).find((name) => name.endsWith('.blob.data')) ?? '');
    const fd = openSync(cached, 'r+');
    writeSync(fd, 'DAMAGED', 3 * CHUNK + 100);
    closeSync(fd);
    const fetched = async (daemon: Daemon): Promise<number> =>
      (await metrics(daemon, 'backend'))['read_amount_total'] ?? 0;
    // trusted: nothing is fetched, and the damage is served
    await during(at, config(false), async (daemon, file) => {
      const before = await fetched(daemon);
      assert.ok(readFileSync(file).includes('DAMAGED'));
      assert.equal((await fetched(daemon)) - before, 0);
    });
    await during(at, config(true), async (daemon, file) => {
      assert.ok(readFileSync(file).equals(at.data));
      assert.ok((await fetched(daemon)) >= CHUNK);
    });
    // and it is whole again
    assert.equal(readFileSync(cached).includes('DAMAGED'), false);
  },
);

test('digest_validate: a damaged blob is EIO whether it is asked for or not', { skip }, async (t) => {
  const at = image(t, '5');
  const fd = openSync(at.blob, 'r+');
  writeSync(fd, 'DAMAGED', 3 * CHUNK + 100);
  closeSync(fd);
  for (const validate of [true, false]) {
    const config = localConfig(at.blobs, join(at.dir, `cache-${validate}`), { digest_validate: validate });
    await during(at, config, async (daemon, file) => {
      assert.throws(() => readFileSync(file), { code: 'EIO' });
      const open = openSync(file, 'r');
      const piece = Buffer.alloc(CHUNK);
      assert.equal(readSync(open, piece, 0, CHUNK, 10 * CHUNK), CHUNK);
      closeSync(open);
      assert.ok(piece.equals(at.data.subarray(10 * CHUNK, 11 * CHUNK)));
      await daemon.stop();
      assert.match(daemon.log, /ERROR .*blob [0-9a-f]{64}: chunk 3: /);
    });
  }
});
