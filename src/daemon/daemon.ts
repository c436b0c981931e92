// The daemon between its API and the filesystem side: which image is mounted, the state machine, settings that
// change at run time. Source: nydusd.md 4, 5.6, 5.8, 5.9.
import { messageOf } from '../base/errors.ts';
import { LOG_LEVELS, type LogLevel, type Logger } from '../base/log.ts';
import type { ParsedConfig } from '../storage/config-parse.ts';
import { DaemonError } from './api-error.ts';
import { EventRing } from './events.ts';
import { attachFailure } from './mount-failure.ts';
import { fsKind, type MountRequest } from './mount-request.ts';
import { formatMountedTime, Mounts, type MountRecord } from './mounts.ts';
import type { DaemonParts, FailoverPolicy, ImageInstance, MountSession, MountTarget } from './parts.ts';
import { Reports } from './reports.ts';
import { StateMachine } from './state-machine.ts';
import { attachOptions, closeTarget, isSameMount, openTarget } from './targets.ts';
import type { Keeper } from './upgrade/keeper.ts';
import type { Restored } from './upgrade/handover.ts';
import { Succession } from './upgrade/succession.ts';

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

export class Daemon<I extends ImageInstance = ImageInstance> {
  readonly events: EventRing;
  readonly machine: StateMachine;
  readonly settings = new Map<string, string>();
  readonly #parts: DaemonParts<I>;
  readonly #logger: Logger & { level: LogLevel };
  readonly #succession: Succession<I>;
  /** what the API tells of it */
  readonly reports: Reports<I>;
  /** resolves when the kernel's mount, whichever it was, has ended */
  readonly ended: Promise<void>;
  #resolveEnded: () => void = () => {};
  /** an exit request is being served: the workers end, the mount stays */
  leaving = false;
  #ending = false;
  #session: MountSession<I> | undefined;
  readonly #mounts = new Mounts<I>();
  readonly #retiring = new Set<Promise<void>>();
  /** mounts, unmounts and state changes, one after another */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: DaemonOptions<I>) {
    this.ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#parts = options.parts;
    this.#logger = options.logger;
    this.events = new EventRing();
    this.machine = new StateMachine(
      {
        restore: () => this.#closeAll().then(() => this.#succession.restore()),
        startService: () => this.#succession.resume(),
        // on the way out the mount goes first: workers in the kernel's hands come back then
        stopService: async () => (this.#ending ? this.#session?.unmount() : this.#session?.stop()),
        unmount: async () => this.#unmountAll(),
      },
      (from, to, event) => this.#logger.info(`state machine: from ${from} to ${to}, input ${event}`),
    );
    const { id = null, supervisor = null, failoverPolicy = 'resend', parts, logger } = options;
    const { adopt, keeper, imagePullAuth } = options;
    const common = { supervisor, mounts: this.#mounts, session: () => this.#session };
    this.reports = new Reports({ ...common, id, machine: this.machine });
    this.#succession = new Succession({
      ...common,
      parts,
      logger,
      adopt,
      keeper,
      imagePullAuth,
      policy: failoverPolicy,
      isEnding: () => this.#ending,
      follow: (session) => this.#follow(session),
      remember: (record, target, parsed) => this.#remember(record, target, parsed, true),
      closeAll: () => this.#closeAll(),
      report: (text) => this.#report(text),
    });
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

  /** Go on with what a guardian keeps: the state becomes RUNNING. @param fd the daemon's from now on */
  async recover(fd: number, restored: Restored): Promise<void> {
    await this.machine.on('Mount');
    await this.#succession.adopt(fd, () => restored);
    await this.machine.on('Start');
  }

  /** Have a guardian hold the mount from now on. */
  keep(): Promise<void> {
    return this.#succession.keep();
  }

  async #attach(
    record: MountRecord,
    target: MountTarget<I>,
    parsed: ParsedConfig | undefined,
  ): Promise<void> {
    if (this.#waits) return this.#list(record, target, parsed, false);
    await this.#serving().attach(record.mountpoint, target, attachOptions(parsed?.config));
    this.#remember(record, target, parsed);
    await this.#succession.save();
  }

  /**
   * True before a takeover. What is mounted until then is checked, listed, and shown nowhere; what the supervisor has takes its
   * place. Source: nydusd.md 5.6.
   */
  get #waits(): boolean {
    return this.#session === undefined && this.machine.visible === 'INIT';
  }

  #list(
    record: MountRecord,
    target: MountTarget<I>,
    parsed: ParsedConfig | undefined,
    restored: boolean,
  ): void {
    const { mountpoint, source, prefetchFiles } = record;
    const config = parsed?.config;
    const configText = parsed?.text ?? '';
    const mountedAt = formatMountedTime(new Date());
    this.#mounts.set({ mountpoint, source, prefetchFiles, mountedAt, config, configText, restored, target });
  }

  #remember(
    record: MountRecord,
    target: MountTarget<I>,
    parsed: ParsedConfig | undefined,
    restored = false,
  ): void {
    const { mountpoint, source, prefetchFiles } = record;
    this.#list(record, target, parsed, restored);
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
    if (parsed?.config.rafs?.prefetch.enable !== true) return;
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
      const { target, parsed } = await openTarget(request, kind, this.#parts, this.#logger);
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
      const { target, parsed } = await openTarget(request, kind, this.#parts, this.#logger);
      if (this.#waits) {
        this.#list(request, target, parsed, false);
        return closeTarget(old.target);
      }
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
      await this.#succession.save();
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

  /** Unmount by API. */
  unmountImage(mountpoint: string): Promise<void> {
    return this.#inTurn(async () => {
      const mount = this.#mounts.get(mountpoint);
      if (mount === undefined) throw DaemonError.other("object or filesystem doesn't exist");
      if (!this.#waits) await this.#serving().detach(mountpoint);
      this.#mounts.delete(mountpoint);
      await this.#succession.save();
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
      await this.#succession.end();
      await this.#closeAll();
    });
  }

  /** End that leaves the mount. */
  exit(): Promise<void> {
    this.leaving = true;
    return this.#inTurn(async () => {
      await this.machine.exit();
      await this.#succession.end();
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
    return this.#inTurn(() => this.#succession.send());
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
