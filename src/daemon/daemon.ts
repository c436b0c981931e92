// The daemon between its API and the filesystem side: which image is mounted, the state machine, metrics by id,
// settings that change at run time. Source: nydusd.md 4, 5.4-5.10, 6.
import { messageOf } from '../base/errors.ts';
import { LOG_LEVELS, type LogLevel, type Logger } from '../base/log.ts';
import { versionInfo } from '../base/version.ts';
import type { ConfigV2 } from '../storage/config.ts';
import type { ParsedConfig } from '../storage/config-parse.ts';
import { DaemonError } from './api-error.ts';
import { EventRing } from './events.ts';
import { attachFailure, openFailure, openStep, shareFailure } from './mount-failure.ts';
import { checkMountpoint, checkPrefetchFiles, fsKind, type MountRequest } from './mount-request.ts';
import { accountingOf, formatMountedTime, Mounts, type MountRecord } from './mounts.ts';
import type {
  AttachOptions,
  DaemonParts,
  ImageInstance,
  MountSession,
  MountTarget,
  SharedDirectory,
} from './parts.ts';
import { StateMachine } from './state-machine.ts';
import { superMeta } from './super-meta.ts';

/** What a daemon serves from its start. */
export interface InitialTarget<I extends ImageInstance> extends MountRecord {
  target: MountTarget<I>;
  /** undefined for a directory */
  parsed?: ParsedConfig | undefined;
}

