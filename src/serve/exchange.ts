// What a handler sees of one request, and what it may answer. One object per thread, reused for every request.
import type { MessageBuffer } from './message-buffer.ts';
import type { DirectoryFiller } from './directory-filler.ts';
import type { PassthroughFs } from './passthrough/passthrough-fs.ts';
import type { PseudoView } from './pseudo/pseudo-view.ts';
import type { ServedImage } from './served-image.ts';
import type { SessionState } from './session-state.ts';

/** Answer of a handler: no reply at all (FORGET, INTERRUPT). */
export const NO_REPLY = -0x1_0000;
/** Answer of a handler, and of `Dispatcher.dispatch`: somebody else replies later (`deferred` says what is wanted). */
export const DEFERRED = -0x1_0001;

/** A read that needs chunks from the backend. */
export interface DeferredRead {
  index: number;
  ino: number;
  offset: number;
  size: number;
  /** when the request came: milliseconds since 1970, with fractions */
  startedAtMs: number;
}

/** State of the request being handled. */
export interface Exchange {
  readonly state: SessionState;
  /** OPEN and OPENDIR are answered; otherwise ENOSYS tells the kernel to stop asking */
  readonly serveOpen: boolean;
  /** seconds since 1970 at which the session began; times of pseudo directories */
  readonly startedAtSec: number;
  readonly filler: DirectoryFiller;
  /** lookups the kernel holds per backend index */
  readonly lookups: Float64Array;
  readonly deferred: DeferredRead;
  request: MessageBuffer;
  reply: MessageBuffer;
  /** bytes of the request */
  length: number;
  /** directories above what is mounted */
  readonly pseudo: PseudoView;
  /** the image behind the node id; undefined for a pseudo directory */
  image: ServedImage | undefined;
  /** inode number inside that image; or the pseudo directory's */
  ino: number;
  /** a request was interrupted: halves of its `unique` */
  interrupt: ((low: number, high: number) => void) | undefined;
  /** the image at a backend index, if it is one */
  imageAt(index: number): ServedImage | undefined;
  /** the shared directory at a backend index, if it is one */
  directoryAt(index: number): PassthroughFs | undefined;
}

/**
 * A handler writes its payload at byte 16 of the reply.
 *
 * @returns bytes of the payload, 0 or more; minus an errno; NO_REPLY or DEFERRED
 */
export type Handler = (x: Exchange) => number;
