// A FUSE mount, seen from the main thread: starts the workers, tells them what is mounted, fetches and answers
// what is not local, and ends it all. Source: nydusd.md 9, 10; DESIGN 3.
import { closeSync } from 'node:fs';
import { release } from 'node:os';
import { messageOf, UsageError } from '../../base/errors.ts';
import type { Logger, LogLevel } from '../../base/log.ts';
import { setNonBlocking } from '../../native/descriptor.ts';
import { prepareInterrupts } from '../../native/thread-interrupt.ts';
import { COUNTER_SET_BYTES, CounterSet, emptyStats, type FsStats } from '../counters.ts';
import { SessionState } from '../session-state.ts';
import { minorOf } from '../handshake.ts';
import { READ_AHEAD, ROOT_NODEID } from '../opcodes.ts';
import { Accounting, type MountAccounting } from './accounting.ts';
import { mountDevice, raiseReadAhead, unmountDevice } from './device.ts';
import { fuseMountOf } from './mount-info.ts';
import type { Connection, FailoverPolicy, Place } from './connection.ts';
import { drainConnection } from './drain.ts';
import { KernelCaches } from './kernel-caches.ts';
import { MissReader, type InFlight } from './miss-reader.ts';
import {
  attachmentOf,
  MountTable,
  type Attached,
  type AttachOptions,
  type MountSource,
  type SessionInstance,
} from './mount-table.ts';
import type { WorkerReport } from './thread-messages.ts';
import { WorkerGroup } from './worker-group.ts';

export type { FsStats } from '../counters.ts';
export type { AccessPattern, AccountingOptions, FileStats } from './accounting.ts';
export type { InFlight } from './miss-reader.ts';
export type { AttachOptions, MountSource, SessionInstance } from './mount-table.ts';

export interface FuseMountOptions {
  /** an existing directory; absolute, links resolved */
  mountpoint: string;
  /** wanted worker threads; more than there are cores only cost time */
  threads: number;
  /** answer OPEN and OPENDIR: the daemon was started without an image */
  serveOpen: boolean;
  /** serve nothing, and let whoever comes wait, until something is attached: nobody sees an empty mount */
  hold: boolean;
  /** mount read-write: for shared directories */
  writable?: boolean;
  logger: Logger;
  /**
   * All workers read from one open file, which another process may hold: what this process has read and not answered is not lost
   * with it. Otherwise each has a channel of its own, and the kernel fails what a closed channel has read.
   */
  outlive?: boolean;
}

/** How long a replaced image is kept for files that are still open. */
const DRAIN_MS = 2000;
const DRAIN_STEP_MS = 20;
/** How long reads under way may take when the mount is left to another daemon. */
const LEAVE_MS = 2000;
/** How long the threads after the first wait with their start, so that who waits for the daemon has the processors. */
const LATER_MS = 20;

/** One mounted FUSE connection. */
export class FuseSession {
  /** resolves when somebody unmounted us from outside, or every worker has died */
  readonly ended: Promise<void>;
  readonly mountpoint: string;
  readonly #options: FuseMountOptions;
  readonly #deviceFd: number;
  readonly #state = new SessionState();
  readonly #workers: WorkerGroup;
  readonly #accounting = new Accounting();
  readonly #mounts = new MountTable();
  readonly #misses: MissReader;
  readonly #caches: KernelCaches;
  /** counts reads that the main thread answers */
  readonly #counters = new CounterSet(new ArrayBuffer(COUNTER_SET_BYTES));
  /** what was replaced and may still be read */
  readonly #retiring = new Set<Promise<void>>();
  #hurry = false;
  #stopped: Promise<void> | undefined;
  #wireLog: boolean | undefined;
  #resolveEnded: () => void = () => {};
  #later: NodeJS.Timeout | undefined;
  /** false: taken over, and not serving yet */
  #begun = true;

