// The daemon between its API and the filesystem side: which image is mounted, the state machine, metrics by id,
// settings that change at run time. Source: nydusd.md 4, 5.4-5.10, 6.
import { messageOf } from '../base/errors.ts';
import { LOG_LEVELS, type LogLevel, type Logger } from '../base/log.ts';
import { versionInfo } from '../base/version.ts';
import type { ConfigV2 } from '../storage/config.ts';
import { redactConfig, type ParsedConfig } from '../storage/config-parse.ts';
import { DaemonError } from './api-error.ts';
import { EventRing } from './events.ts';
import { openFailure, openStep } from './mount-failure.ts';
import { checkFsType, checkMountpoint, checkPrefetchFiles, type MountRequest } from './mount-request.ts';
import type { Accounting, DaemonParts, FsCounters, ImageInstance, MountSession } from './parts.ts';
import { StateMachine } from './state-machine.ts';
import { superMeta } from './super-meta.ts';

/** An image that is served. */
interface ImageMount<I extends ImageInstance> {
  mountpoint: string;
  instance: I;
  config: ConfigV2;
  mountedAt: string;
  /** counters of the session when the image came: what was counted before is not its own */
  before: FsCounters;
}

/** What kind of counters a metrics request asks for. */
export type MetricsKind = 'fs' | 'backend' | 'blobcache';

export interface DaemonOptions<I extends ImageInstance> {
  parts: DaemonParts<I>;
  logger: Logger & { level: LogLevel };
  id?: string | undefined;
  supervisor?: string | undefined;
}

