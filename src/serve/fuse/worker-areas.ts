// Layout of the memory a worker shares with the main thread: counters, in-flight slot, presence, lookup counts.
import { BACKENDS, COUNTER_SET_BYTES, CounterSet } from '../counters.ts';
import { IN_FLIGHT_WORDS } from '../dispatcher.ts';

const SLOT_BYTES = 64;
const PRESENCE_AT = COUNTER_SET_BYTES + SLOT_BYTES;
const PRESENCE_BYTES = 64;
const LOOKUPS_AT = PRESENCE_AT + PRESENCE_BYTES;

const THREAD_ID = 0;
const SEEN = 1;
const DONE = 2;
const PRESENCE_WORDS = 3;

export const WORKER_AREA_BYTES = LOOKUPS_AT + BACKENDS * 8;

/** What a worker says of itself without a message: it may be asleep in a system call. */
export class Presence {
  readonly #words: Int32Array;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  /** Kernel id of the thread; 0 before it has begun. */
  get threadId(): number {
    return Atomics.load(this.#words, THREAD_ID);
  }

  set threadId(id: number) {
    Atomics.store(this.#words, THREAD_ID, id);
  }

  /** Generation of the news it has taken. */
  get seen(): number {
    return Atomics.load(this.#words, SEEN);
  }

  set seen(generation: number) {
    Atomics.store(this.#words, SEEN, generation);
  }

  /** It will not read from its channel any more. */
  get done(): boolean {
    return Atomics.load(this.#words, DONE) !== 0;
  }

  setDone(): void {
    Atomics.store(this.#words, DONE, 1);
  }
}

/** Views of one worker's area. */
export interface WorkerAreas {
  counters: CounterSet;
  inFlight: Uint32Array;
  presence: Presence;
  lookups: Float64Array;
}

/** Look at an area of WORKER_AREA_BYTES. */
export function workerAreas(buffer: SharedArrayBuffer): WorkerAreas {
  return {
    counters: new CounterSet(buffer),
    inFlight: new Uint32Array(buffer, COUNTER_SET_BYTES, IN_FLIGHT_WORDS),
    presence: new Presence(new Int32Array(buffer, PRESENCE_AT, PRESENCE_WORDS)),
    lookups: new Float64Array(buffer, LOOKUPS_AT, BACKENDS),
  };
}
