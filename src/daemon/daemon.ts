// The daemon between its API and the filesystem side: which image is mounted, the state machine, metrics by id,
// settings that change at run time. Source: nydusd.md 4, 5.4-5.10, 6.
import { messageOf, UsageError } from '../base/errors.ts';
import { LOG_LEVELS, type LogLevel, type Logger } from '../base/log.ts';
import { versionInfo } from '../base/version.ts';
import type { ConfigV2 } from '../storage/config.ts';
import { parseConfig, type ParsedConfig } from '../storage/config-parse.ts';
import { DaemonError } from './api-error.ts';
import { EventRing } from './events.ts';
import { attachFailure, openFailure, openStep, shareFailure } from './mount-failure.ts';
import { checkMountpoint, checkPrefetchFiles, fsKind, type MountRequest } from './mount-request.ts';
import { accountingOf, formatMountedTime, Mounts, type Mount, type MountRecord } from './mounts.ts';
import type {
  AttachOptions,
  DaemonParts,
  FailoverPolicy,
  ImageInstance,
  MountSession,
  MountTarget,
  SharedDirectory,
} from './parts.ts';
import { StateMachine } from './state-machine.ts';
import { superMeta } from './super-meta.ts';
import type { Keeper } from './upgrade/keeper.ts';
import type { Restorable, Restored, RestoredMount } from './upgrade/handover.ts';

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
  /** for requests that a daemon before has read and not answered; default resend */
  failoverPolicy?: FailoverPolicy | undefined;
  /** how to go on with a connection; without it there is no taking over */
  adopt?: ((fd: number, restored: Restored) => Promise<MountSession<I>>) | undefined;
  /** keeps the mount when this process dies */
  keeper?: Keeper | undefined;
  imagePullAuth?: string | undefined;
}

/** How long the kernel's first request may take before a guardian is given up. */
const INIT_WAIT_MS = 10_000;
const INIT_STEP_MS = 5;

