// A worker thread is started before it is known what it will serve: starting one takes as long as all that the daemon does until it
// mounts, and goes on beside it on another CPU. This file is loaded early, so it loads next to nothing.
import { Worker } from 'node:worker_threads';
import { withUsualPriority } from '../../base/thread-priority.ts';

/**
 * Room for short-lived objects of a worker's heap. It makes next to none per request; with the default (48 MB) what it does make
 * stays resident (measured: 2 MB less per thread after a walk over 100,000 inodes).
 */
const YOUNG_MB = 2;

let spare: Worker | undefined;

/** Where the worker program lies: beside the source, or beside the bundle. */
function workerUrl(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './fuse-worker.js', import.meta.url);
}

function startWorker(): Worker {
  const options = { name: 'fuse', resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB } };
  return withUsualPriority(() => new Worker(workerUrl(), options));
}

/** Start a worker that waits for its WorkerStart. It does not keep the process from ending. */
export function startSpareWorker(): void {
  if (spare !== undefined) return;
  spare = startWorker();
  spare.on('error', forget); // who takes another instead sees why
  spare.unref();
}

const forget = (): void => {
  spare = undefined;
};

/** The spare worker if there is one, else a new one. It waits for a WorkerStart, its first message. */
export function takeWorker(): Worker {
  const worker = spare;
  if (worker === undefined) return startWorker();
  spare = undefined;
  worker.off('error', forget);
  worker.ref();
  return worker;
}

/** No worker is needed, after all. */
export async function dropSpareWorker(): Promise<void> {
  const worker = spare;
  spare = undefined;
  await worker?.terminate();
}
