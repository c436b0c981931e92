// One request in, one reply out: checks the header, finds row and inode, runs the handler, writes the reply header.
// Knows no transport. No promise, no bigint and no allocation for common requests (PERFORMANCE 1: 4 µs per operation).
import { constants } from 'node:os';
import { errnoOf } from '../base/errno.ts';
import { BACKENDS, Fop, type CounterSet } from './counters.ts';
import { DirectoryFiller } from './directory-filler.ts';
import { DEFERRED, NO_REPLY, type DeferredRead, type Exchange } from './exchange.ts';
import type { MessageBuffer } from './message-buffer.ts';
import { MAX_OPCODE, Opcode, ROOT_NODEID } from './opcodes.ts';
import { OP_BY_NUMBER, type Op } from './ops.ts';
import { inHeader, offsetsOf, outHeader } from './protocol.ts';
import type { PassthroughFs } from './passthrough/passthrough-fs.ts';
import { PseudoView } from './pseudo/pseudo-view.ts';
import type { ServedImage } from './served-image.ts';
import type { SessionState } from './session-state.ts';

const { EINVAL, EIO, ENODATA, ENOENT, ENOSYS, ENOTDIR } = constants.errno;

const H = offsetsOf(inHeader);
const O = offsetsOf(outHeader);
const WORD = 0x1_0000_0000;

/** Words of one thread's in-flight slot: opcode (0 = idle), node id, unique, seconds since 1970. */
export const IN_FLIGHT_WORDS = 6;

export interface DispatcherOptions {
  state: SessionState;
  serveOpen: boolean;
  startedAtSec: number;
  counters: CounterSet;
  /** this thread's in-flight slot, IN_FLIGHT_WORDS long */
  inFlight: Uint32Array;
  /** lookups held by the kernel, by backend index; 256 numbers */
  lookups: Float64Array;
  /** a request was interrupted: halves of its `unique` */
  interrupt?: ((low: number, high: number) => void) | undefined;
  /** something threw that was not foreseen */
  report?: ((op: string, error: unknown) => void) | undefined;
}

/** Serves requests of one thread. */
export class Dispatcher implements Exchange {
  readonly state: SessionState;
  readonly serveOpen: boolean;
  readonly startedAtSec: number;
  readonly filler: DirectoryFiller;
  readonly lookups: Float64Array;
  readonly deferred: DeferredRead = { index: 0, ino: 0, offset: 0, size: 0, startedAtMs: 0 };
  request!: MessageBuffer;
  reply!: MessageBuffer;
  length = 0;
  image: ServedImage | undefined = undefined;
  ino = 0;
  interrupt: ((low: number, high: number) => void) | undefined;
  /** performance.now() when the request of the wire log began; kept only while tracing */
  beganAtMs = 0;
  pseudo = new PseudoView();
  readonly #images: (ServedImage | undefined)[] = Array.from({ length: BACKENDS });
  readonly #directories: (PassthroughFs | undefined)[] = Array.from({ length: BACKENDS });
  readonly #counters: CounterSet;
  /** shared directories there are: without any, no request looks for one */
  #directoryCount = 0;
  /** backend index of the request */
  #index = 0;
  readonly #inFlight: Uint32Array;
  readonly #report: ((op: string, error: unknown) => void) | undefined;
  #rootIndex = 0;

  constructor(options: DispatcherOptions) {
    this.state = options.state;
    this.serveOpen = options.serveOpen;
    this.startedAtSec = options.startedAtSec;
    this.lookups = options.lookups;
    this.filler = new DirectoryFiller(options.lookups);
    this.interrupt = options.interrupt;
    this.#counters = options.counters;
    this.#inFlight = options.inFlight;
    this.#report = options.report;
  }

  /** Put an image at its index, or take away what is there. */
  setImage(index: number, image: ServedImage | undefined): void {
    this.#images[index]?.source.close?.();
    this.#images[index] = image;
  }

  /** Put a shared directory at its index, or take away what is there. */
  setDirectory(index: number, directory: PassthroughFs | undefined): void {
    this.#directories[index] = directory;
    this.#directoryCount = this.#directories.filter((known) => known !== undefined).length;
  }

  /** Which backend the root of the mount is; 0 = a pseudo directory. */
  setRoot(index: number): void {
    this.#rootIndex = index;
  }

  imageAt(index: number): ServedImage | undefined {
    return this.#images[index];
  }

  directoryAt(index: number): PassthroughFs | undefined {
    return this.#directories[index];
  }

