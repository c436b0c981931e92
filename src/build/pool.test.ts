import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../../test/support/golden.ts';
import { crc32c } from '../codec/crc32c.ts';
import { digestOf } from '../codec/digest.ts';
import { jobData, JobRecords, newJobBuffer, type JobSettings } from './pool-job.ts';
import { WorkerPool } from './pool.ts';

const SETTINGS: JobSettings = { chunkSize: 4096, compressor: 'lz4_block', digester: 'blake3', batchLimit: 0 };

/** Runs `count` jobs of two pieces each, all at a time; the records and stored bytes of each. */
async function runJobs(pool: WorkerPool, paths: readonly string[]): Promise<string[]> {
  const jobs = paths.map(async (path) => {
    const names = Buffer.from(`${path}\0${path}\0`);
    const bytes = new Uint8Array(names.length);
    bytes.set(names);
    const pieces = Float64Array.of(0, 8192, 10_000, 8192, 1808, 10_000);
    const buffer = await pool.run({ buffer: newJobBuffer(4096), pieces, paths: bytes });
    const records = new JobRecords(buffer);
    let at = 0;
    const lines = [0, 1, 2].map((i) => {
      const stored = jobData(buffer).subarray(at, at + records.stored(i));
      at += records.stored(i);
      const digest = Buffer.from(records.digest(i)).toString('hex');
      return `${digest} ${records.crc32(i)} ${Buffer.from(stored).toString('hex')}`;
    });
    return lines.join('\n');
  });
  return Promise.all(jobs);
}

function sampleFiles(): string[] {
  const dir = tempDir();
  return Array.from({ length: 12 }, (_, i) => {
    const path = join(dir, `file${i}`);
    writeFileSync(path, Buffer.concat([Buffer.alloc(5000, i), randomBytes(5000)]));
    return path;
  });
}

test('WorkerPool: one worker, three workers and none give the same bytes', async () => {
  const paths = sampleFiles();
  const results: string[][] = [];
  for (const threads of [1, 3]) {
    const pool = new WorkerPool(SETTINGS, threads);
    pool.start();
    results.push(await runJobs(pool, paths));
    await pool.close();
  }
  const inline = new WorkerPool(SETTINGS, 2);
  results.push(await runJobs(inline, paths));
  await inline.close();
  assert.deepEqual(results[0], results[2]);
  assert.deepEqual(results[1], results[2]);
});

test('WorkerPool: digest and CRC are of the uncompressed chunk, data without gain is stored raw', async () => {
  const path = join(tempDir(), 'random');
  const data = randomBytes(4096);
  writeFileSync(path, data);
  const pool = new WorkerPool(SETTINGS, 1);
  const names = Uint8Array.from(Buffer.from(`${path}\0`));
  const buffer = await pool.run({
    buffer: newJobBuffer(4096),
    pieces: Float64Array.of(0, 4096, 4096),
    paths: names,
  });
  const records = new JobRecords(buffer);
  assert.equal(records.stored(0), 4096);
  assert.equal(records.crc32(0), crc32c(data));
  assert.deepEqual(Buffer.from(records.digest(0)), digestOf('blake3', data));
  assert.ok(data.equals(jobData(buffer).subarray(0, 4096)));
  await pool.close();
});

test('WorkerPool: a file that cannot be read rejects its own job, the others go on', async () => {
  const [good = ''] = sampleFiles();
  const pool = new WorkerPool(SETTINGS, 2);
  pool.start();
  const bad = runJobs(pool, ['/nonexistent/file']);
  const fine = runJobs(pool, [good]);
  await assert.rejects(bad, /cannot read "\/nonexistent\/file": ENOENT/);
  assert.equal((await fine).length, 1);
  await pool.close();
});

test('WorkerPool: after abort jobs under way and later ones are rejected with the reason', async () => {
  const pool = new WorkerPool(SETTINGS, 1);
  pool.start();
  const underWay = runJobs(pool, sampleFiles());
  pool.abort(new Error('stop it'));
  await assert.rejects(underWay, /stop it/);
  await assert.rejects(runJobs(pool, ['/etc/hostname']), /stop it/);
  await pool.close();
});