export interface DaemonOptions<I extends ImageInstance> {
  parts: DaemonParts<I>;
  logger: Logger & { level: LogLevel };
  id?: string | undefined;
  supervisor?: string | undefined;
}

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
  readonly #mounts = new Mounts<I>();
  readonly #retiring = new Set<Promise<void>>();
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

  /** Begin to serve a kernel mount, with something in it or empty: the state becomes RUNNING. */
  async serve(session: MountSession<I>, initial?: InitialTarget<I>): Promise<void> {
    this.#session = session;
    await this.machine.on('Mount');
    if (initial !== undefined) await this.#attach(initial, initial.target, initial.parsed?.config);
    await this.machine.on('Start');
  }

  async #attach(record: MountRecord, target: MountTarget<I>, config: ConfigV2 | undefined): Promise<void> {
    await this.#serving().attach(record.mountpoint, target, attachOptions(config));
    this.#remember(record, target, config);
  }

  #remember(record: MountRecord, target: MountTarget<I>, config: ConfigV2 | undefined): void {
    const { mountpoint, source, prefetchFiles } = record;
    const mountedAt = formatMountedTime(new Date());
    this.#mounts.set({ mountpoint, source, prefetchFiles, mountedAt, config, target });
    if (target.kind === 'passthrough') {
      this.#logger.info(`directory ${source} mounted at ${mountpoint}`);
      return;
    }
    this.#logger.info(`RAFS filesystem mounted at ${mountpoint}`);
    // settings that came before the mount win over its configuration
    for (const [key, value] of this.settings) {
      if (key.startsWith(`${mountpoint}:`))
        target.instance.configure?.(key.slice(mountpoint.length + 1), value);
    }
    if (config?.rafs?.prefetch.enable !== true) return;
    try {
      target.instance.startPrefetch(prefetchFiles);
    } catch (error) {
      this.#report(`prefetch does not start: ${messageOf(error)}`);
    }
  }

  /** `PUT /config`: kept, and told to the image that is mounted there. @param id mountpoint, '' for none */
  changeSetting(id: string, key: string, value: string): void {
    this.settings.set(`${id}:${key}`, value);
    const target = this.#mounts.get(id)?.target;
    if (target?.kind === 'rafs') target.instance.configure?.(key, value);
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
      const kind = fsKind(request.fsType);
      if (this.#mounts.get(request.mountpoint) !== undefined) {
        throw DaemonError.other('object or filesystem already exists');
      }
      const { target, config } = await this.#openFor(request, kind);
      try {
        await this.#attach(request, target, config);
      } catch (error) {
        await closeTarget(target);
        throw attachFailure(error);
      }
    });
  }

  /** Put another image, or the same with another configuration, in the place of a mounted one. */
  remountImage(request: MountRequest): Promise<void> {
    return this.#inTurn(async () => {
      const kind = fsKind(request.fsType);
      const old = this.#mounts.get(request.mountpoint);
      if (old === undefined) throw DaemonError.other("object or filesystem doesn't exist");
      if (kind !== 'rafs' || old.target.kind !== 'rafs')
        throw DaemonError.other('filesystem type mismatch, expect RAFS');
      const { target, config } = await this.#openFor(request, kind);
      let retired: Promise<void>;
      try {
        ({ retired } = await this.#serving().replace(request.mountpoint, target, attachOptions(config)));
      } catch (error) {
        await closeTarget(target);
        throw error;
      }
      this.#remember(request, target, config);
      this.#closeLater(old.target, retired);
    });
  }

  /** Close what was replaced as soon as nobody reads from it; the end of the daemon waits for that. */
  #closeLater(target: MountTarget<I>, retired: Promise<void>): void {
    const closing = retired
      .then(() => closeTarget(target))
      .catch((error: unknown) => this.#report(`closing what was replaced: ${messageOf(error)}`))
      .finally(() => this.#retiring.delete(closing));
    this.#retiring.add(closing);
  }

  /** PUT of the mount endpoint: the older form mounts where nothing is. */
  putImage(request: MountRequest): Promise<void> {
    return request.older && this.#mounts.get(request.mountpoint) === undefined
      ? this.mountImage(request)
      : this.remountImage(request);
  }

  async #openFor(
    request: MountRequest,
    kind: MountTarget['kind'],
  ): Promise<{ target: MountTarget<I>; config: ConfigV2 | undefined }> {
    checkPrefetchFiles(request.prefetchFiles);
    if (kind === 'passthrough') {
      checkMountpoint(request.mountpoint);
      return { target: { kind, directory: await this.#share(request.source) }, config: undefined };
    }
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
      return { target: { kind, instance: await open }, config };
    } catch (error) {
      this.#logger.error(`cannot mount ${request.source}: ${messageOf(error)}`);
      throw openFailure(openStep(error), error);
    }
  }

  async #share(source: string): Promise<SharedDirectory> {
    try {
      return await this.#parts.share(source);
    } catch (error) {
      this.#logger.error(messageOf(error));
      throw shareFailure(error);
    }
  }

  /** Unmount by API. */
  unmountImage(mountpoint: string): Promise<void> {
    return this.#inTurn(async () => {
      const mount = this.#mounts.get(mountpoint);
      if (mount === undefined) throw DaemonError.other("object or filesystem doesn't exist");
      await this.#serving().detach(mountpoint);
      this.#mounts.delete(mountpoint);
      await closeTarget(mount.target);
      this.#logger.info(
        `${mount.target.kind === 'rafs' ? 'RAFS filesystem' : 'directory'} unmounted from ${mountpoint}`,
      );
    });
  }

  async #unmountAll(): Promise<void> {
    await this.#session?.unmount();
    await this.#closeAll();
  }

  async #closeAll(): Promise<void> {
    const mounts = this.#mounts.list();
    for (const { mountpoint } of mounts) this.#mounts.delete(mountpoint);
    await Promise.all([...this.#retiring, ...mounts.map(({ target }) => closeTarget(target))]);
  }

  /** Graceful end: workers stop, the mount goes. */
  shutdown(): Promise<void> {
    return this.#inTurn(async () => {
      this.#ending = true;
      await this.machine.shutdown();
      await this.#closeAll();
    });
  }

  /** End that leaves the mount. */
  exit(): Promise<void> {
    this.leaving = true;
    return this.#inTurn(async () => {
      await this.machine.exit();
      await this.#closeAll();
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
      backend_collection: withMounts ? this.#mounts.collection() : null,
      ...(this.#session?.driver === undefined ? {} : { driver: this.#session.driver }),
    };
  }

  /** `GET /daemon/backend`. */
  superMeta(mountpoint: string): Record<string, unknown> {
    const target = this.#mounts.get(mountpoint)?.target;
    if (target === undefined) throw DaemonError.other("object or filesystem doesn't exist");
    if (target.kind !== 'rafs') throw DaemonError.other('filesystem type mismatch, expect RAFS');
    return superMeta(target.instance.image);
  }

  /** `GET /metrics`; undefined when nothing is counted under the id. */
  fsMetrics(id: string | undefined): Record<string, unknown> | undefined {
    const mount = this.#mounts.counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    const c = this.#session.counters(mount.mountpoint);
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
    const mount = this.#mounts.counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    const accounting = accountingOf(mount.config);
    if (latest) return accounting.latest ? this.#session.takeLatest(mount.mountpoint) : [];
    return accounting.files ? this.#session.files(mount.mountpoint) : {};
  }

  /** `GET /metrics/pattern`. */
  patternMetrics(id: string | undefined): unknown {
    const mount = this.#mounts.counted('fs', id);
    if (mount === undefined || this.#session === undefined) return undefined;
    return accountingOf(mount.config).pattern ? this.#session.pattern(mount.mountpoint) : [];
  }

  /** `GET /metrics/backend` and `/metrics/blobcache`. */
  storageMetrics(kind: 'backend' | 'blobcache', id: string | undefined): unknown {
    const target = this.#mounts.counted(kind, id)?.target;
    return target?.kind === 'rafs' ? target.instance.metrics()[kind] : undefined;
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

function attachOptions(config: ConfigV2 | undefined): AttachOptions {
  return {
    enableXattr: config?.rafs?.enable_xattr ?? false,
    mountedAtSec: Math.floor(Date.now() / 1000),
    accounting: accountingOf(config),
    overlay: config?.overlay
      ? { upperDir: config.overlay.upper_dir, workDir: config.overlay.work_dir }
      : undefined,
  };
}

async function closeTarget(target: MountTarget): Promise<void> {
  if (target.kind === 'rafs') await target.instance.close();
  else target.directory.close();
}
