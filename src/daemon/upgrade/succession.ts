// How one daemon follows another: what is handed to a supervisor or saved for a guardian, and how a daemon goes on with what it
// gets from either. Source: nydusd.md 12; docs/failover.md.
import { closeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { parseConfig, type ParsedConfig } from '../../storage/config-parse.ts';
import { DaemonError } from '../api-error.ts';
import { osErrorDebug } from '../mount-failure.ts';
import type { MountRecord, Mounts } from '../mounts.ts';
import type {
  DaemonParts,
  FailoverPolicy,
  Handover,
  ImageInstance,
  MountSession,
  MountTarget,
} from '../parts.ts';
import { attachOptions } from '../targets.ts';
import type { Restorable, Restored, RestoredMount } from './handover.ts';
import type { Keeper } from './keeper.ts';

/** How long the kernel's first request may take before nothing is handed over. */
const INIT_WAIT_MS = 10_000;
const INIT_STEP_MS = 5;

export interface SuccessionOptions<I extends ImageInstance> {
  parts: DaemonParts<I>;
  logger: Logger;
  supervisor: string | null;
  /** for requests that a daemon before has read and not answered */
  policy: FailoverPolicy;
  /** how to go on with a connection; without it there is no taking over */
  adopt?: ((fd: number, restored: Restored) => Promise<MountSession<I>>) | undefined;
  /** keeps the mount when this process dies */
  keeper?: Keeper | undefined;
  imagePullAuth?: string | undefined;
  mounts: Mounts<I>;
  session: () => MountSession<I> | undefined;
  /** true once the daemon is going to unmount */
  isEnding: () => boolean;
  /** serve this session from now on */
  follow(session: MountSession<I>): void;
  /** something is shown again */
  remember(record: MountRecord, target: MountTarget<I>, parsed: ParsedConfig | undefined): void;
  /** close everything that was remembered */
  closeAll: () => Promise<void>;
  /** for the log, and for the events that the API shows */
  report: (text: string) => void;
}

export class Succession<I extends ImageInstance> {
  readonly #options: SuccessionOptions<I>;
  /** the session was taken over and does not serve yet */
  #adopted = false;

  constructor(options: SuccessionOptions<I>) {
    this.#options = options;
  }

  /** Takeover: the session and everything in it from what the supervisor keeps. */
  async restore(): Promise<void> {
    const { supervisor, logger, report } = this.#options;
    if (supervisor === null) throw DaemonError.upgradeManager('no supervisor is configured');
    const { receiveState } = await import('./supervisor.ts');
    const { readHandover } = await import('./handover.ts');
    try {
      const { bytes, fd, extra } = await receiveState(supervisor);
      if (extra > 0) logger.warn(`${extra} descriptors too many from the supervisor`);
      await this.adopt(fd, () => readHandover(bytes));
    } catch (error) {
      report(`takeover: ${messageOf(error)}`);
      throw DaemonError.upgradeManager(messageOf(error));
    }
  }

  /** Take a connection over with everything that is shown on it. @param fd this process's from now on, whatever happens */
  async adopt(fd: number, read: () => Restored): Promise<void> {
    const { adoptOrClose } = await import('./handover.ts');
    const { adopt, policy, closeAll, logger } = this.#options;
    let mounts: RestoredMount[] = [];
    const session = await adoptOrClose(fd, async () => {
      const restored = read();
      if (adopt === undefined) throw new Error('this daemon cannot take over');
      mounts = restored.mounts;
      return (await adopt(fd, restored)) as Restorable<I>;
    });
    try {
      await session.drain?.(policy);
      for (const mount of mounts) await this.#restoreMount(session, mount);
    } catch (error) {
      await session.stop();
      await closeAll();
      throw error;
    }
    this.#adopted = true;
    this.#options.follow(session);
    logger.info(`took over ${mounts.length} mounts from the daemon before`);
  }

  async #restoreMount(session: Restorable<I>, mount: RestoredMount): Promise<void> {
    const { parts, logger, imagePullAuth } = this.#options;
    const { mountpoint, source, config: text, prefetchFiles, index, generation } = mount;
    const parsed = parseConfig(text, { imagePullAuth });
    const { config } = parsed;
    const instance = await parts.open({ bootstrap: source, config, id: mountpoint, logger });
    const target: MountTarget<I> = { kind: 'rafs', instance };
    const canonical = `/${mountpoint.split('/').filter(Boolean).join('/')}`;
    try {
      session.restore({ mountpoint: canonical, index, generation }, target, attachOptions(config));
    } catch (error) {
      await instance.close();
      throw error;
    }
    this.#options.remember({ mountpoint, source, prefetchFiles }, target, parsed);
  }

  /** Serve what was taken over. What the daemon before has read since is asked for again: it is gone by now. */
  async resume(): Promise<void> {
    if (!this.#adopted) return;
    this.#adopted = false;
    const session = this.#options.session();
    await session?.drain?.(this.#options.policy);
    await session?.resume?.();
  }

  /** Have a guardian hold the mount from now on. */
  async keep(): Promise<void> {
    const { keeper, session } = this.#options;
    const pack = session()?.handover;
    if (keeper === undefined || pack === undefined) return;
    const handover = await this.#begun(pack);
    if (handover === undefined) throw new Error('the kernel does not begin: no guardian is started');
    await this.save();
    await keeper.hold(handover.fd);
  }

  /** What is handed over, once the kernel has been answered: it asks at once, and the workers answer as soon as they run. */
  async #begun(pack: () => Handover | undefined): Promise<Handover | undefined> {
    let handover = pack();
    for (
      let waited = 0;
      handover === undefined && waited < INIT_WAIT_MS && !this.#options.isEnding();
      waited += INIT_STEP_MS
    ) {
      await new Promise((resolve) => setTimeout(resolve, INIT_STEP_MS).unref());
      handover = pack();
    }
    return handover;
  }

  /** Store what is mounted where the next daemon finds it. */
  async save(): Promise<void> {
    const { keeper, session, mounts, report } = this.#options;
    if (keeper === undefined) return;
    const handover = session()?.handover?.();
    if (handover === undefined) return;
    try {
      const { encodeHandover } = await import('./handover.ts');
      const { KEPT_STRING } = await import('./keeper.ts');
      keeper.save(encodeHandover(handover, mounts.list(), KEPT_STRING));
    } catch (error) {
      report(`the state is not saved: ${messageOf(error)}`);
    }
  }

  /** Give state and connection to the supervisor, for a daemon to come. */
  async send(): Promise<void> {
    const { supervisor, mounts, report } = this.#options;
    const session = this.#options.session();
    if (session === undefined) throw DaemonError.notReady();
    if (supervisor === null) throw DaemonError.upgradeManager('no supervisor is configured');
    if (session.handover === undefined)
      throw DaemonError.upgradeManager('NoEnoughFds: nothing is mounted that could be handed over');
    const handover = await this.#begun(session.handover);
    if (handover === undefined) throw DaemonError.notReady();
    const { encodeHandover } = await import('./handover.ts');
    const { sendState, SupervisorUnreachable } = await import('./supervisor.ts');
    let parcel: number | undefined;
    try {
      if (handover.kernel !== undefined) {
        const { packConnection } = await import('../../serve/erofs/left.ts');
        parcel = packConnection(handover.fd, handover.kernel);
      }
      await sendState(supervisor, encodeHandover(handover, mounts.list()), parcel ?? handover.fd);
    } catch (error) {
      report(`sendfd: ${messageOf(error)}`);
      const os = error instanceof SupervisorUnreachable ? osErrorDebug(error.cause) : undefined;
      // the words of golden/api, exchange 175
      throw DaemonError.upgradeManager(
        os === undefined ? messageOf(error) : `StorageBackendError(CreateUnixStream(${os}))`,
      );
    } finally {
      if (parcel !== undefined) closeSync(parcel);
    }
  }

  /** The mount does not outlive this daemon any more. */
  async end(): Promise<void> {
    await this.#options.keeper?.end();
  }
}
