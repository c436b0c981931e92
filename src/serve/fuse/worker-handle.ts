// The main thread's end of one worker: starts it, wakes it, waits for it, looks into the memory it shares.
import { closeSync } from 'node:fs';
import type { Worker } from 'node:worker_threads';
import { BackendError, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { interruptThread } from '../../native/thread-interrupt.ts';
import type { SessionState } from '../session-state.ts';
import type { InFlight } from './miss-reader.ts';
import { takeWorker } from './spare-thread.ts';
import type { BackendNews, WorkerReport, WorkerStart } from './thread-messages.ts';
import { WORKER_AREA_BYTES, workerAreas, type WorkerAreas } from './worker-areas.ts';

export interface WorkerHandleOptions {
  /** the worker's channel; closed by `close` */
  deviceFd: number;
  /** the CPU that it stays on; undefined: wherever the scheduler puts it */
  cpu: number | undefined;
  state: SessionState;
  accessLog: SharedArrayBuffer;
  serveOpen: boolean;
  /** serve nothing before an image is attached */
  hold: boolean;
  report: (report: WorkerReport) => void;
  logger: Logger;
}

/** Longest pause between two signals to a worker that is about to sleep. */
const MAX_NUDGE_MS = 5;

interface Waiter {
  resolve(): void;
  reject(reason: unknown): void;
}

/** One worker thread. */
export class WorkerHandle {
  readonly areas: WorkerAreas;
  /** resolves when it runs; rejects when it cannot be started */
  readonly ready: Promise<void>;
  /** resolves when the thread is over */
  readonly ended: Promise<void>;
  running = true;
  readonly #worker: Worker;
  readonly #deviceFd: number;
  readonly #waiters = new Map<number, Waiter>();

  constructor(options: WorkerHandleOptions) {
    this.#deviceFd = options.deviceFd;
    const shared = new SharedArrayBuffer(WORKER_AREA_BYTES);
    this.areas = workerAreas(shared);
    const start: WorkerStart = {
      deviceFd: options.deviceFd,
      cpu: options.cpu,
      state: options.state.buffer,
      shared,
      accessLog: options.accessLog,
      serveOpen: options.serveOpen,
      startedAtSec: Math.floor(Date.now() / 1000),
      hold: options.hold,
    };
    this.#worker = takeWorker();
    this.#worker.postMessage(start);
    this.ready = new Promise((resolve, reject) => {
      this.#worker.on('message', (report: WorkerReport) => {
        if (report.type === 'ready') resolve();
        else if (report.type === 'ack') this.#taken(report.sequence, report.problem);
        else options.report(report);
      });
      this.#worker.on('error', (error) => {
        options.logger.error(`a FUSE worker died: ${messageOf(error)}`);
        reject(error);
      });
    });
    this.ready.catch(() => {}); // whoever awaits it sees the error
    this.ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        this.running = false;
        for (const waiter of this.#waiters.values()) waiter.resolve();
        this.#waiters.clear();
        resolve();
      });
    });
  }

  #taken(sequence: number, problem: unknown): void {
    const waiter = this.#waiters.get(sequence);
    this.#waiters.delete(sequence);
    if (problem === undefined) waiter?.resolve();
    else
      waiter?.reject(
        new BackendError(`a worker cannot open the image: ${messageOf(problem)}`, { cause: problem }),
      );
  }

  /** Send news. Resolves when the worker has taken it, or is over. Announce and `rouse`, or it may sleep on. */
  post(news: BackendNews): Promise<void> {
    if (!this.running) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.set(news.sequence, { resolve, reject });
      this.#worker.postMessage(news);
    });
  }

  /** Interrupt the worker until it has seen this generation of the news, or is over. */
  async rouse(generation: number): Promise<void> {
    for (let pauseMs = 0; this.nudge(generation); pauseMs = Math.min(pauseMs + 1, MAX_NUDGE_MS)) {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** Interrupt it once if it has not seen this generation yet. False when there is no need (any more). */
  nudge(generation: number): boolean {
    const { presence } = this.areas;
    if (!this.running || presence.done || presence.seen - generation >= 0) return false;
    return presence.threadId === 0 || interruptThread(presence.threadId);
  }

  /** The request it is busy with. */
  inFlight(): InFlight | undefined {
    const [opcode = 0, nodeLow = 0, nodeHigh = 0, uniqueLow = 0, uniqueHigh = 0, seconds = 0] =
      this.areas.inFlight;
    if (opcode === 0) return undefined;
    return {
      inode: (BigInt(nodeHigh) << 32n) | BigInt(nodeLow),
      opcode,
      unique: (BigInt(uniqueHigh) << 32n) | BigInt(uniqueLow),
      timestamp_secs: seconds,
    };
  }

  /** Give back its channel. Only after it has ended. */
  close(): void {
    closeSync(this.#deviceFd);
  }
}
