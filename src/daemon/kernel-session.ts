// A mount served by the kernel's own EROFS, as the daemon sees it; or, where that cannot be, by FUSE. What it will be is decided
// when the image is there. Source: DESIGN 2; docs/drivers.md.
import { closeSync } from 'node:fs';
import { messageOf, NydusError, UsageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RafsInstance } from '../rafs/instance.ts';
import type { ErofsMount } from '../serve/erofs/erofs-mount.ts';
import { FlatService } from '../serve/erofs/flat-service.ts';
import {
  discardRecord,
  knowFiles,
  openInheritance,
  packInheritance,
  renounce,
  type Inheritance,
} from '../serve/erofs/left.ts';
import { readRecord, recordPath, type KernelDriver } from '../serve/erofs/record.ts';
import { ErofsService } from '../serve/erofs/service.ts';
import { isAlive } from '../serve/guardian/guardian.ts';
import { emptyStats } from '../serve/counters.ts';
import type { DriverChoice } from '../storage/config.ts';
import type {
  AttachOptions,
  DriverInfo,
  FsCounters,
  Handover,
  HandoverPlace,
  InflightOp,
  MountSession,
  MountTarget,
} from './parts.ts';

/** What mounts images: one of the two. */
type KernelService = ErofsService | FlatService;

type Target = MountTarget<RafsInstance>;

const SERVICES = { fanotify: ErofsService, fileio: FlatService } as const;

/** READ in `fop_hits` (nydusd.md 6.1). */
const READ = 4;

export interface KernelSessionOptions {
  driver: Exclude<DriverChoice, 'fuse'>;
  mountpoint: string;
  /** socket that a successor finds this daemon by */
  apisock: string | undefined;
  logger: Logger;
  /** end, leaving the mount, once no reader needs this process */
  detachWhenComplete: boolean;
  /** the way that always works */
  fuse: () => Promise<MountSession<RafsInstance>>;
}

export class KernelSession implements MountSession<RafsInstance> {
  readonly ended: Promise<void>;
  readonly #options: KernelSessionOptions;
  /** the service that mounts, or was opened for what a daemon before left */
  #service: KernelService | undefined;
  /** why a driver is not used */
  readonly #reasons: string[] = [];
  #mount: ErofsMount | undefined;
  #fuse: MountSession<RafsInstance> | undefined;
  #name: DriverInfo['name'] = 'fanotify';
  #resolveEnded: () => void = () => {};
  #detached = false;
  #kernelRefused = false;
  #stopped: Promise<void> | undefined;
  #inherited: Inheritance | undefined;
  #parcel: number | undefined;
  /** an image of the daemon before, until it is served */
  #restored: Target | undefined;

  /**
   * Open before the image is opened: what a daemon before left is taken over here.
   *
   * @throws UsageError exit 1  the driver that was asked for does not work here
   */
  constructor(options: KernelSessionOptions, inherited?: Inheritance) {
    this.#options = options;
    this.#inherited = inherited;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    if (inherited === undefined) this.#goOnOrBegin();
    else this.#name = inherited.record.driver;
  }

