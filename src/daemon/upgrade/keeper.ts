// What a FUSE daemon without a supervisor leaves to a guardian: the connection and its saved state; and how the next daemon finds
// them. Source: DESIGN 2.1; docs/failover.md.
import { closeSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf, UsageError } from '../../base/errors.ts';
import { MAX_CONFIG_SIZE } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { lockForProcess } from '../../native/descriptor.ts';
import { fuseMountOf } from '../../serve/fuse/mount-info.ts';
import {
  bootId,
  endGuardian,
  isAlive,
  startRecorded,
  takeFromGuardian,
  type ProcessIdentity,
} from '../../serve/guardian/guardian.ts';
import { createSlots, readSlots, writeSlot } from '../../serve/guardian/state-slots.ts';
import { readHandover, type Restored } from './handover.ts';

/** What the guardian holds, in the order of its descriptors. */
const HELD = ['connection', 'state'] as const;
/** Nobody but us reads these states: configurations of every accepted size fit. */
export const KEPT_STRING = MAX_CONFIG_SIZE;
/** Guardians that died are replaced this often in a minute; then something kills them on purpose. */
const MAX_RESTARTS = 20;

interface KeeperRecord {
  version: 1;
  boot: string;
  guardian: ProcessIdentity;
  /** the one before it, which may not have been ended yet */
  former?: ProcessIdentity | undefined;
  held: readonly string[];
  mountpoint: string;
  /** `major:minor` of the superblock */
  device: string;
}

/** What is taken over from a guardian. */
export interface Kept {
  fd: number;
  restored: Restored;
  keeper: Keeper;
}

function readRecord(path: string): KeeperRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(path, 'utf8')) as KeeperRecord;
    const whole =
      record.version === 1 &&
      record.boot === bootId() &&
      Number.isSafeInteger(record.guardian.pid) &&
      typeof record.guardian.startTime === 'string' &&
      record.held.join() === HELD.join();
    return whole ? record : undefined;
  } catch {
    return undefined;
  }
}

function deviceAt(mountpoint: string): string | undefined {
  const info = fuseMountOf(mountpoint);
  return info === undefined ? undefined : `${info.major}:${info.minor}`;
}

function isAliveFormer({ former }: KeeperRecord): boolean {
  return former !== undefined && isAlive(former);
}

/** The guardian of one daemon. */
export class Keeper {
  readonly #path: string;
  readonly #mountpoint: string;
  readonly #logger: Logger;
  readonly #slots: number;
  #sequence: number;
  #guardian: ProcessIdentity | undefined;
  #held: number | undefined;
  #ending = false;
  #starting: Promise<void> | undefined;
  readonly #restarts: number[] = [];

  private constructor(
    path: string,
    mountpoint: string,
    logger: Logger,
    slots: number,
    before?: { sequence: number; guardian: ProcessIdentity },
  ) {
    this.#path = path;
    this.#mountpoint = mountpoint;
    this.#logger = logger;
    this.#slots = slots;
    this.#sequence = before?.sequence ?? 0;
    this.#guardian = before?.guardian;
  }

  /** For a mount that is new. */
  static create(path: string, mountpoint: string, logger: Logger): Keeper {
    const slots = createSlots();
    lockForProcess(slots);
    return new Keeper(path, mountpoint, logger, slots);
  }

  /**
   * Take what a guardian keeps at this path. What is of no use any more is cleared away: a guardian whose mount is gone, the record
   * of a guardian that has died.
   *
   * @returns undefined when there is nothing to go on with
   * @throws UsageError exit 1  another daemon serves the mount, or what is kept cannot be read
   */
  static take(path: string, mountpoint: string, logger: Logger): Kept | undefined {
    const record = readRecord(path);
    if (record === undefined) return undefined;
    const { guardian } = record;
    if ((isAlive(guardian) || isAliveFormer(record)) && record.device !== deviceAt(record.mountpoint)) {
      logger.info(
        `the mount that process ${guardian.pid} keeps is gone from ${record.mountpoint}: ending it`,
      );
      endGuardian(guardian);
      if (record.former !== undefined) endGuardian(record.former);
      rmSync(path, { force: true });
      return undefined;
    }
    const taken = takeFromGuardian(guardian, HELD.length) ?? takeFromFormer(record);
    if (taken === undefined) {
      rmSync(path, { force: true });
      return undefined;
    }
    const [fd = -1, slots = -1] = taken;
    try {
      if (record.mountpoint !== mountpoint) throw otherMountpoint(record.mountpoint, path);
      if (!lockForProcess(slots)) throw alreadyServed(mountpoint);
      const { restored, sequence } = newestState(slots);
      if (record.former !== undefined && isAlive(guardian)) endGuardian(record.former);
      const keeper = new Keeper(path, mountpoint, logger, slots, {
        sequence,
        guardian: isAlive(guardian) ? guardian : (record.former ?? guardian),
      });
      return { fd, restored, keeper };
    } catch (error) {
      for (const each of taken) closeSync(each);
      throw error;
    }
  }

