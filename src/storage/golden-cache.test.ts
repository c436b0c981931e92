// Cache directories of upstream daemons: what they say is ready is used and not fetched again, what is missing is fetched,
// the bytes are right; and an empty directory after the same reads has the same chunks. Source: golden/README.md section 4.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
  ftruncateSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { goldenDir, goldenPath, prepareTarInput, skipUnlessGolden } from '../../test/support/golden.ts';
import { nydusImage } from '../../test/support/programs.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { RafsInstance } from '../rafs/instance.ts';
import { resolvePath } from '../rafs/path.ts';
import { silentLogger, type Logger } from '../base/log.ts';
import type { ConfigV2 } from './config.ts';

interface FileState {
  size: number;
  sha256: string;
  ready_chunks?: number[];
  all_ready_field?: string;
  /** null: only size and digest are kept */
  stored_as?: string | null;
}

interface RunState {
  config: {
    device: {
      cache: {
        compressed?: boolean;
        validate?: boolean;
        config: { disable_indexed_map?: boolean; enable_encryption?: boolean };
      };
    };
    amplify_io?: number;
    digest_validate: boolean;
    fs_prefetch?: { enable: boolean; threads_count: number; merging_size: number; prefetch_all: boolean };
  };
  files: Record<string, FileState>;
  image: string;
  reads: { path: string; offset: number; length: number; sha256: string }[] | string;
  metrics_before_stop: {
    backend: { read_amount_total: number };
    blobcache: { prefetch_data_amount: number };
  };
}

/** Runs of kinds that come with later issues (issue 3, section 7). */
const EXEMPT = /^(v6enc-|zran-)/;

/** Images whose blob is not stored, and their inputs: ours is the same to the byte, which its id confirms. */
const REBUILT: Record<string, string> = { 'images/text-v6-none': 'text' };
const rebuilt = new Map<string, string>();

