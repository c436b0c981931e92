// Layout of the memory a worker shares with the main thread: counters, in-flight slot, lookup counts.
import { COUNTER_BYTES, Counters } from '../counters.ts';
import { IN_FLIGHT_WORDS } from '../dispatcher.ts';

const BACKENDS = 256;
const SLOT_BYTES = 64;
const LOOKUPS_AT = COUNTER_BYTES + SLOT_BYTES;

export const WORKER_AREA_BYTES = LOOKUPS_AT + BACKENDS * 8;

/** Views of one worker's area. */
export interface WorkerAreas {
  counters: Counters;
  inFlight: Uint32Array;
  lookups: Float64Array;
}

/** Look at an area of WORKER_AREA_BYTES. */
export function workerAreas(buffer: SharedArrayBuffer): WorkerAreas {
  return {
    counters: new Counters(buffer),
    inFlight: new Uint32Array(buffer, COUNTER_BYTES, IN_FLIGHT_WORDS),
    lookups: new Float64Array(buffer, LOOKUPS_AT, BACKENDS),
  };
}
