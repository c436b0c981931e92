// Threads that decode, verify and write chunks, so that the main thread stays free and both cores work.
// They start with the first big job and end after some idle time: an idle daemon holds no memory for them.
import { Worker } from 'node:worker_threads';
import { BackendError } from '../../base/errors.ts';
import { withUsualPriority } from '../../base/thread-priority.ts';
import {
  DecodeScratch,
  Layout,
  LAYOUT_FIELDS,
  runDecode,
  type DecodeJob,
  type DecodeResult,
} from './decode.ts';
import type { DecodeReply, DecodeRequest } from './decode-worker.ts';

/** Jobs that yield fewer bytes run on the calling thread: handing one over and back costs about 60 us. */
const SMALL_JOB = 128 * 1024;
/** Id of the first message of a thread, DECODE_READY of the worker. */
const READY_ID = 0;
const IDLE_MS = 10_000;

/** Does a reader wait for a job? It may come to it after the job was queued. */
export type Urgent = () => boolean;

interface Waiting {
  job: DecodeJob;
  urgent: Urgent;
  resolve: (result: DecodeResult) => void;
  reject: (error: unknown) => void;
}

interface Thread {
  worker: Worker;
  /** it has loaded its libraries */
  ready: boolean;
  running: Waiting | undefined;
}

function startWorker(): Worker {
  const name = import.meta.url.endsWith('.ts') ? './decode-worker.ts' : './decode-worker.js';
  const worker = withUsualPriority(() => new Worker(new URL(name, import.meta.url), { name: 'decode' }));
  worker.unref();
  return worker;
}

function plainBytes({ layout }: DecodeJob): number {
  let total = 0;
  for (let at = Layout.plainSize; at < layout.length; at += LAYOUT_FIELDS) total += layout[at] ?? 0;
  return total;
}

export class DecodePool {
  readonly #size: number;
  readonly #threads: Thread[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #scratch = new DecodeScratch();
  #idle: NodeJS.Timeout | undefined;
  #nextId = 1;
  #closed = false;

  /** @param threads how many at most; 0 = decode on the calling thread */
  constructor(threads: number) {
    this.#size = threads;
  }

  /** Jobs that may run at the same time. */
  get width(): number {
    return Math.max(1, this.#size);
  }

  /** Run a job. @param urgent a reader waits for it: before jobs that nobody waits for */
  run(job: DecodeJob, urgent: Urgent): Promise<DecodeResult> {
    if (this.#size === 0 || this.#closed || plainBytes(job) <= SMALL_JOB) return this.#runHere(job);
    if (urgent() && !this.#threads.some(({ ready }) => ready)) {
      // a thread takes 30 ms or more to start: the first reader does not wait for that
      if (this.#threads.length === 0) this.#add();
      return new Promise<void>((resolve) => void setImmediate(resolve)).then(() => this.#runHere(job));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ job, urgent, resolve, reject });
      this.#dispatch();
    });
  }

  async #runHere(job: DecodeJob): Promise<DecodeResult> {
    await Promise.resolve(); // a caller that starts several is not held up by the first
    return runDecode(job, this.#scratch);
  }

  #dispatch(): void {
    while (this.#waiting.length > 0) {
      let thread = this.#threads.find(({ running }) => running === undefined);
      if (thread === undefined) {
        if (this.#threads.length >= this.#size) return;
        thread = this.#add();
      }
      const first = Math.max(
        0,
        this.#waiting.findIndex(({ urgent }) => urgent()),
      );
      const [next] = this.#waiting.splice(first, 1);
      if (next === undefined) return;
      thread.running = next;
      const request: DecodeRequest = { id: this.#nextId++, job: next.job };
      thread.worker.ref();
      thread.worker.postMessage(request);
    }
  }

  #add(): Thread {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    const thread: Thread = { worker: startWorker(), ready: false, running: undefined };
    this.#threads.push(thread);
    thread.worker.on('message', (reply: DecodeReply) => this.#finish(thread, reply));
    thread.worker.on('error', (error) => this.#lose(thread, error));
    thread.worker.on('exit', () => this.#lose(thread, new BackendError('decode thread ended')));
    return thread;
  }

  #finish(thread: Thread, { id, result, error }: DecodeReply): void {
    if (id === READY_ID) {
      thread.ready = true;
      return;
    }
    const done = thread.running;
    thread.running = undefined;
    thread.worker.unref();
    if (result !== undefined) done?.resolve(result);
    else done?.reject(new BackendError(`decode job failed: ${error}`));
    this.#dispatch();
    if (this.#threads.every(({ running }) => running === undefined)) this.#waitIdle();
  }

  #lose(thread: Thread, error: unknown): void {
    const at = this.#threads.indexOf(thread);
    if (at < 0) return;
    this.#threads.splice(at, 1);
    thread.running?.reject(error);
    if (!this.#closed) this.#dispatch();
  }

  #waitIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => void this.#stopThreads(), IDLE_MS);
    this.#idle.unref();
  }

  async #stopThreads(): Promise<void> {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.#scratch.release();
    const threads = this.#threads.splice(0);
    for (const { running } of threads) running?.reject(new BackendError('decode pool was closed'));
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }

  /** Stop the threads; jobs that still run are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    const left = this.#waiting.splice(0);
    for (const { reject } of left) reject(new BackendError('decode pool was closed'));
    await this.#stopThreads();
  }
}

let common: { pool: DecodePool; users: number } | undefined;

/** The pool that all images of this process share: threads are for cores, not for images. Give it back with `releaseDecodePool`. */
export function acquireDecodePool(threads: number): DecodePool {
  common ??= { pool: new DecodePool(threads), users: 0 };
  common.users++;
  return common.pool;
}

/** End the use of a pool; the last user of the common one closes it, and one that is not common is closed. */
export async function releaseDecodePool(pool: DecodePool): Promise<void> {
  if (common?.pool === pool) {
    if (--common.users > 0) return;
    common = undefined;
  }
  await pool.close();
}
