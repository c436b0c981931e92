// Entry of a FUSE worker thread; bundled as fuse-worker.js beside nydusd.js. The first message says what to serve.
import { parentPort, type MessagePort } from 'node:worker_threads';
import { LocalReader, type InstanceShare } from '../../rafs/local-reader.ts';
import type { WorkerStart } from './thread-messages.ts';
import { WorkerLoop } from './worker-loop.ts';

function serve(port: MessagePort, start: WorkerStart): void {
  new WorkerLoop(start, port, (share) => new LocalReader(share as InstanceShare)).run();
}

if (parentPort !== null) {
  const port = parentPort;
  port.once('message', (start: WorkerStart) => serve(port, start));
}
