// Entry of a pool worker: takes jobs, gives the buffers back. Bundled beside nydus-image.js as pool-worker.js.
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../base/errors.ts';
import { JobRunner, type Job, type JobSettings } from './pool-job.ts';

/** Answer to one job. */
export interface PoolReply {
  buffer?: ArrayBuffer;
  error?: string;
}

const port = parentPort;
if (port !== null) {
  const runner = new JobRunner(workerData as JobSettings);
  port.on('message', (job: Job) => {
    try {
      runner.run(job);
      port.postMessage({ buffer: job.buffer } satisfies PoolReply, [job.buffer]);
    } catch (error) {
      port.postMessage({ error: messageOf(error) } satisfies PoolReply);
    }
  });
}
