// Reads whose chunks are not local: the main thread fetches them and replies on the worker's channel itself, so that
// the worker is already at its next request. An INTERRUPT of the kernel cancels such a read (EINTR).
import { constants } from 'node:os';
import { errnoOf } from '../../base/errno.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { tryWrite } from '../../native/descriptor.ts';
import { Fop, type CounterSet } from '../counters.ts';
import { Opcode } from '../opcodes.ts';
import { offsetsOf, outHeader } from '../protocol.ts';
import type { Accounting } from './accounting.ts';
import type { SessionInstance } from './session.ts';
import type { MissReport } from './thread-messages.ts';

const { EINTR, ENOENT } = constants.errno;

const O = offsetsOf(outHeader);
const WORD = 0x1_0000_0000;
/** Interrupts that came before the read they are for: two workers' messages may overtake each other. */
const MAX_EARLY_INTERRUPTS = 64;

/** One request being served; fields of the API. */
export interface InFlight {
  inode: bigint;
  opcode: number;
  unique: bigint;
  timestamp_secs: number;
}

interface Pending {
  report: MissReport;
  instance: SessionInstance;
  controller: AbortController;
  done: Promise<void>;
}

/** `unique` as a number: it counts up from 0, and bit 63 only marks a repetition. */
function keyOf(low: number, high: number): number {
  return (high & 0x7fff_ffff) * WORD + low;
}

/** Answers deferred reads. */
export class MissReader {
  readonly #instances = new Map<number, SessionInstance>();
  readonly #pending = new Map<number, Pending>();
  readonly #earlyInterrupts = new Set<number>();
  readonly #counters: CounterSet;
  readonly #accounting: Accounting;
  readonly #logger: Logger;
  #muted = false;

  constructor(counters: CounterSet, accounting: Accounting, logger: Logger) {
    this.#counters = counters;
    this.#accounting = accounting;
    this.#logger = logger;
  }

  /** Which image is at a backend index. */
  setInstance(index: number, instance: SessionInstance | undefined): void {
    if (instance === undefined) this.#instances.delete(index);
    else this.#instances.set(index, instance);
  }

  /** Begin to serve a read. */
  start(report: MissReport): void {
    const instance = this.#instances.get(report.index);
    const key = keyOf(report.uniqueLow, report.uniqueHigh);
    if (instance === undefined) {
      this.#reply(report, Buffer.alloc(outHeader.size), -ENOENT);
      return;
    }
    const controller = new AbortController();
    const pending: Pending = { report, instance, controller, done: Promise.resolve() };
    this.#pending.set(key, pending);
    if (this.#earlyInterrupts.delete(key)) controller.abort();
    pending.done = this.#serve(pending).finally(() => this.#pending.delete(key));
  }

  async #serve({ report, instance, controller }: Pending): Promise<void> {
    let buffer = Buffer.allocUnsafeSlow(outHeader.size + report.size);
    let result: number;
    try {
      const target = buffer.subarray(outHeader.size);
      result = await instance.read(report.ino, report.offset, report.size, target, controller.signal);
    } catch (error) {
      result = controller.signal.aborted ? -EINTR : -errnoOf(error);
      if (result !== -EINTR)
        this.#logger.error(`read of inode ${report.ino} at ${report.offset}: ${messageOf(error)}`);
      buffer = buffer.subarray(0, outHeader.size);
    }
    const micros = (performance.timeOrigin + performance.now() - report.startedAtMs) * 1000;
    const size = Math.max(0, result);
    this.#counters.at(report.index).countRead(size, Math.max(0, micros), result >= 0);
    this.#accounting.record(report.index, Fop.read, report.ino, size, result < 0, Date.now() / 1000);
    this.#reply(report, buffer, result);
  }

  #reply(report: MissReport, buffer: Buffer, result: number): void {
    if (this.#muted) return;
    const length = outHeader.size + Math.max(0, result);
    buffer.writeUInt32LE(length, O.len);
    buffer.writeInt32LE(Math.min(0, result), O.error);
    buffer.writeUInt32LE(report.uniqueLow, O.unique);
    buffer.writeUInt32LE(report.uniqueHigh, O.unique + 4);
    // a failed write is no error here: ENOENT = interrupted, ENODEV = unmounted
    tryWrite(report.fd, buffer.subarray(0, length));
  }

  /** The kernel has given up on a request. */
  interrupt(low: number, high: number): void {
    const key = keyOf(low, high);
    const pending = this.#pending.get(key);
    if (pending !== undefined) pending.controller.abort();
    else {
      this.#earlyInterrupts.add(key);
      const [oldest] = this.#earlyInterrupts;
      if (this.#earlyInterrupts.size > MAX_EARLY_INTERRUPTS && oldest !== undefined)
        this.#earlyInterrupts.delete(oldest);
    }
  }

  /** Answer nothing from now on: a successor will. */
  mute(): void {
    this.#muted = true;
  }

  /** Give up all reads, or those of one image. */
  cancel(instance?: SessionInstance): void {
    for (const pending of this.#pending.values()) {
      if (instance === undefined || pending.instance === instance) pending.controller.abort();
    }
  }

  /** Wait until no read is under way, or none of one image. */
  async settled(instance?: SessionInstance): Promise<void> {
    const wanted = [...this.#pending.values()].filter(
      (pending) => instance === undefined || pending.instance === instance,
    );
    await Promise.all(wanted.map(({ done }) => done));
  }

  /** Reads under way. */
  inFlight(): InFlight[] {
    return [...this.#pending.values()].map(({ report }) => ({
      inode: (BigInt(report.index) << 56n) | BigInt(report.ino),
      opcode: Opcode.READ,
      unique: (BigInt(report.uniqueHigh) << 32n) | BigInt(report.uniqueLow),
      timestamp_secs: Math.floor(report.startedAtMs / 1000),
    }));
  }
}
