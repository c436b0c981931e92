// A worker of the garbage collection test: reads what is local as a driver does, without asking, and compares every byte. What is
// missing it asks the main thread to fetch.
import { parentPort, workerData } from 'node:worker_threads';
import { LocalReader, MISS, type InstanceShare } from '../../src/rafs/local-reader.ts';
import { resolvePath } from '../../src/rafs/path.ts';

const { share, data, seed } = workerData as { share: InstanceShare; data: Uint8Array; seed: number };
const reader = new LocalReader(share);
const ino = resolvePath(reader.image, '/big');
const target = Buffer.alloc(200_000);
const counts = { local: 0, missed: 0, wrong: 0 };
let random = seed;
let stopped = false;
let answered = (): void => {};

async function readOn(): Promise<void> {
  while (!stopped) {
    for (let i = 0; i < 50; i++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const at = random % (data.length - 1);
      const size = Math.min(1 + ((random >>> 8) % target.length), data.length - at);
      const got = reader.read(ino, at, size, target, 0);
      if (got === MISS) {
        counts.missed++;
        // a reader waits for what it misses
        const answer = new Promise<void>((resolve) => (answered = resolve));
        parentPort?.postMessage({ fetch: at });
        await answer;
        break;
      }
      counts.local++;
      if (got !== size || Buffer.compare(target.subarray(0, size), data.subarray(at, at + size)) !== 0)
        counts.wrong++;
    }
    await new Promise((resolve) => void setImmediate(resolve));
  }
  parentPort?.postMessage({ counts });
}

parentPort?.on('message', (message) => {
  if (message === 'stop') stopped = true;
  answered();
});
void readOn().finally(() => parentPort?.close());
