// Entry of the thread that serves blobs as flat files; bundled as flat-worker.js beside nydusd.js.
import { parentPort, workerData } from 'node:worker_threads';
import type { FlatStart } from './feed-messages.ts';
import { FlatLoop } from './flat-loop.ts';

if (parentPort !== null) new FlatLoop(workerData as FlatStart, parentPort).run();