  /** Keep this connection, in the place of what was kept before. @param fd stays the caller's */
  async hold(fd: number): Promise<void> {
    this.#held = fd;
    // whoever ends this waits for it: a process that is just being started would stay behind
    this.#starting = this.#replace();
    await this.#starting;
  }

  async #replace(): Promise<void> {
    const fd = this.#held;
    const device = deviceAt(this.#mountpoint);
    if (fd === undefined || device === undefined || this.#ending) return;
    const old = this.#guardian;
    try {
      const write = ([guardian]: ProcessIdentity[]): void => {
        if (guardian === undefined || this.#ending) return; // it ends, being in no record
        this.#guardian = guardian;
        const record: KeeperRecord = {
          version: 1,
          boot: bootId(),
          guardian,
          former: old,
          held: HELD,
          mountpoint: this.#mountpoint,
          device,
        };
        // the state's credentials are not in here; a crash leaves the old record or the new one
        writeFileSync(`${this.#path}.new`, `${JSON.stringify(record)}\n`, { mode: 0o600 });
        renameSync(`${this.#path}.new`, this.#path);
      };
      const held = [fd, this.#slots];
      await startRecorded(held, { path: this.#path, write }, [], (dead) => this.#onDeath(dead));
    } catch (error) {
      this.#guardian = old;
      if (this.#ending) return;
      this.#logger.error(`no guardian: ${messageOf(error)}; the mount will not outlive this daemon`);
      return;
    }
    if (old !== undefined) endGuardian(old);
  }

  #onDeath(dead: ProcessIdentity): void {
    if (this.#ending || this.#guardian?.pid !== dead.pid) return;
    const now = performance.now();
    while (this.#restarts.length > 0 && now - (this.#restarts[0] ?? now) > 60_000) this.#restarts.shift();
    if (this.#restarts.push(now) > MAX_RESTARTS) {
      this.#logger.error('guardians keep dying: no more are started, the mount will not outlive this daemon');
      return;
    }
    this.#logger.warn(`the guardian, process ${dead.pid}, has died, starting another one`);
    this.#guardian = undefined;
    this.#starting = this.#replace();
  }

  /** Store the newest state. It counts from the moment this returns. */
  save(bytes: Uint8Array): void {
    writeSlot(this.#slots, ++this.#sequence, bytes);
  }

  /** The mount ends with this daemon: nobody is to keep it. */
  async end(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    await this.#starting;
    rmSync(this.#path, { force: true });
    if (this.#guardian !== undefined) endGuardian(this.#guardian);
    closeSync(this.#slots);
  }
}

/** A daemon that was killed while it changed guardians: the old one holds the same. */
function takeFromFormer({ former }: KeeperRecord): number[] | undefined {
  return former === undefined ? undefined : takeFromGuardian(former, HELD.length);
}

function newestState(slots: number): { restored: Restored; sequence: number } {
  let problem: unknown = new Error('there is no state');
  for (const { sequence, bytes } of readSlots(slots)) {
    try {
      return { sequence, restored: readHandover(bytes, KEPT_STRING) };
    } catch (error) {
      problem = error; // a crash in the middle of a write: the state before it is there
    }
  }
  throw new UsageError(`what the guardian keeps cannot be used: ${messageOf(problem)}`, {
    cause: problem,
    exitCode: 1,
    hint: 'give the mount up: umount -l it and start again',
  });
}

function alreadyServed(mountpoint: string): UsageError {
  return new UsageError(`another nydusd serves ${mountpoint}`, {
    exitCode: 1,
    hint: 'end it first, or replace it with --supervisor and --upgrade',
  });
}

function otherMountpoint(mountpoint: string, path: string): UsageError {
  return new UsageError(`the mount at ${mountpoint} waits for its next daemon, says ${path}`, {
    exitCode: 1,
    hint: `start with --mountpoint ${mountpoint}, umount that, or name another --apisock`,
  });
}
