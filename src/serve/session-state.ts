// What the threads of one session share: switches set by the main thread, and facts negotiated once by whichever
// worker gets INIT. A sleeping worker receives no messages, so it looks here at each request (DESIGN 3).

const CLAIMED = 0;
const NEGOTIATED = 1;
const GENERATION = 2;
const STOP = 3;
const TRACE = 4;
/** 64 bits each: INIT flags, `flags2` above */
const OFFERED = 5;
const AGREED = 7;
const WORDS = 16;

/** Switches in shared memory. */
export class SessionState {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(WORDS * 4)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** True for the first caller: a session is negotiated once. */
  claimInit(): boolean {
    return Atomics.compareExchange(this.#words, CLAIMED, 0, 1) === 0;
  }

  /** INIT may be tried again: it was refused, or asked for another major version. */
  unclaimInit(): void {
    Atomics.store(this.#words, CLAIMED, 0);
  }

  /** INIT was answered (or the session was taken over): requests are served from now on. */
  setNegotiated(minor: number): void {
    Atomics.store(this.#words, CLAIMED, 1);
    Atomics.store(this.#words, NEGOTIATED, minor);
  }

  /** What the kernel offered in INIT and what we took of it; for a successor. */
  setOptions(offered: bigint, agreed: bigint): void {
    const put = (at: number, value: bigint): void => {
      Atomics.store(this.#words, at, Number(value & 0xffff_ffffn) | 0);
      Atomics.store(this.#words, at + 1, Number(value >> 32n) | 0);
    };
    put(OFFERED, offered);
    put(AGREED, agreed);
  }

  #options(at: number): bigint {
    const word = (i: number): bigint => BigInt(Atomics.load(this.#words, i) >>> 0);
    return (word(at + 1) << 32n) | word(at);
  }

  get offered(): bigint {
    return this.#options(OFFERED);
  }

  get agreed(): bigint {
    return this.#options(AGREED);
  }

  /** Protocol minor in use; 0 = INIT has not been answered. */
  get minor(): number {
    return Atomics.load(this.#words, NEGOTIATED);
  }

  /** Counts the news that workers have to fetch. */
  get generation(): number {
    return Atomics.load(this.#words, GENERATION);
  }

  /** Tell workers that a message waits for them. Post it first, and interrupt those that sleep in a read. */
  announce(): number {
    const generation = Atomics.add(this.#words, GENERATION, 1) + 1;
    Atomics.notify(this.#words, GENERATION);
    return generation;
  }

  /** Sleep until the generation is no longer `seen`. Never on a thread that others wait for. */
  waitForNews(seen: number): void {
    Atomics.wait(this.#words, GENERATION, seen);
  }

  get stopping(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }

  /** Ask workers to end; announce it afterwards. */
  stop(): void {
    Atomics.store(this.#words, STOP, 1);
  }

  /** One log line per operation. */
  get trace(): boolean {
    return Atomics.load(this.#words, TRACE) !== 0;
  }

  set trace(on: boolean) {
    Atomics.store(this.#words, TRACE, on ? 1 : 0);
  }
}
