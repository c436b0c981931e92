// The worker threads of one mount: how many there are, on which CPUs, what they are told, how they end. Source: DESIGN 3.
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { allowedCpus } from '../../native/affinity.ts';
import { duplicateDescriptor } from '../../native/descriptor.ts';
import { AccessLog, ACCESS_LOG_BYTES } from '../access-log.ts';
import type { FsStats } from '../counters.ts';
import type { SessionState } from '../session-state.ts';
import type { Accounting } from './accounting.ts';
import { cloneDevice } from './device.ts';
import type { InFlight } from './miss-reader.ts';
import type { BackendNews, WorkerReport } from './thread-messages.ts';
import { WorkerHandle } from './worker-handle.ts';

export interface WorkerGroupOptions {
  deviceFd: number;
  state: SessionState;
  accounting: Accounting;
  /** wanted threads; more than there are CPUs are not started */
  threads: number;
  serveOpen: boolean;
  /** all read from the one open file of `deviceFd`; otherwise each has a channel of its own */
  outlive: boolean;
  report: (report: WorkerReport) => void;
  /** the last worker is over */
  onEnd: () => void;
  logger: Logger;
}

/** How long the end of the process may be held up by workers that do not listen. */
const EXIT_MS = 500;

/**
 * Up to so many CPUs each gets a worker that stays there, and every request wakes them all: whoever runs first serves it, most often
 * the one beside the client, without waking another CPU. Measured on two CPUs only (decision 0003); the wake-ups grow with the number.
 */
const MAX_WOKEN_TOGETHER = 2;

/** CPUs for the workers, one each; empty: they sleep in read, one is woken per request, the scheduler places it. */
export function placesFor(threads: number, cpus: readonly number[]): readonly number[] {
  const everyCpuHasOne = threads >= cpus.length && cpus.length > 1;
  return everyCpuHasOne && cpus.length <= MAX_WOKEN_TOGETHER ? cpus : [];
}

/** All workers of one mount. */
export class WorkerGroup {
  readonly #options: WorkerGroupOptions;
  readonly #workers: WorkerHandle[] = [];
  readonly #count: number;
  readonly #places: readonly number[];
  #sequence = 0;

  constructor(options: WorkerGroupOptions) {
    this.#options = options;
    const cpus = allowedCpus();
    this.#count = Math.min(options.threads, cpus.length);
    this.#places = placesFor(options.threads, cpus);
    process.on('exit', this.#onExit);
  }

  get isEmpty(): boolean {
    return this.#workers.length === 0;
  }

  /** Node waits for its workers when the process ends, however it ends: get them out of their reads. */
  readonly #onExit = (): void => {
    const { state } = this.#options;
    state.stop();
    const generation = state.announce();
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + EXIT_MS;
    while (performance.now() < deadline) {
      const busy = this.#workers.filter((worker) => worker.nudge(generation));
      if (busy.length === 0) return;
      Atomics.wait(pause, 0, 0, 1);
    }
  };

  /**
   * Start one worker.
   *
   * @param hold it serves nothing before an image is attached
   */
  start(hold: boolean): WorkerHandle {
    const { deviceFd, outlive, state, serveOpen, report, logger, accounting } = this.#options;
    const accessLog = new SharedArrayBuffer(ACCESS_LOG_BYTES);
    accounting.add(new AccessLog(accessLog));
    const worker = new WorkerHandle({
      deviceFd: outlive ? duplicateDescriptor(deviceFd) : cloneDevice(deviceFd),
      cpu: this.#places[this.#workers.length],
      state,
      accessLog,
      serveOpen,
      hold,
      report,
      logger,
    });
    this.#workers.push(worker);
    void worker.ended.then(() => {
      if (this.#workers.every(({ running }) => !running)) this.#options.onEnd();
    });
    return worker;
  }

  /** Start the workers that are missing, with what is mounted as their first news: nobody waits for them. */
  startOthers(known: Pick<BackendNews, 'attach' | 'pseudo'>): void {
    const { logger } = this.#options;
    try {
      while (this.#workers.length < this.#count) {
        const worker = this.start(known.attach.length > 0);
        const taken = worker.post({ ...known, sequence: ++this.#sequence, detach: [] });
        // it reports its end itself; one that cannot open the image serves nothing, the others do
        taken.catch((error: unknown) => logger.error(messageOf(error)));
      }
    } catch (error) {
      logger.warn(`fewer FUSE workers than asked for: ${messageOf(error)}`);
    }
  }

  /** Resolves when the first one runs; rejects when it cannot be started. */
  get firstReady(): Promise<void> | undefined {
    return this.#workers[0]?.ready;
  }

  /** Resolves when all that were started run. */
  async ready(): Promise<void> {
    await Promise.all(this.#workers.map(({ ready }) => ready));
  }

  /** Post news to every worker, wake them, and wait until each has taken it. */
  async tell(news: Omit<BackendNews, 'sequence'>): Promise<void> {
    const sequence = ++this.#sequence;
    const taken = this.#workers.map((worker) => worker.post({ ...news, sequence }));
    await Promise.all([...taken, this.#rouse()]);
  }

  async #rouse(): Promise<void> {
    const generation = this.#options.state.announce();
    await Promise.all(this.#workers.map((worker) => worker.rouse(generation)));
  }

  /** End them all, wherever they sleep. */
  async stop(): Promise<void> {
    this.#options.state.stop();
    await this.#rouse();
    await Promise.all(this.#workers.map(({ ended }) => ended));
    this.abandon();
  }

  /** The process may end without looking after them: there are none, or they are over. */
  abandon(): void {
    process.off('exit', this.#onExit);
  }

  /** Give back their channels. Only after they have ended, and nobody answers on them any more. */
  close(): void {
    for (const worker of this.#workers) worker.close();
  }

  /** How many references to inodes of a backend the kernel holds. */
  lookupsHeld(index: number): number {
    return this.#workers.reduce((sum, { areas }) => sum + (areas.lookups[index] ?? 0), 0);
  }

  resetCounters(index: number): void {
    for (const { areas } of this.#workers) areas.counters.at(index).reset();
  }

  addCounters(index: number, sum: FsStats): void {
    for (const { areas } of this.#workers) areas.counters.at(index).addTo(sum);
  }

  /** Requests that they are busy with. */
  inFlight(): InFlight[] {
    return this.#workers.map((worker) => worker.inFlight()).filter((slot) => slot !== undefined);
  }
}
