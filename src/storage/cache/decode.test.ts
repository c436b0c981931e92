// Jobs: what passes its check is written and marked ready, what does not is neither written, marked nor given back.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { test } from 'node:test';
import { crc32c } from '../../codec/crc32c.ts';
import { digestOf } from '../../codec/digest.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { ChunkOutcome, DecodeScratch, runDecode, type DecodeJob } from './decode.ts';
import { makeJob, openContent, patterned, readyIndexes, type JobChunk } from './testing/decode-job.ts';
import { closeSync, openSync } from 'node:fs';

const { EBADF, EISDIR } = constants.errno;
const { bad, cached, decoded } = ChunkOutcome;

const run = (job: DecodeJob): ReturnType<typeof runDecode> => runDecode(job, new DecodeScratch());

/** Three chunks one after the other, each at a block boundary of the data file. */
function threeChunks(): [JobChunk, JobChunk, JobChunk] {
  return [
    { index: 3, plain: patterned(5000, 'a'), plainOffset: 0 },
    { index: 4, plain: patterned(4096, 'b'), plainOffset: 8192, wanted: true },
    { index: 5, plain: patterned(100, 'c'), plainOffset: 12288, wanted: true },
  ];
}

function dataFileOf(chunks: readonly JobChunk[], size: number, fill = 0): Buffer {
  const out = Buffer.alloc(size, fill);
  for (const { plain, plainOffset } of chunks) out.set(plain, plainOffset);
  return out;
}

for (const compressor of ['none', 'lz4_block', 'zstd', 'gzip'] as const) {
  test(`runDecode ${compressor}: chunks are written to their places with zeros between them, and marked ready`, (t) => {
    const chunks = threeChunks();
    const { fd, path } = openContent(t, Buffer.alloc(16384));
    const job = makeJob(chunks, compressor, { target: 'plain', dataFd: fd });
    const result = run(job);
    assert.deepEqual([...result.outcomes], [cached, cached, cached]);
    assert.deepEqual(result.failures, []);
    assert.equal(result.got, job.length);
    assert.equal(result.plainBytes, 5000 + 4096 + 100);
    assert.equal(result.writeErrno, 0);
    assert.deepEqual(readyIndexes(job.ready), [3, 4, 5]);
    assert.ok(readFileSync(path).equals(dataFileOf(chunks, 16384)));
  });
}

test('runDecode: bytes are read from a descriptor at the offset of the job', (t) => {
  const chunks = threeChunks();
  const job = makeJob(chunks, 'zstd');
  const stored = job.stored ?? new Uint8Array(0);
  const { fd } = openContent(t, Buffer.concat([Buffer.alloc(777, 0xff), stored, Buffer.alloc(50, 0xff)]));
  const result = run({ ...job, stored: undefined, sourceFd: fd, offset: 777 });
  assert.equal(result.got, job.length);
  assert.deepEqual([...result.outcomes], [decoded, decoded, decoded]);
  assert.deepEqual([...result.plain.keys()], [4, 5], 'only wanted chunks come back');
  assert.deepEqual(Buffer.from(result.plain.get(4) ?? []), chunks[1].plain);
  assert.deepEqual(readyIndexes(job.ready), [], 'nothing was written, nothing is ready');
});

test('runDecode: a chunk with another digest is neither written nor marked nor returned, its neighbours are', (t) => {
  const chunks = threeChunks();
  const expected = digestOf('blake3', Buffer.from('something else'));
  chunks[1].digest = expected;
  const { fd, path } = openContent(t, Buffer.alloc(16384, 0x55));
  const job = makeJob(chunks, 'lz4_block', { target: 'plain', dataFd: fd });
  const result = run(job);
  assert.deepEqual([...result.outcomes], [cached, bad, cached]);
  const got = digestOf('blake3', chunks[1].plain).toString('hex');
  assert.deepEqual(result.failures, [
    { index: 4, problem: `digest ${got}, expected ${expected.toString('hex')}` },
  ]);
  assert.deepEqual(readyIndexes(job.ready), [3, 5]);
  assert.ok(!result.plain.has(4));
  assert.ok(readFileSync(path).equals(dataFileOf([chunks[0], chunks[2]], 16384, 0x55)));
});

test('runDecode: in memory, too, a chunk with another digest does not come back', () => {
  const chunks = threeChunks();
  chunks[2].digest = new Uint8Array(32).fill(1);
  const result = run(makeJob(chunks, 'zstd'));
  assert.deepEqual([...result.outcomes], [decoded, decoded, bad]);
  assert.deepEqual([...result.plain.keys()], [4]);
});

test('runDecode: without a digest the CRC decides, with one it is not asked', () => {
  const chunks = threeChunks();
  chunks[0].digest = null;
  chunks[0].crc = crc32c(chunks[0].plain);
  chunks[1].digest = null;
  chunks[1].crc = 0x1234;
  chunks[2].crc = 0x1234;
  const result = run(makeJob(chunks, 'zstd'));
  assert.deepEqual([...result.outcomes], [decoded, bad, decoded]);
  const got = crc32c(chunks[1].plain).toString(16);
  assert.deepEqual(result.failures, [{ index: 4, problem: `crc ${got}, expected 1234` }]);
});

