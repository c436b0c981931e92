// Bits reach the map file after the data was flushed, not before; what cannot be flushed stays unpublished.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { collectingLogger } from '../../../test/conformance/cache-suite.ts';
import { tempDir } from '../../../test/support/temporary.ts';
import { ChunkMap } from './chunk-map.ts';
import { DataFile } from './data-file.ts';
import { Publisher } from './publisher.ts';

const COUNT = 20;
const LATER_MS = 3_600_000;

interface Opened {
  map: ChunkMap;
  data: DataFile;
  lines: string[];
  publisher: Publisher;
  /** chunks whose bit is in the file */
  inFile(): number[];
}

function open(t: TestContext, millis: number): Opened {
  const dir = tempDir(t);
  const map = ChunkMap.open(join(dir, 'map'), COUNT);
  const data = DataFile.open(join(dir, 'data'), 100_000);
  t.after(() => {
    map.close();
    data.close();
  });
  const lines: string[] = [];
  const publisher = new Publisher(map, data, millis, collectingLogger(lines));
  const all = Array.from({ length: COUNT }, (_, i) => i);
  return { map, data, lines, publisher, inFile: () => all.filter((index) => map.isReadyInFile(index)) };
}

test('Publisher: a bit is in the file once its data was flushed', async (t) => {
  const { publisher, inFile, map } = open(t, LATER_MS);
  publisher.add(3, 1000);
  publisher.add(17, 1000);
  map.mark(3);
  publisher.schedule();
  assert.deepEqual(inFile(), []);
  const publishing = publisher.publish();
  // written while the flush was under way: perhaps not flushed by it
  publisher.add(5, 1000);
  assert.deepEqual(inFile(), []);
  await publishing;
  assert.deepEqual(inFile(), [3, 17]);
  publisher.stop();
  await publisher.finish();
  assert.deepEqual(inFile(), [3, 5, 17]);
});

test('Publisher: publishes by itself after its time, and at once when much has come together', async (t) => {
  const bytes = 2 ** 30;
  for (const [millis, size] of [
    [1, 1],
    [LATER_MS, bytes],
  ] as const) {
    const { publisher, inFile } = open(t, millis);
    publisher.add(9, size);
    publisher.schedule();
    while (inFile().length === 0) await new Promise((resolve) => void setTimeout(resolve, 2));
    assert.deepEqual(inFile(), [9]);
    publisher.stop();
    await publisher.finish();
  }
});

test('Publisher: data that cannot be flushed is not published, with a warning', async (t) => {
  const { publisher, inFile, data, lines } = open(t, LATER_MS);
  publisher.add(1, 10);
  data.close();
  await publisher.publish();
  assert.deepEqual(inFile(), []);
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? '',
    /^warn cannot flush .*\/data: EBADF.*; its new chunks are fetched again next time$/,
  );
});
