// What main thread and workers tell each other. Messages to a worker are fetched when the generation word has moved.
import type { PassthroughShare } from '../passthrough/passthrough-fs.ts';
import type { PseudoNode } from '../pseudo/pseudo-tree.ts';
import type { ServeOptions } from '../served-image.ts';

/** What a worker is told first. */
export interface WorkerStart {
  /** its own channel of the FUSE connection, blocking */
  deviceFd: number;
  /** stay on this CPU, and sleep in poll: every request wakes all workers, and the one beside the client is first */
  cpu: number | undefined;
  /** SessionState */
  state: SharedArrayBuffer;
  /** what this worker shares with the main thread: `workerAreas` */
  shared: SharedArrayBuffer;
  /** ring of the statistics per inode */
  accessLog: SharedArrayBuffer;
  serveOpen: boolean;
  startedAtSec: number;
  /** serve nothing before the first image is attached: nobody may see an empty root */
  hold: boolean;
}

/** Something to put at a backend index. */
export type Attachment =
  | {
      kind: 'rafs';
      index: number;
      generation: number;
      /** InstanceShare of rafs/ */
      share: unknown;
      options: ServeOptions;
      /** note uses of inodes */
      accounting: boolean;
    }
  | { kind: 'passthrough'; index: number; share: PassthroughShare };

/** A change of what is mounted. */
export interface BackendNews {
  sequence: number;
  attach: Attachment[];
  detach: number[];
  /** the directories above what is mounted */
  pseudo: PseudoNode[];
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