/** `YYYY-MM-DD HH:MM:SS.n +00:00:00`, trailing zeros of the fraction dropped, one digit kept (nydusd.md 5.4). */
export function formatMountedTime(time: Date): string {
  const iso = time.toISOString();
  const fraction = iso.slice(20, 23).replace(/0+$/, '') || '0';
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)}.${fraction} +00:00:00`;
}

/** What a configuration wants accounted. */
export function accountingOf(config: ConfigV2): Accounting {
  return {
    files: config.rafs?.iostats_files ?? false,
    pattern: config.rafs?.access_pattern ?? false,
    latest: config.rafs?.latest_read_files ?? false,
  };
}

/** Counters less what had been counted before. */
export function countedSince(now: FsCounters, before: FsCounters): FsCounters {
  const less = (a: readonly number[], b: readonly number[]): number[] =>
    a.map((value, i) => value - (b[i] ?? 0));
  return {
    nr_opens: now.nr_opens - before.nr_opens,
    data_read: now.data_read - before.data_read,
    block_count_read: less(now.block_count_read, before.block_count_read),
    fop_hits: less(now.fop_hits, before.fop_hits),
    fop_errors: less(now.fop_errors, before.fop_errors),
    fop_cumulative_latency_total: less(now.fop_cumulative_latency_total, before.fop_cumulative_latency_total),
    read_latency_dist: less(now.read_latency_dist, before.read_latency_dist),
  };
}

/** The only place of a mount until several are served. */
const ROOT = '/';

export class Daemon<I extends ImageInstance = ImageInstance> {
  readonly events: EventRing;
  readonly machine: StateMachine;
  readonly settings = new Map<string, string>();
  readonly #parts: DaemonParts<I>;
  readonly #logger: Logger & { level: LogLevel };
  readonly #id: string | null;
  readonly #supervisor: string | null;
  /** an exit request is being served: the workers end, the mount stays */
  leaving = false;
  #ending = false;
  #session: MountSession<I> | undefined;
  #mount: ImageMount<I> | undefined;
  /** mounts, unmounts and state changes, one after another */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: DaemonOptions<I>) {
    this.#parts = options.parts;
    this.#logger = options.logger;
    this.#id = options.id ?? null;
    this.#supervisor = options.supervisor ?? null;
    this.events = new EventRing();
    this.machine = new StateMachine(
      {
        restore: async () => {
          throw DaemonError.notYet('takeover');
        },
        startService: async () => {},
        // on the way out the mount goes first: workers in the kernel's hands come back then
        stopService: async () => (this.#ending ? this.#session?.unmount() : this.#session?.stop()),
        unmount: async () => this.#unmountAll(),
      },
      (from, to, event) => this.#logger.info(`state machine: from ${from} to ${to}, input ${event}`),
    );
  }

  /** Run after everything that was asked for before. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(work);
    this.#queue = turn.catch(() => {});
    return turn;
  }

  /** Begin to serve a kernel mount, with an image at its root or an empty one: the state becomes RUNNING. */
  async serve(
    session: MountSession<I>,
    instance?: I,
    parsed?: ParsedConfig,
    prefetch?: readonly string[],
  ): Promise<void> {
    this.#session = session;
    await this.machine.on('Mount');
    if (instance !== undefined && parsed !== undefined) await this.#attach(instance, parsed, prefetch);
    await this.machine.on('Start');
  }

  async #attach(instance: I, parsed: ParsedConfig, prefetch: readonly string[] | undefined): Promise<void> {
    const session = this.#serving();
    const before = session.counters();
    await session.attach(instance, this.#attachOptions(parsed.config));
    this.#remember(instance, parsed.config, before, prefetch);
  }

  #attachOptions(config: ConfigV2): Parameters<MountSession<I>['attach']>[1] {
    return {
      enableXattr: config.rafs?.enable_xattr ?? false,
      mountedAtSec: Math.floor(Date.now() / 1000),
    };
  }

  #remember(
    instance: I,
    config: ConfigV2,
    before: FsCounters,
    prefetch: readonly string[] | undefined,
  ): void {
    this.#mount = {
      mountpoint: ROOT,
      instance,
      config,
      mountedAt: formatMountedTime(new Date()),
      before,
    };
    this.#logger.info(`RAFS filesystem mounted at ${ROOT}`);
    // settings that came before the mount win over its configuration
    for (const [key, value] of this.settings) {
      if (key.startsWith(`${ROOT}:`)) instance.configure?.(key.slice(ROOT.length + 1), value);
    }
    if (config.rafs?.prefetch.enable !== true) return;
    try {
      instance.startPrefetch(prefetch);
    } catch (error) {
      this.#report(`prefetch does not start: ${messageOf(error)}`);
    }
  }

  /** `PUT /config`: kept, and told to the image that is mounted there. @param id mountpoint, '' for none */
  changeSetting(id: string, key: string, value: string): void {
    this.settings.set(`${id}:${key}`, value);
    if (this.#mount?.mountpoint === id) this.#mount.instance.configure?.(key, value);
  }

  /** An error that no request hears of: for the log, and for the events that the API shows. */
  #report(text: string): void {
    this.#logger.error(text);
    this.events.add(text);
  }

  #serving(): MountSession<I> {
    if (this.#session === undefined) throw DaemonError.notReady();
    return this.#session;
  }

  /**
   * Mount by API. PUT of the older form lands here when nothing is mounted.
   *
   * @throws DaemonError in upstream's words
   */
  mountImage(request: MountRequest): Promise<void> {
    return this.#inTurn(async () => {
      checkFsType(request.fsType);
      if (this.#mount?.mountpoint === request.mountpoint) {
        throw DaemonError.other('object or filesystem already exists');
      }
      const { instance, parsed } = await this.#openFor(request);
      try {
        await this.#attach(instance, parsed, request.prefetchFiles);
      } catch (error) {
        await instance.close();
        throw error;
      }
    });
  }

  /** Put another image, or the same with another configuration, in the place of a mounted one. */
  remountImage(request: MountRequest): Promise<void> {
    return this.#inTurn(async () => {
      checkFsType(request.fsType);
      const old = this.#mount;
      if (old?.mountpoint !== request.mountpoint) {
        throw DaemonError.other("object or filesystem doesn't exist");
      }
      const { instance, parsed } = await this.#openFor(request);
      try {
        await this.#serving().replace(instance, this.#attachOptions(parsed.config));
      } catch (error) {
        await instance.close();
        throw error;
      }
      this.#remember(instance, parsed.config, old.before, request.prefetchFiles);
      await old.instance.close();
    });
  }

  /** PUT of the mount endpoint: the older form mounts where nothing is. */
  putImage(request: MountRequest): Promise<void> {
    return request.older && this.#mount?.mountpoint !== request.mountpoint
      ? this.mountImage(request)
      : this.remountImage(request);
  }

  async #openFor(request: MountRequest): Promise<{ instance: I; parsed: ParsedConfig }> {
    checkPrefetchFiles(request.prefetchFiles);
    let parsed: ParsedConfig;
    try {
      parsed = request.readConfig();
    } catch (error) {
      this.#logger.error(`cannot mount ${request.source}: ${messageOf(error)}`);
      throw openFailure('Failed to load config', error);
    }
    for (const warning of parsed.warnings) this.#logger.warn(`configuration: ${warning}`);
    checkMountpoint(request.mountpoint);
    const { config } = parsed;
    try {
      const open = this.#parts.open({
        bootstrap: request.source,
        config,
        id: request.mountpoint,
        logger: this.#logger,
      });
      return { instance: await open, parsed };
    } catch (error) {
      this.#logger.error(`cannot mount ${request.source}: ${messageOf(error)}`);
      throw openFailure(openStep(error), error);
    }
  }

  /** Take the image away. */
  unmountImage(mountpoint: string): Promise<void> {
    return this.#inTurn(async () => {
      const mount = this.#mount;
      if (mount?.mountpoint !== mountpoint) throw DaemonError.other("object or filesystem doesn't exist");
      await this.#serving().detach();
      this.#mount = undefined;
      await mount.instance.close();
      this.#logger.info(`RAFS filesystem unmounted from ${mountpoint}`);
    });
  }

  async #unmountAll(): Promise<void> {
    await this.#session?.unmount();
    await this.#closeImage();
  }

  async #closeImage(): Promise<void> {
    const mount = this.#mount;
    this.#mount = undefined;
    await mount?.instance.close();
  }

  /** Graceful end: workers stop, the mount goes. */
  shutdown(): Promise<void> {
    return this.#inTurn(async () => {
      this.#ending = true;
      await this.machine.shutdown();
      await this.#closeImage();
    });
  }

  /** End that leaves the mount. */
  exit(): Promise<void> {
    this.leaving = true;
    return this.#inTurn(async () => {
      await this.machine.exit();
      await this.#closeImage();
    }).catch((error: unknown) => {
      this.leaving = false;
      throw error;
    });
  }

  /** One event of the state machine, in turn. */
  event(event: 'Start' | 'Takeover'): Promise<void> {
    return this.#inTurn(() => this.machine.on(event));
  }

  /** Send the state to a supervisor: none can be configured yet. */
  async sendfd(): Promise<void> {
    if (this.#session === undefined) throw DaemonError.notReady();
    throw DaemonError.upgradeManager('no supervisor is configured: sendfd is not supported yet');
  }

  /** `GET /daemon`; version 2 of the API shows no mounts. */
  info(withMounts: boolean): Record<string, unknown> {
    return {
      version: versionInfo(),
      id: this.#id,
      supervisor: this.#supervisor,
      state: this.machine.visible,
      backend_collection: withMounts ? this.#collection() : null,
    };
  }

  #collection(): Record<string, unknown> {
    if (this.#mount === undefined) return {};
    const { mountpoint, mountedAt, config } = this.#mount;
    return {
      [mountpoint]: {
        backend_type: 'Rafs',
        mountpoint,
        mounted_time: mountedAt,
        config: redactConfig(config),
      },
    };
  }

  /** `GET /daemon/backend`. */
  superMeta(mountpoint: string): Record<string, unknown> {
    if (this.#mount?.mountpoint !== mountpoint) {
      throw DaemonError.other("object or filesystem doesn't exist");
    }
    return superMeta(this.#mount.instance.image);
  }

  /** The mount whose counters of a kind stand under an id; without an id the only one (nydusd.md 5.10). */
  #counted(kind: MetricsKind, id: string | undefined): ImageMount<I> | undefined {
    const mount = this.#mount;
    if (mount === undefined || id === undefined) return mount;
    return (kind === 'blobcache' ? mount.config.id : mount.mountpoint) === id ? mount : undefined;
  }

  /** `GET /metrics`; undefined when nothing is counted under the id. */
  fsMetrics(id: string | undefined): Record<string, unknown> | undefined {
    const mount = this.#counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    const c = countedSince(this.#session.counters(), mount.before);
    return {
      files_account_enabled: accounting.files,
      access_pattern_enabled: accounting.pattern,
      record_latest_read_files_enabled: accounting.latest,
      measure_latency: true,
      id: mount.mountpoint,
      nr_opens: c.nr_opens,
      data_read: c.data_read,
      block_count_read: c.block_count_read,
      fop_hits: c.fop_hits,
      fop_errors: c.fop_errors,
      fop_cumulative_latency_total: c.fop_cumulative_latency_total,
      read_latency_dist: c.read_latency_dist,
    };
  }

  /** `GET /metrics/files`: per inode, or the ranges read since the last call. */
  filesMetrics(id: string | undefined, latest: boolean): unknown {
    const mount = this.#counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    if (latest) return accounting.latest ? this.#session.takeLatest() : [];
    return accounting.files ? this.#session.files() : {};
  }

  /** `GET /metrics/pattern`. */
  patternMetrics(id: string | undefined): unknown {
    const mount = this.#counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    return accountingOf(mount.config).pattern ? this.#session.pattern() : [];
  }

  /** `GET /metrics/backend` and `/metrics/blobcache`. */
  storageMetrics(kind: 'backend' | 'blobcache', id: string | undefined): unknown {
    const mount = this.#counted(kind, id);
    // without a cache nothing is counted of one
    if (kind === 'blobcache' && !mount?.config.cache?.filecache) return undefined;
    return mount?.instance.metrics()[kind];
  }

  /** `GET /metrics/inflight`. */
  inflight(): readonly unknown[] {
    return this.#session?.inflight() ?? [];
  }

  /** True when the level is one of the API's words, whatever their case. */
  setLogLevel(word: string): boolean {
    const level = LOG_LEVELS.find((known) => known === word.toLowerCase());
    if (level === undefined) return false;
    this.#logger.level = level;
    this.#session?.setWireLog(level === 'trace');
    return true;
  }
}