/** The directory with the blobs of a run's image. */
function blobDirOf(image: string): string {
  const stored = join(goldenDir() ?? '', 'cache', image, 'blobs');
  const input = REBUILT[image];
  if (existsSync(stored) || input === undefined) return stored;
  const known = rebuilt.get(image);
  if (known !== undefined) return known;
  const dir = mkdtempSync(join(tmpdir(), 'nydus-test-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  const [tar, blobs] = [join(dir, 'tar'), join(dir, 'blobs')];
  prepareTarInput(input, tar);
  mkdirSync(join(dir, 'tree'));
  assert.equal(spawnSync('tar', ['-xf', tar, '-C', join(dir, 'tree')]).status, 0);
  mkdirSync(blobs);
  const how = ['create', '--fs-version', '6', '--chunk-size', '0x10000', '--compressor', 'none'];
  nydusImage([...how, '--blob-dir', blobs, '-B', join(dir, 'boot'), join(dir, 'tree')]);
  rebuilt.set(image, blobs);
  return blobs;
}

function runs(): string[] {
  const dir = goldenPath('cache');
  if (dir === undefined) return [];
  return readdirSync(dir)
    .filter((name) => existsSync(join(dir, name, 'state.json')) && !EXEMPT.test(name))
    .sort();
}

function readState(name: string): RunState {
  return JSON.parse(readFileSync(join(goldenDir() ?? '', 'cache', name, 'state.json'), 'utf8')) as RunState;
}

function readyIn(path: string, size: number): number[] {
  const bytes = readFileSync(path);
  const out: number[] = [];
  for (let i = 0; i < (size - 4096) * 8; i++)
    if (((bytes[4096 + (i >> 3)] ?? 0) & (0x80 >> (i & 7))) !== 0) out.push(i);
  return out;
}

/** Put a run's directory back: small files are stored as they are, data files once and gzipped. */
function recreate(name: string, state: RunState, target: string): void {
  for (const [file, facts] of Object.entries(state.files)) {
    const small = join(goldenDir() ?? '', 'cache', name, file);
    if (existsSync(small)) {
      copyFileSync(small, join(target, file));
      continue;
    }
    const data = gunzipSync(readFileSync(join(goldenDir() ?? '', facts.stored_as ?? '')));
    assert.equal(createHash('sha256').update(data).digest('hex'), facts.sha256);
    const fd = openSync(join(target, file), 'w');
    ftruncateSync(fd, facts.size);
    writeSync(fd, data);
    closeSync(fd);
  }
}

/** The amp runs keep no data. */
function hasData(name: string, state: RunState): boolean {
  return Object.entries(state.files).every(
    ([file, { stored_as: stored }]) =>
      existsSync(join(goldenDir() ?? '', 'cache', name, file)) ||
      (typeof stored === 'string' && existsSync(join(goldenDir() ?? '', stored))),
  );
}

function configOf(state: RunState, workDir: string): ConfigV2 {
  const { device, amplify_io, digest_validate, fs_prefetch } = state.config;
  return instanceConfig({
    blobDir: blobDirOf(state.image),
    workDir,
    cache: { compressed: device.cache.compressed === true, validate: device.cache.validate === true },
    filecache: device.cache.config,
    rafs: { batch_size: amplify_io ?? 1048576, validate: digest_validate },
    ...(fs_prefetch === undefined
      ? {}
      : {
          prefetch: {
            enable: fs_prefetch.enable,
            threads: fs_prefetch.threads_count,
            batch_size: fs_prefetch.merging_size,
            prefetch_all: fs_prefetch.prefetch_all,
          },
        }),
  });
}

async function openRun(
  state: RunState,
  workDir: string,
  logger: Logger = silentLogger,
): Promise<RafsInstance> {
  const bootstrap = join(goldenDir() ?? '', 'cache', state.image, 'bootstrap');
  return RafsInstance.open({
    bootstrap,
    id: 'golden',
    logger,
    config: configOf(state, workDir),
    decodeThreads: 0,
  });
}

/** Read as the kernel does: whole pages. */
async function readPages(
  instance: RafsInstance,
  read: { path: string; offset: number; length: number },
): Promise<Buffer> {
  const ino = resolvePath(instance.image, read.path);
  const start = Math.floor(read.offset / 4096) * 4096;
  const size = Math.ceil((read.offset + read.length - start) / 4096) * 4096;
  const target = Buffer.alloc(size);
  const got = await instance.read(ino, start, size, target);
  return target.subarray(read.offset - start, Math.min(got, read.offset - start + read.length));
}

function mapOf(state: RunState): [string, FileState] | undefined {
  return Object.entries(state.files).find(([file]) => file.endsWith('.chunk_map'));
}

if (runs().length === 0) test('golden cache', { skip: skipUnlessGolden('cache') }, () => {});

for (const name of runs()) {
  const state = readState(name);
  const { reads } = state;

  if (Array.isArray(reads)) {
    test(`golden cache ${name}: the same reads make the same chunks ready`, async (t) => {
      const dir = tempDir(t);
      const instance = await openRun(state, dir);
      for (const read of reads) {
        const bytes = await readPages(instance, read);
        assert.equal(createHash('sha256').update(bytes).digest('hex'), read.sha256, read.path);
      }
      const { backend } = instance.metrics();
      await instance.close();
      assert.deepEqual(readdirSync(dir).sort(), Object.keys(state.files).sort());
      for (const [file, facts] of Object.entries(state.files)) {
        assert.equal(statSync(join(dir, file)).size, facts.size, file);
        if (facts.ready_chunks !== undefined)
          assert.deepEqual(readyIn(join(dir, file), facts.size), facts.ready_chunks);
        if (typeof facts.stored_as === 'string' || /\.(meta|digest|toc)$/.test(file)) {
          assert.equal(
            createHash('sha256')
              .update(readFileSync(join(dir, file)))
              .digest('hex'),
            facts.sha256,
            file,
          );
        }
      }
      // the amp runs of v6 were ended before upstream had counted everything
      assert.equal(backend.read_amount_total, state.metrics_before_stop.backend.read_amount_total);
    });
  }

  if (!hasData(name, state)) continue;
  test(`golden cache ${name}: its directory is adopted, ready chunks are not fetched again`, async (t) => {
    const dir = tempDir(t);
    recreate(name, state, dir);
    const [mapFile, map] = mapOf(state) ?? ['', undefined];
    const instance = await openRun(state, dir);
    const { image } = instance;
    const ready = new Set(map?.ready_chunks ?? []);
    const blobDir = blobDirOf(state.image);
    assert.ok(readdirSync(blobDir).length > 0);
    const before = instance.metrics().backend.read_amount_total;
    const ref = {
      blobIndex: 0,
      chunkIndex: 0,
      uncompressedOffset: 0,
      uncompressedSize: 0,
      fileOffset: 0,
      recordOffset: 0,
    };
    const files: number[] = [];
    image.readdir(resolvePath(image, '/d0'), 0, (ino, entry) => {
      if (entry[0] !== 0x2e) files.push(ino);
      return true;
    });
    files.push(resolvePath(image, '/z-large'), resolvePath(image, '/z-random'));
    let local = 0;
    for (const ino of files) {
      for (let position = 0; position < image.chunkCount(ino); position++) {
        image.chunk(ino, position, ref);
        if (!ready.has(ref.chunkIndex)) continue;
        const target = Buffer.alloc(ref.uncompressedSize);
        assert.equal(await instance.read(ino, ref.fileOffset, target.length, target), target.length);
        local++;
      }
    }
    if (ready.size > 0) assert.ok(local > 0);
    assert.equal(instance.metrics().backend.read_amount_total, before, 'a ready chunk was fetched');
    // everything else comes from the backend, and is right
    const fresh = await openRun(state, tempDir(t));
    for (const ino of files) {
      const size = 1 << 20;
      const [ours, expected] = [Buffer.alloc(size), Buffer.alloc(size)];
      assert.equal(await instance.read(ino, 0, size, ours), await fresh.read(ino, 0, size, expected));
      assert.deepEqual(ours, expected);
    }
    await fresh.close();
    await instance.close();
    if (map !== undefined) {
      const after = readyIn(join(dir, mapFile), map.size);
      for (const chunk of ready) assert.ok(after.includes(chunk));
      if (name.endsWith('-full')) {
        assert.equal(
          readFileSync(join(dir, mapFile)).readUInt32LE(12),
          0x4d4d4150,
          'all ready is noted when a full map is opened',
        );
      }
    }
  });

  if (state.config.fs_prefetch?.enable === true) {
    test(`golden cache ${name}: prefetch of everything makes every chunk ready`, async (t) => {
      const dir = tempDir(t);
      const instance = await openRun(state, dir);
      instance.startPrefetch();
      await instance.prefetchFinished;
      const { blobcache } = instance.metrics();
      await instance.close();
      const [mapFile, map] = mapOf(state) ?? ['', undefined];
      assert.ok(map !== undefined);
      assert.deepEqual(readyIn(join(dir, mapFile), map.size), map.ready_chunks);
      assert.equal(blobcache.data_all_ready, true);
      assert.ok(blobcache.prefetch_data_amount >= 174_584);
      assert.ok(blobcache.prefetch_requests_count > 0 && blobcache.prefetch_end_time_secs > 0);
    });
  }
}