  #serviceOptions(driver: KernelDriver): { record: string; logger: Logger } {
    const { apisock, mountpoint, logger } = this.#options;
    return { record: recordPath(apisock, mountpoint, driver), logger };
  }

  /** What a daemon before left goes on by the driver it has, unless another one is asked for; then it is taken away. */
  #goOnOrBegin(): void {
    const { driver, logger } = this.#options;
    const flat = this.#serviceOptions('fileio');
    const isFlat =
      driver === 'fileio' ||
      (driver === 'auto' && (readRecord(flat.record)?.guardians.some(isAlive) ?? false));
    discardRecord(isFlat ? this.#serviceOptions('fanotify').record : flat.record, logger);
    if (!isFlat) this.#openFanotify();
    else if (readRecord(flat.record) !== undefined) this.#service = FlatService.open(flat);
  }

  /**
   * Go on with what another daemon hands over: `restore` its image, then `resume`.
   *
   * @param parcel closed when this returns, the caller's when it throws
   * @throws UsageError exit 1  it is not one of ours, or of another mountpoint
   */
  static adopt(options: KernelSessionOptions, parcel: number): KernelSession {
    const inherited = openInheritance(parcel);
    if (inherited.record.mounts.some(({ mountpoint }) => mountpoint === options.mountpoint)) {
      closeSync(parcel);
      knowFiles(inherited);
      return new KernelSession(options, inherited);
    }
    for (const fd of inherited.fds) closeSync(fd);
    const places = inherited.record.mounts.map(({ mountpoint }) => mountpoint).join(', ');
    throw new UsageError(`the mount that was handed over is at ${places}, not at ${options.mountpoint}`, {
      exitCode: 1,
      hint: 'start with the --mountpoint of the daemon before',
    });
  }

  restore(place: HandoverPlace, target: Target): void {
    if (place.mountpoint !== '/' || target.kind !== 'rafs' || this.#restored !== undefined) throw occupied();
    this.#restored = target;
  }

  /** Serve what was handed over, as soon as the daemon before has let go of it. */
  async resume(): Promise<void> {
    const [inherited, target] = [this.#inherited, this.#restored];
    if (inherited === undefined || target === undefined) return;
    const { driver } = inherited.record;
    const service = await SERVICES[driver].resume(this.#serviceOptions(driver), inherited);
    this.#inherited = undefined;
    if (service instanceof ErofsService) service.onComplete = () => this.#complete();
    this.#service = service;
    await this.#mountWith(service, '/', target);
    if (service.complete) this.#complete();
  }

  /** Present when there is something that can be handed over. */
  get handover(): (() => Handover | undefined) | undefined {
    if (this.#fuse !== undefined) return this.#fuse.handover;
    const [service, inherited] = [this.#service, this.#inherited];
    let pack: () => number;
    if (inherited !== undefined) pack = () => packInheritance(inherited);
    else if (service !== undefined && this.#mount !== undefined) pack = () => service.handover();
    else return undefined;
    return () => ({
      fd: this.#keepParcel(pack()),
      serveOpen: false,
      offered: 0n,
      agreed: 0n,
      directories: [],
      next: { index: 2, ino: 2 },
      places: [{ mountpoint: '/', index: 1, generation: 0 }],
      connectionId: 0,
    });
  }

  #openFanotify(): void {
    try {
      const service = ErofsService.open(this.#serviceOptions('fanotify'));
      service.onComplete = () => this.#complete();
      this.#service = service;
    } catch (error) {
      if (error instanceof UsageError) throw error;
      this.#refuse('fanotify', error);
    }
  }

  /** A driver does not work: go on with the next one, or, when it was asked for by name, give up. */
  #refuse(name: DriverInfo['name'], error: unknown): void {
    const reason = `${name}: ${messageOf(error)}`;
    if (this.#options.driver !== 'auto') {
      const hint = (error instanceof NydusError ? error.hint : undefined) ?? 'use --driver auto or fuse';
      throw new UsageError(`the driver does not work here: ${reason}`, { cause: error, exitCode: 1, hint });
    }
    this.#reasons.push(reason);
    this.#options.logger.info(`driver ${reason}; falling back`);
  }

  /** Which driver serves, and why not a better one. */
  get driver(): DriverInfo {
    return { name: this.#fuse === undefined ? this.#name : 'fuse', fallbacks: [...this.#reasons] };
  }

  async attach(mountpoint: string, target: Target, options: AttachOptions): Promise<void> {
    if (this.#mount !== undefined) throw occupied();
    const { files, pattern, latest } = options.accounting;
    if (this.#options.driver === 'auto' && (files || pattern || latest)) await this.#wantAccounting();
    if (this.#fuse === undefined && !(await this.#attachToKernel(mountpoint, target))) {
      this.#fuse = await this.#options.fuse();
      void this.#fuse.ended.then(() => this.#resolveEnded());
    }
    await this.#fuse?.attach(mountpoint, target, options);
  }

  /** What files are read is counted where requests come to us; the kernel's own reads do not. */
  async #wantAccounting(): Promise<void> {
    await this.#service?.unmountAll(0);
    this.#service = undefined;
    this.#kernelRefused = true;
    for (const name of ['fanotify', 'fileio'] as const)
      this.#refuse(name, new UsageError('the configuration asks which files are read, which only FUSE sees'));
  }

  async #attachToKernel(place: string, target: Target): Promise<boolean> {
    const { driver } = this.#options;
    if (this.#kernelRefused) return false;
    for (const name of ['fanotify', 'fileio'] as const) {
      if (driver !== 'auto' && driver !== name) continue;
      if (name === 'fanotify' && this.#service?.driver !== name) continue; // refused already, or going on with the other
      try {
        if (name === 'fileio') this.#service ??= FlatService.open(this.#serviceOptions(name));
        await this.#mountWith(this.#service, place, target);
        this.#name = name;
        if (this.#service?.complete === true) this.#complete();
        return true;
      } catch (error) {
        await this.#service?.unmountAll(0);
        this.#service = undefined;
        this.#refuse(name, error);
      }
    }
    return false;
  }

  async #mountWith(service: KernelService | undefined, place: string, target: Target): Promise<void> {
    try {
      if (target.kind !== 'rafs') throw new UsageError('a directory is served, no image');
      if (place !== '/')
        throw new UsageError(`the image is to be seen at ${place} of the mount, not at its root`);
      const mount = await service?.mount(target.instance, this.#options.mountpoint);
      if (mount !== undefined) this.#follow(mount);
    } finally {
      service?.settle();
    }
  }

  #follow(mount: ErofsMount): void {
    this.#mount = mount;
    void mount.ended.then(() => {
      if (this.#mount === mount) this.#resolveEnded();
    });
  }

  #complete(): void {
    const { detachWhenComplete, logger, mountpoint } = this.#options;
    if (!detachWhenComplete || this.#detached || this.#mount === undefined) return;
    this.#detached = true;
    logger.info(`everything under ${mountpoint} is local: leaving the mount to the kernel`);
    this.#resolveEnded();
  }

  async replace(place: string, target: Target, options: AttachOptions): Promise<{ retired: Promise<void> }> {
    if (this.#fuse !== undefined) return this.#fuse.replace(place, target, options);
    const old = this.#mount;
    if (this.#service === undefined || old === undefined || place !== '/' || target.kind !== 'rafs') {
      throw occupied();
    }
    this.#follow(await this.#service.mount(target.instance, this.#options.mountpoint, true));
    return { retired: old.ended };
  }

  async detach(place: string): Promise<void> {
    if (this.#fuse !== undefined) return this.#fuse.detach(place);
    const mount = this.#mount;
    this.#mount = undefined;
    await mount?.unmount();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#fuse === undefined ? this.#leave() : this.#fuse.stop();
    return this.#stopped;
  }

  /** What was handed over last stays open until the next time, or the end. */
  #keepParcel(fd: number): number {
    this.#closeParcel();
    return (this.#parcel = fd);
  }

  #closeParcel(): void {
    if (this.#parcel !== undefined) closeSync(this.#parcel);
    this.#parcel = undefined;
  }

  #renounce(): void {
    this.#closeParcel();
    if (this.#inherited !== undefined) renounce(this.#inherited);
    this.#inherited = undefined;
  }

  async #leave(): Promise<void> {
    this.#renounce();
    await this.#service?.leave();
    this.#resolveEnded();
  }

  unmount(): Promise<void> {
    if (this.#detached) return this.stop();
    this.#stopped ??= this.#unmount();
    return this.#stopped;
  }

  async #unmount(): Promise<void> {
    this.#renounce();
    await this.#fuse?.unmount();
    await this.#service?.unmountAll();
    this.#resolveEnded();
  }

  /** What the kernel reads without asking is not seen here: reads are the events that came. */
  counters(place: string): FsCounters {
    if (this.#fuse !== undefined) return this.#fuse.counters(place);
    const stats = emptyStats();
    const counts = this.#service?.counts();
    if (counts === undefined) return stats;
    stats.data_read = counts.bytes;
    stats.fop_hits[READ] = counts.events - counts.denied;
    stats.fop_errors[READ] = counts.denied;
    return stats;
  }

  files(place: string): unknown {
    return this.#fuse?.files(place) ?? {};
  }

  pattern(place: string): unknown {
    return this.#fuse?.pattern(place) ?? [];
  }

  takeLatest(place: string): unknown {
    return this.#fuse?.takeLatest(place) ?? [];
  }

  inflight(): readonly InflightOp[] {
    return this.#fuse?.inflight() ?? [];
  }

  setWireLog(on: boolean): void {
    this.#fuse?.setWireLog(on);
  }
}

function occupied(): UsageError {
  return new UsageError('the kernel serves one image at the root: nothing can be mounted inside it', {
    hint: 'start the daemon without --bootstrap, or with --driver fuse',
  });
}