export class Daemon<I extends ImageInstance = ImageInstance> {
  readonly events: EventRing;
  readonly machine: StateMachine;
  readonly settings = new Map<string, string>();
  readonly #parts: DaemonParts<I>;
  readonly #logger: Logger & { level: LogLevel };
  readonly #id: string | null;
  readonly #supervisor: string | null;
  readonly #options: DaemonOptions<I>;
  /** resolves when the kernel's mount, whichever it was, has ended */
  readonly ended: Promise<void>;
  #resolveEnded: () => void = () => {};
  /** the session was taken over and does not serve yet */
  #adopted = false;
  /** an exit request is being served: the workers end, the mount stays */
  leaving = false;
  #ending = false;
  #session: MountSession<I> | undefined;
  readonly #mounts = new Mounts<I>();
  readonly #retiring = new Set<Promise<void>>();
  /** mounts, unmounts and state changes, one after another */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: DaemonOptions<I>) {
    this.#options = options;
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#parts = options.parts;
    this.#logger = options.logger;
    this.#id = options.id ?? null;
    this.#supervisor = options.supervisor ?? null;
    this.events = new EventRing();
    this.machine = new StateMachine(
      {
        restore: () => this.#restore(),
        startService: () => this.#resume(),
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
    this.#follow(session);
    await this.machine.on('Mount');
    if (initial !== undefined) await this.#attach(initial, initial.target, initial.parsed);
    await this.machine.on('Start');
  }

  #follow(session: MountSession<I>): void {
    this.#session = session;
    void session.ended.then(() => this.#resolveEnded());
  }

  /** Takeover: the session and everything in it from what the supervisor keeps. */
  async #restore(): Promise<void> {
    if (this.#supervisor === null) throw DaemonError.upgradeManager('no supervisor is configured');
    const { receiveState } = await import('./upgrade/supervisor.ts');
    const { readHandover } = await import('./upgrade/handover.ts');
    try {
      const { bytes, fd, extra } = await receiveState(this.#supervisor);
      if (extra > 0) this.#logger.warn(`${extra} descriptors too many from the supervisor`);
      await this.#adopt(fd, () => readHandover(bytes));
    } catch (error) {
      this.#report(`takeover: ${messageOf(error)}`);
      throw DaemonError.upgradeManager(messageOf(error));
    }
  }

  async #adopt(fd: number, read: () => Restored): Promise<void> {
    const { adoptOrClose } = await import('./upgrade/handover.ts');
    const adopt = this.#options.adopt;
    let mounts: RestoredMount[] = [];
    const session = await adoptOrClose(fd, async () => {
      const restored = read();
      if (adopt === undefined) throw new Error('this daemon cannot take over');
      mounts = restored.mounts;
      return (await adopt(fd, restored)) as Restorable<I>;
    });
    try {
      await session.drain?.(this.#policy);
      for (const mount of mounts) await this.#restoreMount(session, mount);
    } catch (error) {
      await session.stop();
      await this.#closeAll();
      throw error;
    }
    this.#adopted = true;
    this.#follow(session);
    this.#logger.info(`took over ${mounts.length} mounts from the daemon before`);
  }

  get #policy(): FailoverPolicy {
    return this.#options.failoverPolicy ?? 'resend';
  }

  async #restoreMount(session: Restorable<I>, mount: RestoredMount): Promise<void> {
    const { mountpoint, source, config: text, prefetchFiles, index, generation } = mount;
    const parsed = parseConfig(text, { imagePullAuth: this.#options.imagePullAuth });
    const { config } = parsed;
    if (attachOptions(config).overlay !== undefined && session.driver?.name !== 'fanotify')
      throw new UsageError(`the writable layer at ${mountpoint} cannot be taken over`);
    const instance = await this.#parts.open({
      bootstrap: source,
      config,
      id: mountpoint,
      logger: this.#logger,
    });
    const target: MountTarget<I> = { kind: 'rafs', instance };
    const canonical = `/${mountpoint.split('/').filter(Boolean).join('/')}`;
    try {
      session.restore({ mountpoint: canonical, index, generation }, target, attachOptions(config));
    } catch (error) {
      await instance.close();
      throw error;
    }
    this.#remember({ mountpoint, source, prefetchFiles }, target, parsed, true);
  }

  /** Serve what was taken over. What the daemon before has read since is asked for again: it is gone by now. */
  async #resume(): Promise<void> {
    if (!this.#adopted) return;
    this.#adopted = false;
    await this.#session?.drain?.(this.#policy);
    await this.#session?.resume?.();
  }

  /** Go on with what a guardian keeps: the state becomes RUNNING. @param fd the daemon's from now on */
  async recover(fd: number, restored: Restored): Promise<void> {
    await this.machine.on('Mount');
    await this.#adopt(fd, () => restored);
    await this.machine.on('Start');
  }

  /** Have a guardian hold the mount from now on. */
  async keep(): Promise<void> {
    const { keeper } = this.#options;
    if (keeper === undefined || this.#session?.handover === undefined) return;
    // the kernel asks at once, and the workers answer as soon as they run
    let handover = this.#session.handover();
    for (
      let waited = 0;
      handover === undefined && waited < INIT_WAIT_MS && !this.#ending;
      waited += INIT_STEP_MS
    ) {
      await new Promise((resolve) => setTimeout(resolve, INIT_STEP_MS).unref());
      handover = this.#session.handover();
    }
    if (handover === undefined) throw new Error('the kernel does not begin: no guardian is started');
    await this.#save();
    await keeper.hold(handover.fd);
  }

  /** Store what is mounted where the next daemon finds it. */
  async #save(): Promise<void> {
    const { keeper } = this.#options;
    if (keeper === undefined) return;
    const handover = this.#session?.handover?.();
    if (handover === undefined) return;
    try {
      const { encodeHandover } = await import('./upgrade/handover.ts');
      const { KEPT_STRING } = await import('./upgrade/keeper.ts');
      keeper.save(encodeHandover(handover, this.#mounts.list(), KEPT_STRING));
    } catch (error) {
      this.#report(`the state is not saved: ${messageOf(error)}`);
    }
  }

  async #attach(
    record: MountRecord,
    target: MountTarget<I>,
    parsed: ParsedConfig | undefined,
  ): Promise<void> {
    await this.#serving().attach(record.mountpoint, target, attachOptions(parsed?.config));
    this.#remember(record, target, parsed);
    await this.#save();
  }

  #remember(
    record: MountRecord,
    target: MountTarget<I>,
    parsed: ParsedConfig | undefined,
    restored = false,
  ): void {
    const { mountpoint, source, prefetchFiles } = record;
    const config = parsed?.config;
    const configText = parsed?.text ?? '';
    const mountedAt = formatMountedTime(new Date());
    this.#mounts.set({ mountpoint, source, prefetchFiles, mountedAt, config, configText, restored, target });
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
      const there = this.#mounts.get(request.mountpoint);
      if (there !== undefined) {
        if (there.restored && isSameMount(there, request)) return;
        throw DaemonError.other('object or filesystem already exists');
      }
      const { target, parsed } = await this.#openFor(request, kind);
      try {
        await this.#attach(request, target, parsed);
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
      const { target, parsed } = await this.#openFor(request, kind);
      let retired: Promise<void>;
      try {
        ({ retired } = await this.#serving().replace(
          request.mountpoint,
          target,
          attachOptions(parsed?.config),
        ));
      } catch (error) {
        await closeTarget(target);
        throw error;
      }
      this.#remember(request, target, parsed);
      await this.#save();
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
  ): Promise<{ target: MountTarget<I>; parsed: ParsedConfig | undefined }> {
    checkPrefetchFiles(request.prefetchFiles);
    if (kind === 'passthrough') {
      checkMountpoint(request.mountpoint);
      return { target: { kind, directory: await this.#share(request.source) }, parsed: undefined };
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
      return { target: { kind, instance: await open }, parsed };
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
      await this.#save();
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
      await this.#options.keeper?.end();
      await this.#closeAll();
    });
  }

  /** End that leaves the mount. */
  exit(): Promise<void> {
    this.leaving = true;
    return this.#inTurn(async () => {
      await this.machine.exit();
      await this.#options.keeper?.end();
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

  /** Give state and connection to the supervisor, for a daemon to come. */
  sendfd(): Promise<void> {
    return this.#inTurn(async () => {
      const session = this.#session;
      if (session === undefined) throw DaemonError.notReady();
      if (this.#supervisor === null) throw DaemonError.upgradeManager('no supervisor is configured');
      if (session.handover === undefined)
        throw DaemonError.upgradeManager(
          'NoEnoughFds: a mount of the driver fileio or a writable layer cannot be handed over',
        );
      const handover = session.handover();
      if (handover === undefined) throw DaemonError.notReady();
      const { encodeHandover } = await import('./upgrade/handover.ts');
      const { sendState } = await import('./upgrade/supervisor.ts');
      try {
        await sendState(this.#supervisor, encodeHandover(handover, this.#mounts.list()), handover.fd);
      } catch (error) {
        throw DaemonError.upgradeManager(messageOf(error));
      }
    });
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

/** Whether a request asks for exactly what is mounted: the snapshotter repeats its mounts after a takeover. */
function isSameMount({ source, configText, target }: Mount, request: MountRequest): boolean {
  if (target.kind !== 'rafs' || request.source !== source) return false;
  return request.readConfig().text === configText;
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
