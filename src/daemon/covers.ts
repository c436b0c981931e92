// Images that the kernel's EROFS serves at places inside the FUSE mount: each is mounted over the directory at which FUSE shows the same image, which
// is seen again when the cover goes. Source: decision 0009.
import { join } from 'node:path';
import { messageOf, UsageError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { RafsInstance } from '../rafs/instance.ts';
import type { FeedCounts } from '../serve/erofs/blob-feed.ts';
import type { ErofsMount } from '../serve/erofs/erofs-mount.ts';
import { FlatService } from '../serve/erofs/flat-service.ts';
import { discardRecord, findLeft, knowFiles, renounce, type Inheritance } from '../serve/erofs/left.ts';
import { erofsDeviceAt } from '../serve/erofs/mounted.ts';
import { KERNEL_DRIVERS, recordPath, type KernelDriver } from '../serve/erofs/record-path.ts';
import { ErofsService } from '../serve/erofs/service.ts';
import type { DriverChoice } from '../storage/config.ts';
import type { Accounting } from './parts.ts';

type Service = ErofsService | FlatService;

const SERVICES = { fanotify: ErofsService, fileio: FlatService } as const;

export interface CoversOptions {
  /** of the FUSE mount */
  mountpoint: string;
  /** socket that a successor finds this daemon by */
  apisock: string | undefined;
  logger: Logger;
}

/** Who is to serve an image. */
export interface Wish {
  driver: DriverChoice;
  accounting: Accounting;
}

interface Cover {
  driver: KernelDriver;
  service: Service;
  mount: ErofsMount;
}

export class Covers {
  readonly #options: CoversOptions;
  readonly #services = new Map<KernelDriver, Service>();
  /** by place inside the mount */
  readonly #covers = new Map<string, Cover>();
  /** why the kernel does not serve a place, or not by a better driver */
  readonly #reasons = new Map<string, string[]>();
  /** of the daemon before, until `resume` */
  #inherited: readonly Inheritance[];

  /** @param inherited what another daemon has handed over; ours from now on. Images are opened afterwards: they use its data files */
  constructor(options: CoversOptions, inherited: readonly Inheritance[] = []) {
    this.#options = options;
    this.#inherited = inherited;
    inherited.forEach(knowFiles);
  }

  /**
   * Go on with what a daemon that died has left to its guardians.
   *
   * @throws UsageError EINVAL  somebody holds it, and we may not have it
   */
  static takeOver(options: CoversOptions): Covers {
    const { apisock, mountpoint, logger } = options;
    const pathOf = (driver: KernelDriver): string => recordPath(apisock, mountpoint, driver);
    const left = KERNEL_DRIVERS.map((driver) => findLeft(pathOf(driver), driver, logger));
    return new Covers(
      options,
      left.filter((each) => each !== undefined),
    );
  }

  #placeOf(at: string): string {
    return join(this.#options.mountpoint, at).replace(/\/$/, '');
  }

  #serviceOptions(driver: KernelDriver): { record: string; logger: Logger } {
    const { apisock, mountpoint, logger } = this.#options;
    return { record: recordPath(apisock, mountpoint, driver), logger };
  }

  #serviceOf(driver: KernelDriver): Service {
    let service = this.#services.get(driver);
    if (service === undefined) {
      service = SERVICES[driver].open(this.#serviceOptions(driver));
      this.#services.set(driver, service);
      service.settle();
    }
    return service;
  }

  /** Serve what was handed over; FUSE answers already. `settle` follows, once every image that is wanted has been put. */
  async resume(): Promise<void> {
    for (const inherited of this.#inherited) {
      const { driver } = inherited.record;
      this.#services.set(driver, await SERVICES[driver].resume(this.#serviceOptions(driver), inherited));
    }
    this.#inherited = [];
    // nobody keeps these; the way to them is served only now
    for (const driver of KERNEL_DRIVERS)
      if (!this.#services.has(driver)) {
        const { record, logger } = this.#serviceOptions(driver);
        discardRecord(record, logger);
      }
  }

  /** What of the daemon before nobody has put goes. */
  settle(): void {
    for (const service of this.#services.values()) service.settle();
  }

  /**
   * Have the kernel serve an image where FUSE shows it. Where it cannot, FUSE goes on, and the reason is kept.
   *
   * @param others places of everything else that is mounted
   */
  async put(at: string, instance: RafsInstance, wish: Wish, others: readonly string[]): Promise<void> {
    this.#reasons.delete(at);
    const problem = problemOf(at, wish, others);
    const place = this.#placeOf(at);
    const before = [...this.#services.values()].find((service) => service.awaits(place))?.driver;
    for (const driver of before === undefined ? KERNEL_DRIVERS : [before]) {
      if (before === undefined && wish.driver !== 'auto' && wish.driver !== driver) continue;
      try {
        if (problem !== undefined) throw new UsageError(problem);
        const old = this.#covers.get(at);
        const isThere = old !== undefined && erofsDeviceAt(place) !== undefined;
        const service = this.#serviceOf(driver);
        const mount = await service.mount(instance, place, isThere);
        const cover = { driver, service, mount };
        this.#covers.set(at, cover);
        void mount.ended.then(() => this.#forget(at, cover));
        return;
      } catch (error) {
        this.#refuse(at, driver, error);
      }
    }
    // what it was covered with shows another image
    await this.remove(at);
  }

  #forget(at: string, cover: Cover): void {
    if (this.#covers.get(at) === cover) this.#covers.delete(at);
  }

  #refuse(at: string, driver: KernelDriver, error: unknown): void {
    const reason = `${driver}: ${messageOf(error)}`;
    this.#reasons.set(at, [...(this.#reasons.get(at) ?? []), reason]);
    this.#options.logger.warn(`driver ${reason}; the mount at ${at} falls back`);
  }

  /** When the cover at a place is gone, with every file of it. */
  goneAt(at: string): Promise<void> {
    return this.#covers.get(at)?.mount.ended ?? Promise.resolve();
  }

  /** Take a cover away: FUSE is seen again. Files that are open on it are fed for a while. */
  async remove(at: string): Promise<void> {
    const cover = this.#covers.get(at);
    this.#covers.delete(at);
    // somebody may have unmounted it, and FUSE is no mount of ours to take away
    const isThere = cover !== undefined && erofsDeviceAt(this.#placeOf(at)) !== undefined;
    if (isThere) await cover.mount.unmount();
  }

  /** Nothing is mounted there any more. */
  forgetReasons(at: string): void {
    this.#reasons.delete(at);
  }

  /** Who serves what, by place. */
  get drivers(): Record<string, KernelDriver> {
    return Object.fromEntries([...this.#covers].map(([at, { driver }]) => [at, driver]));
  }

  get reasons(): string[] {
    return [...this.#reasons].flatMap(([at, list]) => list.map((reason) => `${at}: ${reason}`));
  }

  /** What the kernel asked for at a place. */
  counts(at: string): FeedCounts | undefined {
    const cover = this.#covers.get(at);
    return cover?.service.countsOf(cover.mount);
  }

  /** All that a successor needs of the kernel's mounts; the descriptors stay ours. */
  inheritances(): Inheritance[] {
    const served = [...this.#services.values()].filter((service) => !service.isIdle);
    return [...this.#inherited, ...served.map((service) => service.inheritance())];
  }

  async unmountAll(): Promise<void> {
    this.#inherited.forEach(renounce);
    this.#inherited = [];
    await Promise.all([...this.#services.values()].map((service) => service.unmountAll()));
  }

  async leave(): Promise<void> {
    this.#inherited.forEach(renounce);
    this.#inherited = [];
    await Promise.all([...this.#services.values()].map((service) => service.leave()));
  }
}

/** Why an image cannot be covered there, whatever the driver. */
function problemOf(at: string, { driver, accounting }: Wish, others: readonly string[]): string | undefined {
  const { files, pattern, latest } = accounting;
  if (driver === 'auto' && (files || pattern || latest))
    return 'the configuration asks which files are read, which only FUSE sees';
  // the kernel drops what is mounted in a directory that FUSE has it look up again
  if (at === '/') return 'an image at the root would hide what is mounted inside it';
  const other = others.find((each) => isWithin(at, each) || isWithin(each, at));
  return other === undefined ? undefined : `${other} is mounted, too, and one would hide the other`;
}

function isWithin(path: string, directory: string): boolean {
  return path.startsWith(directory === '/' ? '/' : `${directory}/`);
}
