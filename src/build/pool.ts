// Workers that digest, compress and inflate on all cores. Jobs are handed out in order; each comes back when it is done, the
// caller puts the results in order: so bytes never depend on the number of workers.
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { UsageError } from '../base/errors.ts';
import type { CompressorName } from '../codec/algorithms.ts';
import { inflateJob, type InflateDone, type InflateJob } from './inflate-job.ts';
import { JobRunner, type Job, type JobSettings } from './pool-job.ts';
import type { PoolReply, PoolTask } from './pool-worker.ts';

/** Jobs a worker has at a time: one in work, one waiting, so that it never waits for a message. */
const JOBS_PER_WORKER = 2;
const MAX_WORKERS = 64;

interface Waiting {
  task: PoolTask;
  transfer: ArrayBuffer[];
  resolve: (reply: PoolReply) => void;
  reject: (error: unknown) => void;
}

interface Member {
  worker: Worker;
  jobs: Waiting[];
}

/** The worker's file: source beside source, bundle beside bundle. */
function workerFile(): URL {
  return import.meta.url.endsWith('.ts')
    ? new URL('./pool-worker.ts', import.meta.url)
    : new URL('./pool-worker.js', import.meta.url);
}

/**
 * Workers when nobody says how many: one for each core. Without compression the main thread, which scans, hashes and
 * writes, has as much to do as a worker: it gets a core of its own.
 */
function defaultThreads(compressor: CompressorName): number {
  const cores = availableParallelism();
  return compressor === 'none' ? Math.max(1, cores - 1) : cores;
}

/** A pool for one build. Until `start` jobs are done at once on the calling thread: small builds need no workers. */
export class WorkerPool {
  readonly #settings: JobSettings;
  readonly #threads: number;
  readonly #members: Member[] = [];
  readonly #queue: Waiting[] = [];
  #inline: JobRunner | undefined;
  #failure: unknown;

  /** @param threads workers; 0 = as many as suit this machine */
  constructor(settings: JobSettings, threads: number) {
    this.#settings = settings;
    this.#threads = Math.min(MAX_WORKERS, threads === 0 ? defaultThreads(settings.compressor) : threads);
  }

  /** Jobs that keep all workers busy. */
  get width(): number {
    return this.#threads * JOBS_PER_WORKER;
  }

  /** Start the workers; once. */
  start(): void {
    if (this.#members.length > 0) return;
    this.#inline = undefined;
    for (let i = 0; i < this.#threads; i++) {
      const worker = new Worker(workerFile(), { workerData: this.#settings });
      const member: Member = { worker, jobs: [] };
      worker.on('message', (reply: PoolReply) => this.#finished(member, reply));
      worker.on('error', (error) => this.#fail(error));
      worker.on('exit', (code) => {
        if (code !== 0) this.#fail(new Error(`a build worker ended with status ${code}`));
      });
      this.#members.push(member);
    }
  }

  /** Do a job: resolves to its buffer, with records and stored bytes. */
  async run({ buffer, pieces, paths }: Job): Promise<ArrayBuffer> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#members.length === 0) {
      this.#inline ??= new JobRunner(this.#settings);
      this.#inline.run({ buffer, pieces, paths });
      return buffer;
    }
    const reply = await this.#post({ buffer, pieces, paths }, [buffer], false);
    return reply.buffer as ArrayBuffer;
  }

  /** Decode a piece of gzip, before other jobs: they come from what it gives. */
  async inflate(job: InflateJob): Promise<InflateDone> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#members.length === 0) return inflateJob(job);
    const reply = await this.#post({ inflate: job }, [job.input, job.output], true);
    return reply.inflated as InflateDone;
  }

  #post(task: PoolTask, transfer: ArrayBuffer[], first: boolean): Promise<PoolReply> {
    return new Promise((resolve, reject) => {
      const waiting = { task, transfer, resolve, reject };
      if (first) this.#queue.unshift(waiting);
      else this.#queue.push(waiting);
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      let free: Member | undefined;
      for (const member of this.#members) {
        if (
          member.jobs.length < JOBS_PER_WORKER &&
          (free === undefined || member.jobs.length < free.jobs.length)
        )
          free = member;
      }
      if (free === undefined) return;
      const next = this.#queue.shift() as Waiting;
      free.jobs.push(next);
      free.worker.postMessage(next.task, next.transfer);
    }
  }

  #finished(member: Member, reply: PoolReply): void {
    const done = member.jobs.shift();
    if (done === undefined) return;
    if (reply.error === undefined) done.resolve(reply);
    else done.reject(new UsageError(reply.error, { exitCode: 1 }));
    this.#dispatch();
  }

  /** Refuse further jobs and reject those under way. */
  abort(reason: unknown): void {
    this.#fail(reason);
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    for (const member of this.#members) for (const job of member.jobs.splice(0)) job.reject(error);
    for (const job of this.#queue.splice(0)) job.reject(error);
  }

  /** End the workers; jobs under way are lost. */
  async close(): Promise<void> {
    const members = this.#members.splice(0);
    this.#failure ??= new Error('the pool is closed');
    for (const member of members) member.worker.removeAllListeners('exit');
    await Promise.all(members.map((member) => member.worker.terminate()));
  }
}
