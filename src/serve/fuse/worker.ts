// Entry of a FUSE worker thread; bundled as fuse-worker.js beside nydusd.js.
import { parentPort, workerData } from 'node:worker_threads';
import { LocalReader, type InstanceShare } from '../../rafs/local-reader.ts';
import type { WorkerStart } from './thread-messages.ts';
import { WorkerLoop } from './worker-loop.ts';

if (parentPort !== null) {
  new WorkerLoop(
    workerData as WorkerStart,
    parentPort,
    (share) => new LocalReader(share as InstanceShare),
  ).run();
}
