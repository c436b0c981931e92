// Entry of a pool worker: takes jobs, gives the buffers back. Bundled beside nydus-image.js as pool-worker.js.
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../base/errors.ts';
import { inflateJob, type InflateDone, type InflateJob } from './inflate-job.ts';
import { JobRunner, type Job, type JobSettings } from './pool-job.ts';

/** What a worker is sent. */
export type PoolTask = Job | { inflate: InflateJob };

/** Answer to one task. */
export interface PoolReply {
  buffer?: ArrayBuffer;
  inflated?: InflateDone;
  error?: string;
}

const port = parentPort;
if (port !== null) {
  const runner = new JobRunner(workerData as JobSettings);
  port.on('message', (task: PoolTask) => {
    try {
      if ('inflate' in task) {
        const inflated = inflateJob(task.inflate);
        port.postMessage({ inflated } satisfies PoolReply, [inflated.input, inflated.output]);
      } else {
        runner.run(task);
        port.postMessage({ buffer: task.buffer } satisfies PoolReply, [task.buffer]);
      }
    } catch (error) {
      port.postMessage({ error: messageOf(error) } satisfies PoolReply);
    }
  });
}
