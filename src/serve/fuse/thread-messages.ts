// What main thread and workers tell each other. Messages to a worker are fetched when the generation word has moved.
import type { ServeOptions } from '../served-image.ts';

/** What a worker is started with. */
export interface WorkerStart {
  /** its own channel of the FUSE connection, blocking */
  deviceFd: number;
  /** SessionState */
  state: SharedArrayBuffer;
  /** what this worker shares with the main thread: `workerAreas` */
  shared: SharedArrayBuffer;
  accessLog: SharedArrayBuffer | undefined;
  serveOpen: boolean;
  startedAtSec: number;
  /** serve nothing before the first image is attached: nobody may see an empty root */
  hold: boolean;
}

/** A change of what is mounted. */
export interface BackendNews {
  sequence: number;
  /** images to put in place; `share` is the InstanceShare of rafs/ */
  attach: { index: number; generation: number; share: unknown; options: ServeOptions }[];
  detach: number[];
  /** backend index of the root, 0 = none */
  root: number;
}

/** A read whose chunks are not local; the main thread replies on `fd`. */
export interface MissReport {
  type: 'miss';
  fd: number;
  uniqueLow: number;
  uniqueHigh: number;
  index: number;
  ino: number;
  offset: number;
  size: number;
  startedAtMs: number;
}

/** What a worker reports. */
export type WorkerReport =
  | MissReport
  | { type: 'ready' }
  | { type: 'ack'; sequence: number; problem: unknown }
  | { type: 'interrupt'; uniqueLow: number; uniqueHigh: number }
  | { type: 'drain' }
  | { type: 'trace'; line: string }
  | { type: 'error'; message: string }
  /** the loop is over. errno 0: asked to; ENODEV: unmounted */
  | { type: 'end'; errno: number };
