// An image over a server whose bodies stall or drip in the middle: it is read to its end with patience that is far shorter than the
// time-out of a request, and what comes the second way is verified like everything else.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { collectingLogger, readWhole } from '../../test/conformance/cache-suite.ts';
import { instanceConfig } from '../../test/conformance/instance-config.ts';
import { makeImage, sampleData } from '../../test/conformance/make-image.ts';
import { BlobServer, serveRange, stallAfter, type Answer } from '../../test/support/blob-server.ts';
import { tempDir } from '../../test/support/temporary.ts';
import { RafsInstance } from '../rafs/instance.ts';

const CHUNK = 65536;
const COUNT = 90;
const DATA = sampleData(COUNT * CHUNK, 31);

for (const version of [5, 6] as const) {
  test(`v${version}: bodies that stall and drip, second answers with a flipped bit: right bytes, long before the time-out`, async (t) => {
    const dir = tempDir(t);
    const image = makeImage(dir, [{ name: 'big', data: DATA }], { version, compressor: 'none' });
    const blob = readFileSync(join(image.blobDir, image.blobId));
    const server = await BlobServer.start(t, { find: () => blob });
    const lines: string[] = [];
    const workDir = join(dir, 'cache');
    const config = {
      ...instanceConfig({ blobDir: image.blobDir, workDir, rafs: { batch_size: 0 } }),
      backend: {
        type: 'http-proxy' as const,
        localfs: null,
        localdisk: null,
        oss: null,
        s3: null,
        registry: null,
        // a request that is only given up would hold the test for an hour
        'http-proxy': { addr: `http://${server.host}`, retry_limit: 0, timeout: 3600 },
      },
    };
    const open = (): Promise<RafsInstance> =>
      RafsInstance.open({
        bootstrap: image.bootstrap,
        id: 'stalls',
        logger: collectingLogger(lines),
        config,
        decodeThreads: 0,
      });
    const instance = await open();
    const ino = instance.image.lookup(instance.image.rootIno, Buffer.from('big'));
    const target = Buffer.alloc(CHUNK);
    const readChunk = async (index: number): Promise<void> => {
      await instance.read(ino, index * CHUNK, CHUNK, target);
      assert.ok(target.equals(DATA.subarray(index * CHUNK, (index + 1) * CHUNK)), `chunk ${index}`);
    };
    const order = Array.from({ length: COUNT }, (_, i) => (i * 37) % COUNT);
    for (const index of order.slice(0, 30)) await readChunk(index);
    const flipped: Answer = (request, response) => {
      const damaged = Buffer.from(blob);
      for (let at = 0; at < damaged.length; at += CHUNK)
        damaged[at + 50_000] = (damaged[at + 50_000] ?? 0) ^ 4;
      serveRange(request, response, damaged);
    };
    const { hedge } = instance.metrics().backend;
    assert.deepEqual(hedge, { requests: 0, wins: 0 });
    server.faults.push(stallAfter(blob, 30_000));
    await readChunk(order[30] ?? 0);
    for (const index of order.slice(31, 55)) await readChunk(index);
    server.faults.push(stallAfter(blob, 100, 2), flipped);
    await readChunk(order[55] ?? 0);
    assert.equal(lines.filter((line) => /arrived damaged .* the second fetch is good/.test(line)).length, 1);
    assert.deepEqual(instance.metrics().backend.hedge, { requests: 2, wins: 2 });
    assert.ok((await readWhole(instance, '/big')).equals(DATA));
    await instance.close();
    // and what was kept is right, without a server
    await server.down();
    const again = await open();
    assert.ok((await readWhole(again, '/big')).equals(DATA));
    await again.close();
  });
}
