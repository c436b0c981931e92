// What every backend must do. A new backend starts by passing this.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AfterHook } from '../support/temporary.ts';
import type { Backend } from '../../src/storage/backend/backend.ts';
import { sampleData } from './make-image.ts';

/** The blob every backend of the suite holds under this id. */
export const SUITE_BLOB_ID = 'a'.repeat(64);
export const SUITE_BLOB = sampleData(300_000, 5);

/**
 * @param make a backend that holds SUITE_BLOB under SUITE_BLOB_ID and nothing else
 */
export function backendSuite(name: string, make: (t: AfterHook) => Backend | Promise<Backend>): void {
  test(`${name}: size and ranges of a blob`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    assert.equal(reader.blobId, SUITE_BLOB_ID);
    assert.equal(await reader.size(), SUITE_BLOB.length);
    for (const [offset, length] of [
      [0, 1],
      [0, 300_000],
      [4095, 65_537],
      [299_999, 1],
    ] as const) {
      assert.deepEqual(
        Buffer.from(await reader.read(offset, length)),
        SUITE_BLOB.subarray(offset, offset + length),
      );
    }
    await backend.close();
  });

  test(`${name}: a range over the end is cut there`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    assert.deepEqual(Buffer.from(await reader.read(299_990, 100)), SUITE_BLOB.subarray(299_990));
    assert.equal((await reader.read(400_000, 100)).length, 0);
    await backend.close();
  });

  test(`${name}: reads of one blob at the same time`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    const parts = await Promise.all(Array.from({ length: 30 }, (_, i) => reader.read(i * 10_000, 10_000)));
    assert.ok(Buffer.concat(parts).equals(SUITE_BLOB));
    await backend.close();
  });

  test(`${name}: a blob that is not there is a BackendError`, async (t) => {
    const backend = await make(t);
    await assert.rejects(async () => (await backend.open('b'.repeat(64))).size(), {
      code: 'ERR_NYDUS_BACKEND',
      errno: 'EIO',
    });
    await backend.close();
  });

  test(`${name}: an aborted read rejects with the reason`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    const reason = new Error('enough');
    await assert.rejects(reader.read(0, 10, AbortSignal.abort(reason)), reason);
    await backend.close();
  });

  test(`${name}: reads are counted by size`, async (t) => {
    const backend = await make(t);
    const reader = await backend.open(SUITE_BLOB_ID);
    await reader.read(0, 1000);
    await reader.read(0, 4096);
    await reader.read(0, 200_000);
    const metrics = backend.meter.metrics(backend.type);
    assert.equal(metrics.backend_type, backend.type);
    assert.equal(metrics.read_count, 3);
    assert.equal(metrics.read_errors, 0);
    assert.equal(metrics.read_amount_total, 205_096);
    assert.deepEqual(metrics.read_count_block_size_dist, [1, 0, 1, 0, 0, 1, 0, 0]);
    assert.equal(
      metrics.read_latency_sizes_dist.flat().reduce((sum, count) => sum + count, 0),
      3,
    );
    await backend.close();
  });
}
