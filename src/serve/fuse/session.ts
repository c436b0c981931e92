// A FUSE mount, seen from the main thread: starts the workers, tells them what is mounted, fetches and answers
// what is not local, and ends it all. Source: nydusd.md 9, 10; DESIGN 3.
import { closeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Logger, LogLevel } from '../../base/log.ts';
import type { RafsInstance } from '../../rafs/instance.ts';
import { prepareInterrupts } from '../../native/thread-interrupt.ts';
import { AccessLog, ACCESS_LOG_BYTES } from '../access-log.ts';
import { Counters, COUNTER_BYTES, emptyStats, type FsStats } from '../counters.ts';
import { SessionState } from '../session-state.ts';
import { READ_AHEAD } from '../opcodes.ts';
import { Accounting, type AccountingOptions, type AccessPattern, type FileStats } from './accounting.ts';
import { cloneDevice, mountDevice, mountInfoOf, raiseReadAhead, unmountDevice } from './device.ts';
import { MissReader, type InFlight } from './miss-reader.ts';
import { invalidateTree } from './notifications.ts';
import type { BackendNews, WorkerReport } from './thread-messages.ts';
import { WorkerHandle } from './worker-handle.ts';

export type { FsStats } from '../counters.ts';
export type { AccessPattern, AccountingOptions, FileStats } from './accounting.ts';
export type { InFlight } from './miss-reader.ts';

/** What the session needs of an image; RafsInstance has it. */
export type SessionInstance = Pick<RafsInstance, 'image' | 'share' | 'read'>;

export interface FuseMountOptions {
  /** an existing directory; absolute, links resolved */
  mountpoint: string;
  /** wanted worker threads; more than there are cores only cost time */
  threads: number;
  /** answer OPEN and OPENDIR: the daemon was started without an image */
  serveOpen: boolean;
  accounting: AccountingOptions;
  logger: Logger;
  /** worker program, for tests with other readers */
  workerUrl?: URL;
}

export interface AttachOptions {
  /** answer xattr requests although the image has no xattr flag */
  enableXattr: boolean;
  /** shown as the times of inodes whose stored seconds are 0 */
  mountedAtSec: number;
}

/** Backend indexes: 0 is the pseudo filesystem. */
const MAX_INDEX = 255;
/** How long a replaced image is kept for files that are still open. */
const DRAIN_MS = 2000;
const DRAIN_STEP_MS = 20;
/** How long the end of the process may be held up by workers that do not listen. */
const EXIT_MS = 500;
/** Entries of an old root that are named to kernels that cannot forget everything at once. */
const MAX_INVALIDATED_NAMES = 100_000;

/** How long the threads after the first wait with their start, so that who waits for the daemon has the processors. */
const LATER_MS = 20;

interface Attached {
  index: number;
  generation: number;
  instance: SessionInstance;
  options: AttachOptions;
}

/** One mounted FUSE connection. */
export class FuseSession {
  /** resolves when somebody unmounted us from outside, or every worker has died */
  readonly ended: Promise<void>;
  readonly mountpoint: string;
  readonly #options: FuseMountOptions;
  readonly #deviceFd: number;
  readonly #state = new SessionState();
  readonly #workers: WorkerHandle[] = [];
  readonly #accounting: Accounting;
  readonly #misses: MissReader;
  /** counts reads that the main thread answers */
  readonly #counters = new Counters(new ArrayBuffer(COUNTER_BYTES));
  #attached: Attached | undefined;
  /** all that workers have been told of: the image shown, and one that is being replaced */
  readonly #known = new Map<number, Attached>();
  #lastIndex = 0;
  #generation = 0;
  #sequence = 0;
  #stopped: Promise<void> | undefined;
  #wireLog: boolean | undefined;
  #resolveEnded: () => void = () => {};
  #later: NodeJS.Timeout | undefined;