test('runDecode: stored bytes that do not decode are a failure of that chunk alone', () => {
  const chunks = threeChunks();
  chunks[1].stored = Buffer.alloc(40, 0xff);
  const result = run(makeJob(chunks, 'zstd'));
  assert.deepEqual([...result.outcomes], [decoded, bad, decoded]);
  assert.match(result.failures[0]?.problem ?? '', /^zstd: cannot decompress 40 bytes to 4096/);
});

test('runDecode: a blob that ends early has the chunks in front of its end', () => {
  const chunks = threeChunks();
  const job = makeJob(chunks, 'none', { offset: 1000 });
  const result = run({ ...job, stored: (job.stored ?? new Uint8Array(0)).subarray(0, 9000) });
  assert.equal(result.got, 9000);
  assert.deepEqual([...result.outcomes], [decoded, bad, bad]);
  assert.deepEqual(result.failures[0], {
    index: 4,
    problem: 'needs 4096 bytes at 6000, the blob ends at 10000',
  });
});

test('runDecode: a source that cannot be read gives minus the errno and touches nothing', (t) => {
  const dir = openSync(tempDir(t), 'r');
  t.after(() => closeSync(dir));
  for (const [sourceFd, errno] of [
    [-1, EBADF],
    [dir, EISDIR],
  ] as const) {
    const job = makeJob(threeChunks(), 'none', { sourceFd });
    const result = run({ ...job, stored: undefined });
    assert.equal(result.got, -errno);
    assert.deepEqual([...result.outcomes], [bad, bad, bad]);
    assert.deepEqual(result.failures, []);
    assert.equal(result.plain.size, 0);
  }
});

test('runDecode: a data file that cannot be written leaves nothing ready, wanted chunks come back all the same', (t) => {
  const chunks = threeChunks();
  const { fd, path } = openContent(t, Buffer.alloc(16384), 'r');
  const job = makeJob(chunks, 'zstd', { target: 'plain', dataFd: fd });
  const result = run(job);
  assert.equal(result.writeErrno, EBADF);
  assert.deepEqual([...result.outcomes], [decoded, decoded, decoded]);
  assert.deepEqual(readyIndexes(job.ready), []);
  assert.deepEqual(Buffer.from(result.plain.get(4) ?? []), chunks[1].plain);
  assert.deepEqual(Buffer.from(result.plain.get(5) ?? []), chunks[2].plain);
  assert.ok(readFileSync(path).equals(Buffer.alloc(16384)));
});

test('runDecode: what lies between chunks that are not neighbours stays as it is', (t) => {
  const [first, , third] = threeChunks();
  const { fd, path } = openContent(t, Buffer.alloc(16384, 0x77));
  const job = makeJob([first, third], 'zstd', { target: 'plain', dataFd: fd });
  run(job);
  assert.ok(readFileSync(path).equals(dataFileOf([first, third], 16384, 0x77)));
  assert.deepEqual(readyIndexes(job.ready), [3, 5]);
});

test('runDecode: chunks of one batch are taken out of it', (t) => {
  const unit = Buffer.concat([patterned(3000, 'x'), patterned(2000, 'y'), patterned(500, 'z')]);
  const chunks: JobChunk[] = [
    { index: 0, plain: unit.subarray(0, 3000), plainOffset: 0, batch: { unit, offset: 0 } },
    { index: 1, plain: unit.subarray(3000, 5000), plainOffset: 4096, batch: { unit, offset: 3000 } },
    { index: 2, plain: unit.subarray(5000), plainOffset: 8192, batch: { unit, offset: 5000 }, wanted: true },
  ];
  const { fd, path } = openContent(t, Buffer.alloc(12288));
  const job = makeJob(chunks, 'lz4_block', { target: 'plain', dataFd: fd });
  assert.deepEqual([...run(job).outcomes], [cached, cached, cached]);
  assert.ok(readFileSync(path).equals(dataFileOf(chunks, 12288)));
});

test('runDecode raw: stored bytes go to their place in the blob, wanted chunks come back decoded', (t) => {
  const chunks = threeChunks();
  chunks[0].digest = new Uint8Array(32).fill(9);
  const { fd, path } = openContent(t, Buffer.alloc(4000));
  const job = makeJob(chunks, 'zstd', { target: 'raw', dataFd: fd, offset: 500 });
  const result = run(job);
  assert.deepEqual([...result.outcomes], [bad, cached, cached]);
  assert.deepEqual(Buffer.from(result.plain.get(4) ?? []), chunks[1].plain);
  assert.deepEqual(readyIndexes(job.ready), [4, 5]);
  const stored = Buffer.from(job.stored ?? []);
  const failed = job.layout[2] ?? 0; // stored size of the first chunk
  const expected = Buffer.alloc(4000);
  stored.copy(expected, 500 + failed, failed);
  assert.ok(readFileSync(path).equals(expected));
});

test('DecodeScratch: buffers are kept and grow, released ones start anew', () => {
  const scratch = new DecodeScratch();
  const first = scratch.run(100);
  assert.equal(scratch.run(100), first);
  assert.ok(scratch.run(first.length + 1).length > first.length);
  assert.ok(scratch.source(3_000_000).length >= 3_000_000);
  assert.ok(scratch.unit(77).length >= 77);
  scratch.release();
  assert.notEqual(scratch.run(100), first);
});
