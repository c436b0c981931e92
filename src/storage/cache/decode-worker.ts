// Entry of a decode thread: takes jobs from the pool, one at a time, and answers with their results.
import { parentPort } from 'node:worker_threads';
import { runDecode, DecodeScratch, type DecodeJob, type DecodeResult } from './decode.ts';

/** Message to a decode thread. */
export interface DecodeRequest {
  id: number;
  job: DecodeJob;
}

/** Its answer; `error` when the job could not run at all. */
export interface DecodeReply {
  id: number;
  result: DecodeResult | undefined;
  error: string | undefined;
}

const port = parentPort;
if (port !== null) {
  const scratch = new DecodeScratch();
  port.on('message', ({ id, job }: DecodeRequest) => {
    let reply: DecodeReply;
    try {
      reply = { id, result: runDecode(job, scratch), error: undefined };
    } catch (error) {
      reply = {
        id,
        result: undefined,
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      };
    }
    const transfer = [...(reply.result?.plain.values() ?? [])].map((bytes) => bytes.buffer as ArrayBuffer);
    port.postMessage(reply, transfer);
  });
  port.postMessage({ id: 0, result: undefined, error: undefined } satisfies DecodeReply);
}
