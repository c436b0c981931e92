// Entry of the thread that reads pre-content events; bundled as event-worker.js beside nydusd.js.
import { parentPort, workerData } from 'node:worker_threads';
import { EventLoop } from './event-loop.ts';
import type { FeedStart } from './feed-messages.ts';

if (parentPort !== null) new EventLoop(workerData as FeedStart, parentPort).run();