  private constructor(options: FuseMountOptions, deviceFd: number) {
    this.#options = options;
    this.mountpoint = options.mountpoint;
    this.#deviceFd = deviceFd;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#misses = new MissReader(this.#counters, this.#accounting, options.logger);
    this.#caches = new KernelCaches(deviceFd, this.#state, this.#mounts, options.logger);
    this.#followLogLevel();
    prepareInterrupts();
    const { logger, threads, serveOpen, outlive = false } = options;
    this.#workers = new WorkerGroup({
      deviceFd,
      state: this.#state,
      accounting: this.#accounting,
      threads,
      serveOpen,
      outlive,
      logger,
      report: (message) => this.#onReport(message),
      onEnd: () => this.#resolveEnded(),
    });
  }

  /**
   * Mount and start to serve. With `hold` the workers wait for the first `attach`, and so does whoever touches the
   * mount: nobody sees it empty. One worker is there when this returns; the others follow when the first image is attached
   * (without `hold`, at once): a thread takes 40 ms of a processor to start.
   *
   * @throws UsageError exit 1: no device, no permission, no such directory
   */
  static async mount(options: FuseMountOptions): Promise<FuseSession> {
    const deviceFd = await mountDevice(options.mountpoint, options.logger, options.writable);
    const session = new FuseSession(options, deviceFd);
    try {
      const first = session.#workers.start(options.hold);
      if (!options.hold) {
        await first.ready;
        session.#finishSoon();
      }
      return session;
    } catch (error) {
      await session.unmount();
      throw error;
    }
  }

  /**
   * Go on with a connection that another daemon has mounted. Nothing is served before `resume`: put everything in its place
   * with `restore` first. The descriptor belongs to the session from now on.
   *
   * @param options hold is of no meaning here
   * @throws UsageError EINVAL the directories contradict each other; the descriptor stays open then
   */
  static adopt(options: FuseMountOptions, deviceFd: number, before: Connection): FuseSession {
    const session = new FuseSession({ ...options, outlive: true }, deviceFd);
    try {
      session.#begun = false;
      session.#caches.holdBack();
      session.#state.setOptions(before.offered, before.agreed);
      session.#state.setNegotiated(minorOf(before.agreed, release()));
      session.#mounts.restore(before.directories, before.next);
      return session;
    } catch (error) {
      session.#workers.abandon();
      throw error;
    }
  }

  /** Show again what the daemon before has shown, under the numbers that the kernel knows. */
  restore(place: Place, source: MountSource, options: AttachOptions): void {
    const { index } = this.#mounts.restoreMount(place.mountpoint, place, source, options);
    if (source.kind === 'rafs') this.#misses.setInstance(index, source.instance);
    this.#accounting.setMount(index, options.accounting);
  }

  /** Serve what was taken over. */
  async resume(): Promise<void> {
    this.#begun = true;
    // workers that stay on no CPU sleep in read; other daemons leave it non-blocking
    setNonBlocking(this.#deviceFd, false);
    this.#startOthers();
    await this.#workers.ready();
    await this.#caches.release();
  }

  /** Deal with what a daemon before has read and not answered. Failure is only logged: the mount is served all the same. */
  async drain(policy: FailoverPolicy): Promise<void> {
    try {
      await drainConnection(policy, this.#deviceFd, this.connectionId);
    } catch (error) {
      this.#options.logger.error(`failover policy ${policy}: ${messageOf(error)}`);
    }
  }

  /** The open file of the connection; it belongs to the session. */
  get deviceFd(): number {
    return this.#deviceFd;
  }

  /** What a successor needs; undefined before the kernel was answered. */
  connection(): (Connection & { places: Place[] }) | undefined {
    if (this.#state.minor === 0) return undefined;
    return {
      offered: this.#state.offered,
      agreed: this.#state.agreed,
      directories: this.#mounts.snapshot.filter(({ ino }) => ino !== ROOT_NODEID),
      next: this.#mounts.next,
      places: this.#mounts.places(),
    };
  }

  /** What nobody waits for. */
  #finishSoon(): void {
    if (!this.#begun) return;
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

  #startOthers(): void {
    if (this.#stopped !== undefined) return;
    const attach = this.#mounts.known.map(attachmentOf);
    this.#workers.startOthers({ attach, pseudo: this.#mounts.snapshot });
  }

  #onReport(report: WorkerReport): void {
    const { logger } = this.#options;
    if (report.type === 'miss') this.#misses.start(report);
    else if (report.type === 'interrupt') this.#misses.interrupt(report.uniqueLow, report.uniqueHigh);
    else if (report.type === 'drain') this.#accounting.drain();
    else if (report.type === 'trace') logger.trace(report.line);
    else if (report.type === 'error') logger.error(report.message);
  }

  /** Have every worker take the news. */
  #tell(attach: readonly Attached[], detach: readonly Attached[]): Promise<void> {
    return this.#workers.tell({
      attach: attach.map(attachmentOf),
      detach: detach.map(({ index }) => index),
      pseudo: this.#mounts.snapshot,
    });
  }

  /**
   * Show an image or a directory at a place inside the mount.
   *
   * @throws UsageError EINVAL no mountpoint, something is there, or nothing more can be mounted
   */
  async attach(mountpoint: string, source: MountSource, options: AttachOptions): Promise<void> {
    if (this.#mounts.at(mountpoint) !== undefined)
      throw new UsageError(`something is mounted at ${mountpoint}`);
    if (this.#mounts.isFull) await this.#hurryRetirements();
    const mayBeSeen = this.#mounts.hasDirectory(mountpoint);
    const isFirst = this.#mounts.shownCount === 0;
    const next = this.#mounts.add(mountpoint, source, options);
    await this.#introduce(next, undefined);
    // Not where requests were held back until now: the kernel drops an answer about the root that an invalidation overtakes, which
    // is EACCES for whoever is not root.
    if (mayBeSeen && !(isFirst && this.#options.hold)) await this.#caches.forget(next);
    this.#finishSoon();
  }

  /** Make a backend known to all workers; when one cannot open it, everything is as before. */
  async #introduce(next: Attached, old: Attached | undefined): Promise<void> {
    const { index, source } = next;
    this.#resetCounters(index);
    if (source.kind === 'rafs') this.#misses.setInstance(index, source.instance);
    this.#accounting.setMount(index, next.options.accounting);
    try {
      // the first worker may still be starting: it takes the image as soon as it runs
      await Promise.all([this.#workers.firstReady, this.#tell([next], [])]);
    } catch (error) {
      if (old === undefined) this.#mounts.hide(next);
      else this.#mounts.show(old);
      this.#mounts.remove(next);
      await this.#tell([], [next]);
      this.#misses.setInstance(index, undefined);
      this.#accounting.setMount(index, undefined);
      throw error;
    }
  }

  /**
   * Swap an image under load. The same image keeps its inodes and nothing is forgotten; another one gets inodes of its
   * own, and the old one still answers for files that are open, for a short while.
   *
   * @returns `retired` resolves when the old instance is no longer used
   * @throws UsageError nothing is mounted there
   */
  async replace(
    mountpoint: string,
    source: MountSource,
    options: AttachOptions,
  ): Promise<{ retired: Promise<void> }> {
    const old = this.#attachedAt(mountpoint);
    if (source.kind === 'rafs' && old.source.kind === 'rafs' && isSameImage(old.source, source)) {
      const next: Attached = { ...old, source, options };
      this.#mounts.show(next);
      await this.#tell([next], []);
      this.#misses.setInstance(next.index, source.instance);
      return { retired: this.#misses.settled(old.source.instance) };
    }
    const next = this.#mounts.add(mountpoint, source, options);
    await this.#introduce(next, old);
    await this.#caches.forget(next, old);
    const retired = this.#retireLater(old).finally(() => this.#retiring.delete(retired));
    this.#retiring.add(retired);
    return { retired };
  }

  /** The places of what was replaced are needed. */
  async #hurryRetirements(): Promise<void> {
    this.#hurry = true;
    await Promise.all(this.#retiring);
    this.#hurry = false;
  }

  /** What is open is read to its end; the kernel may keep unused inodes for longer, and then nobody waits for it. */
  async #retireLater(old: Attached): Promise<void> {
    const isUsed = (): boolean =>
      this.#stopped === undefined && !this.#hurry && this.#workers.lookupsHeld(old.index) > 0;
    for (let waited = 0; waited < DRAIN_MS && isUsed(); waited += DRAIN_STEP_MS) {
      await new Promise((resolve) => setTimeout(resolve, DRAIN_STEP_MS));
    }
    await this.#retire(old);
  }

  /**
   * Take an image away: its place is an empty directory again, whatever was cached is forgotten.
   *
   * @throws UsageError nothing is mounted there
   */
  async detach(mountpoint: string): Promise<void> {
    const old = this.#attachedAt(mountpoint);
    this.#mounts.hide(old);
    await this.#tell([], []);
    if (old.source.kind === 'rafs') this.#misses.cancel(old.source.instance);
    await this.#caches.forget(old, old);
    await this.#retire(old);
  }

  #attachedAt(mountpoint: string): Attached {
    const attached = this.#mounts.at(mountpoint);
    if (attached === undefined) throw new UsageError(`nothing is mounted at ${mountpoint}`);
    return attached;
  }

  /** Nobody shows it any more: workers forget it, and what still reads from it ends. */
  async #retire(old: Attached): Promise<void> {
    await this.#tell([], [old]);
    this.#mounts.remove(old);
    this.#accounting.setMount(old.index, undefined);
    this.#misses.setInstance(old.index, undefined);
    if (old.source.kind !== 'rafs') return;
    this.#misses.cancel(old.source.instance);
    await this.#misses.settled(old.source.instance);
  }

  #resetCounters(index: number): void {
    this.#workers.resetCounters(index);
    this.#counters.at(index).reset();
  }

  /**
   * End the workers and close the device; the mount stays for whoever holds another descriptor of it. Reads under way are finished
   * if that takes no longer than LEAVE_MS; what is not answered then is the successor's.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop(true);
    return this.#stopped;
  }

  async #stop(leaving: boolean): Promise<void> {
    clearTimeout(this.#later);
    this.#caches.close();
    await this.#workers.stop();
    if (leaving) await this.#finishMisses();
    this.#misses.cancel();
    await this.#misses.settled();
    this.#accounting.stop();
    this.#workers.close();
    closeSync(this.#deviceFd);
    if (this.#workers.isEmpty) this.#resolveEnded();
  }

  async #finishMisses(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, LEAVE_MS)));
    await Promise.race([this.#misses.settled(), late]);
    clearTimeout(timer);
    this.#misses.mute();
  }

  /** Unmount lazily and end the workers, wherever they are. Nothing happens when it is unmounted already. */
  async unmount(): Promise<void> {
    if (this.#stopped === undefined) await unmountDevice(this.mountpoint);
    this.#stopped ??= this.#stop(false);
    await this.#stopped;
  }

  /** Device number of the mount as the kernel names the connection: `major << 20 | minor`. */
  get connectionId(): number {
    const info = fuseMountOf(this.mountpoint);
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

  /** Counters of all threads for what is mounted at a place; zeros where nothing is. */
  stats(mountpoint: string): FsStats {
    const sum = emptyStats();
    const index = this.#mounts.at(mountpoint)?.index;
    if (index === undefined) return sum;
    this.#workers.addCounters(index, sum);
    this.#counters.at(index).addTo(sum);
    return sum;
  }

  /** Statistics per inode of what is mounted at a place; undefined where none is kept. */
  accounting(mountpoint: string): MountAccounting | undefined {
    const index = this.#mounts.at(mountpoint)?.index;
    return index === undefined ? undefined : this.#accounting.mount(index);
  }

  /** Requests being served. */
  inflight(): InFlight[] {
    return [...this.#workers.inFlight(), ...this.#misses.inFlight()];
  }
}

/** Whether two images have the same inodes: their bootstraps are equal. */
function isSameImage(a: { instance: SessionInstance }, b: { instance: SessionInstance }): boolean {
  return Buffer.compare(a.instance.image.bytes, b.instance.image.bytes) === 0;
}