  private constructor(options: FuseMountOptions, deviceFd: number) {
    this.#options = options;
    this.mountpoint = options.mountpoint;
    this.#deviceFd = deviceFd;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#accounting = new Accounting(options.accounting);
    this.#misses = new MissReader(this.#counters, this.#accounting, options.logger);
    this.#followLogLevel();
    prepareInterrupts();
    process.on('exit', this.#onExit);
  }

  /**
   * Mount and start to serve. Without `serveOpen` the workers wait for the first `attach`, and so does whoever touches the
   * mount: nobody sees it empty. One worker is there when this returns; the others follow when the first image is attached
   * (with `serveOpen`, at once): a thread takes 40 ms of a processor to start.
   *
   * @throws UsageError exit 1: no device, no permission, no such directory
   */
  static async mount(options: FuseMountOptions): Promise<FuseSession> {
    const deviceFd = await mountDevice(options.mountpoint, options.logger);
    const session = new FuseSession(options, deviceFd);
    try {
      const first = session.#startWorker(!options.serveOpen);
      if (options.serveOpen) {
        await first.ready;
        session.#finishSoon();
      }
      return session;
    } catch (error) {
      await session.unmount();
      throw error;
    }
  }

  /** Node waits for its workers when the process ends, however it ends: get them out of their reads. */
  readonly #onExit = (): void => {
    this.#state.stop();
    const generation = this.#state.announce();
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + EXIT_MS;
    while (performance.now() < deadline) {
      const busy = this.#workers.filter((worker) => worker.nudge(generation));
      if (busy.length === 0) return;
      Atomics.wait(pause, 0, 0, 1);
    }
  };