  /**
   * Serve one request.
   *
   * @param length bytes of the request
   * @returns bytes of the reply; 0 = there is none; DEFERRED = `deferred` says what the main thread must read
   */
  dispatch(request: MessageBuffer, length: number, reply: MessageBuffer): number {
    this.request = request;
    this.reply = reply;
    this.length = length;
    if (this.state.trace) this.beganAtMs = performance.now();
    const view = request.view;
    if (length < inHeader.size) return length < H.nodeid ? 0 : this.#finish(-EINVAL);
    if (view.getUint32(H.len, true) !== length) return this.#finish(-EINVAL);
    const opcode = view.getUint32(H.opcode, true);
    const row = opcode < MAX_OPCODE ? OP_BY_NUMBER[opcode] : undefined;
    if (row === undefined) return this.#finish(-ENOSYS);
    if (length < inHeader.size + row.size) return row.replies ? this.#finish(-EINVAL) : 0;
    if (this.state.minor === 0 && opcode !== Opcode.INIT) return row.replies ? this.#finish(-EIO) : 0;
    this.#begin(opcode);
    const result = opcode === Opcode.READ ? this.#timedRead(row) : this.#run(row);
    this.#inFlight[0] = 0;
    if (result === DEFERRED) return DEFERRED;
    return result === NO_REPLY ? 0 : this.#finish(result);
  }

  #begin(opcode: number): void {
    const view = this.request.view;
    const slot = this.#inFlight;
    slot[1] = view.getUint32(H.nodeid, true);
    slot[2] = view.getUint32(H.nodeid + 4, true);
    slot[3] = view.getUint32(H.unique, true);
    slot[4] = view.getUint32(H.unique + 4, true);
    slot[5] = Date.now() / 1000;
    slot[0] = opcode;
  }

  #run(row: Op): number {
    if (row.fop < 0) return this.#serve(row);
    const start = performance.now();
    const result = this.#serve(row);
    if (row.fop !== Fop.read) {
      const success = result >= 0 || result === -ENODATA || result === NO_REPLY;
      this.#counters.at(this.#index).count(row.fop, (performance.now() - start) * 1000, success);
      if (this.image !== undefined) this.image.accessLog?.add(this.#index, row.fop, this.ino, 0, !success);
    }
    return result;
  }

  #serve(row: Op): number {
    const directory = this.#directoryCount === 0 ? undefined : this.#directoryOf();
    let result = row.node && directory === undefined ? this.#resolve() : 0;
    if (result !== 0) return result;
    try {
      if (directory !== undefined && row.replies) result = directory.handle(row.opcode, this);
      else result = row.handler(this);
    } catch (error) {
      result = -this.#errnoFor(row, error);
    }
    return result;
  }

  #timedRead(row: Op): number {
    const start = performance.now();
    const result = this.#run(row);
    if (result === DEFERRED) {
      this.deferred.startedAtMs = performance.timeOrigin + start;
      return result;
    }
    const micros = (performance.now() - start) * 1000;
    this.#counters.at(this.#index).countRead(result < 0 ? 0 : result, micros, result >= 0);
    this.image?.accessLog?.add(this.#index, Fop.read, this.ino, result < 0 ? 0 : result, result < 0);
    return result;
  }

  /** The shared directory that the node id belongs to. */
  #directoryOf(): PassthroughFs | undefined {
    const view = this.request.view;
    const high = view.getUint32(H.nodeid + 4, true);
    const isRoot = high === 0 && view.getUint32(H.nodeid, true) === ROOT_NODEID;
    const index = isRoot ? this.#rootIndex : high >>> 24;
    const directory = this.#directories[index];
    if (directory === undefined) return undefined;
    this.image = undefined;
    this.#index = index;
    return directory;
  }

  /** Find image and inode number of the node id; 0, or minus an errno. */
  #resolve(): number {
    const view = this.request.view;
    const low = view.getUint32(H.nodeid, true);
    const high = view.getUint32(H.nodeid + 4, true);
    this.image = undefined;
    if (high === 0) {
      this.#index = low === ROOT_NODEID ? this.#rootIndex : 0;
      this.image = this.#images[this.#index];
      this.ino = this.image === undefined ? low : this.image.image.rootIno;
      return this.image !== undefined || this.pseudo.has(low) ? 0 : -ENOENT;
    }
    this.#index = high >>> 24;
    this.image = this.#images[this.#index];
    if (this.image === undefined) return -ENOENT;
    this.ino = (high & 0xff_ffff) * WORD + low;
    return 0;
  }

  /** Errno for what a handler threw. */
  #errnoFor(row: Op, error: unknown): number {
    const directoryOp =
      row.opcode === Opcode.LOOKUP || row.opcode === Opcode.READDIR || row.opcode === Opcode.READDIRPLUS;
    if (directoryOp && this.image?.isDirectory(this.ino) === false) return ENOTDIR;
    this.#report?.(row.name, error);
    return errnoOf(error);
  }

  /** Write the reply header. @param result payload bytes or minus an errno  @returns bytes of the reply */
  #finish(result: number): number {
    const from = this.request.view;
    const to = this.reply.view;
    const length = result > 0 ? outHeader.size + result : outHeader.size;
    to.setUint32(O.len, length, true);
    to.setInt32(O.error, result < 0 ? result : 0, true);
    to.setUint32(O.unique, from.getUint32(H.unique, true), true);
    to.setUint32(O.unique + 4, from.getUint32(H.unique + 4, true), true);
    return length;
  }
}