  /** @param hold serve nothing before an image is attached */
  #startWorker(hold: boolean): WorkerHandle {
    const accessLog = this.#accounting.enabled ? new SharedArrayBuffer(ACCESS_LOG_BYTES) : undefined;
    if (accessLog !== undefined) this.#accounting.add(new AccessLog(accessLog));
    const worker = new WorkerHandle({
      deviceFd: cloneDevice(this.#deviceFd),
      state: this.#state,
      accessLog,
      serveOpen: this.#options.serveOpen,
      hold,
      url: this.#options.workerUrl,
      report: (message) => this.#onReport(message),
      logger: this.#options.logger,
    });
    this.#workers.push(worker);
    void worker.ended.then(() => this.#onWorkerEnd());
    return worker;
  }

  /** What nobody waits for. */
  #finishSoon(): void {
    this.#later ??= setTimeout(() => {
      this.#startOthers();
      this.#readAhead();
    }, LATER_MS);
  }

  /** The answer to INIT sets the read-ahead too, and can only lower it: raise it afterwards. */
  #readAhead(): void {
    if (this.#stopped !== undefined) return;
    if (this.#state.minor === 0) this.#later = setTimeout(() => this.#readAhead(), LATER_MS);
    else raiseReadAhead(this.mountpoint, READ_AHEAD);
  }

  /** Start the workers that are missing, with what is mounted as their first news: nobody waits for them. */
  #startOthers(): void {
    const { navigator } = globalThis;
    const count = Math.min(this.#options.threads, navigator.hardwareConcurrency);
    const root = this.#attached?.index ?? 0;
    const attach = [...this.#known.values()].map((known) => this.#attachment(known));
    try {
      while (this.#workers.length < count && this.#stopped === undefined) {
        const worker = this.#startWorker(root !== 0);
        const sequence = ++this.#sequence;
        const taken = worker.post({ sequence, attach, detach: [], root });
        // it reports its end itself; one that cannot open the image serves nothing, the others do
        taken.catch((error: unknown) => this.#options.logger.error(messageOf(error)));
      }
    } catch (error) {
      this.#options.logger.warn(`fewer FUSE workers than asked for: ${messageOf(error)}`);
    }
  }

  #onReport(report: WorkerReport): void {
    const { logger } = this.#options;
    if (report.type === 'miss') this.#misses.start(report);
    else if (report.type === 'interrupt') this.#misses.interrupt(report.uniqueLow, report.uniqueHigh);
    else if (report.type === 'drain') this.#accounting.drain();
    else if (report.type === 'trace') logger.trace(report.line);
    else if (report.type === 'error') logger.error(report.message);
  }

  #onWorkerEnd(): void {
    if (this.#workers.every(({ running }) => !running)) this.#resolveEnded();
  }

  /** Post news to every worker, wake them, and wait until each has taken it. */
  async #tell(attach: readonly Attached[], detach: number[], root: number): Promise<void> {
    for (const known of attach) this.#known.set(known.index, known);
    for (const index of detach) this.#known.delete(index);
    const attachments = attach.map((known) => this.#attachment(known));
    const news: BackendNews = { sequence: ++this.#sequence, attach: attachments, detach, root };
    const taken = this.#workers.map((worker) => worker.post(news));
    const generation = this.#state.announce();
    await Promise.all([...taken, ...this.#workers.map((worker) => worker.rouse(generation))]);
  }

  /** Show an image at the root. */
  async attach(instance: SessionInstance, options: AttachOptions): Promise<void> {
    const old = this.#attached;
    const next: Attached = {
      index: this.#nextIndex(),
      generation: ++this.#generation,
      instance,
      options,
    };
    this.#misses.setInstance(next.index, instance);
    this.#attached = next;
    try {
      // the first worker may still be starting: it takes the image as soon as it runs
      await Promise.all([this.#workers[0]?.ready, this.#tell([next], [], next.index)]);
    } catch (error) {
      // one worker could not open it: nobody shows it
      this.#attached = old;
      await this.#tell([], [next.index], old?.index ?? 0);
      this.#misses.setInstance(next.index, undefined);
      throw error;
    }
    if (old !== undefined) await this.#retire(old);
    // An empty root may have been seen. Not before the first image without serveOpen: requests were held back until now, and
    // the kernel drops an answer about the root that an invalidation overtakes: EACCES for whoever is not root.
    else if (this.#state.minor !== 0 && (this.#options.serveOpen || next.generation > 1))
      await this.#invalidate([]);
    this.#finishSoon();
  }

  /**
   * Swap the image under load. The same image keeps its inodes and nothing is forgotten; another one gets inodes of its
   * own, and the old one still answers for files that are open, for a short while. Afterwards the old instance is unused.
   */
  async replace(instance: SessionInstance, options: AttachOptions): Promise<void> {
    const old = this.#attached;
    if (old === undefined || !sameBytes(old.instance.image.bytes, instance.image.bytes)) {
      return this.attach(instance, options);
    }
    const next: Attached = { ...old, instance, options };
    this.#attached = next;
    await this.#tell([next], [], next.index);
    this.#misses.setInstance(next.index, instance);
    await this.#misses.settled(old.instance);
  }

  /** Take the image away: the root is an empty directory again, whatever was cached is forgotten. */
  async detach(): Promise<void> {
    const old = this.#attached;
    if (old === undefined) return;
    this.#attached = undefined;
    await this.#tell([], [old.index], 0);
    this.#misses.cancel(old.instance);
    await this.#invalidate(rootNames(old.instance));
    this.#misses.setInstance(old.index, undefined);
    await this.#misses.settled(old.instance);
  }

  async #retire(old: Attached): Promise<void> {
    await this.#invalidate(rootNames(old.instance));
    for (let waited = 0; waited < DRAIN_MS && this.#lookupsHeld(old.index) > 0; waited += DRAIN_STEP_MS) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_STEP_MS));
    }
    await this.#tell([], [old.index], this.#attached?.index ?? 0);
    this.#misses.cancel(old.instance);
    this.#misses.setInstance(old.index, undefined);
    await this.#misses.settled(old.instance);
  }

  #attachment(target: Attached): BackendNews['attach'][number] {
    return {
      index: target.index,
      generation: target.generation,
      share: target.instance.share,
      options: { ...target.options, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 },
    };
  }

  #nextIndex(): number {
    do this.#lastIndex = (this.#lastIndex % MAX_INDEX) + 1;
    while (this.#lastIndex === this.#attached?.index);
    return this.#lastIndex;
  }

  /** How many references to inodes of a backend the kernel holds. */
  #lookupsHeld(index: number): number {
    return this.#workers.reduce((sum, { areas }) => sum + (areas.lookups[index] ?? 0), 0);
  }

  async #invalidate(names: readonly Uint8Array[]): Promise<void> {
    if (this.#stopped !== undefined || this.#state.minor === 0) return;
    try {
      await invalidateTree(this.#deviceFd, this.#state.minor, names);
    } catch (error) {
      this.#options.logger.warn(`the kernel may show old names: ${String(error)}`);
    }
  }

  /** End the workers and close the device; the mount stays for whoever holds another descriptor of it. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    clearTimeout(this.#later);
    this.#state.stop();
    const generation = this.#state.announce();
    await Promise.all(this.#workers.map((worker) => worker.rouse(generation)));
    await Promise.all(this.#workers.map(({ ended }) => ended));
    process.off('exit', this.#onExit);
    this.#misses.cancel();
    await this.#misses.settled();
    this.#accounting.stop();
    for (const worker of this.#workers) worker.close();
    closeSync(this.#deviceFd);
  }

  /** Unmount lazily and end the workers, wherever they are. Nothing happens when it is unmounted already. */
  async unmount(): Promise<void> {
    if (this.#stopped === undefined) await unmountDevice(this.mountpoint);
    await this.stop();
  }

  /** Device number of the mount as the kernel names the connection: `major << 20 | minor`. */
  get connectionId(): number {
    const info = mountInfoOf(this.mountpoint);
    return info === undefined ? 0 : info.major * 0x10_0000 + info.minor;
  }

  /** Protocol minor in use; 0 = the kernel has not been answered yet. */
  get protocolMinor(): number {
    return this.#state.minor;
  }

  /** Switch the log line per operation; without a call it follows the logger's level at mount. */
  setWireLog(on: boolean): void {
    this.#wireLog = on;
    this.#state.trace = on;
  }

  #followLogLevel(): void {
    const { level } = this.#options.logger as Logger & { level?: LogLevel };
    if (this.#wireLog === undefined) this.#state.trace = level === 'trace';
  }

  /** Counters of all threads. */
  stats(): FsStats {
    const sum = emptyStats();
    for (const { areas } of this.#workers) areas.counters.addTo(sum);
    this.#counters.addTo(sum);
    return sum;
  }

  /** Counters per inode number; empty unless switched on. */
  files(): Record<string, FileStats> {
    return this.#accounting.files();
  }

  /** Inodes that were read; empty unless switched on. */
  pattern(): AccessPattern[] {
    return this.#accounting.pattern();
  }

  /** Ranges of inodes read since the last call; empty unless switched on. */
  takeLatest(): number[][] {
    return this.#accounting.takeLatest();
  }

  /** Requests being served. */
  inflight(): InFlight[] {
    const busy = this.#workers.map((worker) => worker.inFlight()).filter((slot) => slot !== undefined);
    return [...busy, ...this.#misses.inFlight()];
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Names in the root directory of an image, without `.` and `..`. */
function rootNames({ image }: SessionInstance): Buffer[] {
  const names: Buffer[] = [];
  image.readdir(image.rootIno, 0, (_ino, name) => {
    const text = Buffer.from(name);
    if (!text.equals(Buffer.from('.')) && !text.equals(Buffer.from('..'))) names.push(text);
    return names.length < MAX_INVALIDATED_NAMES;
  });
  return names;
}
