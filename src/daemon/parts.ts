// What the daemon needs of the filesystem side, as interfaces: the real ones come from serve/ and rafs/, loaded when the
// daemon starts; tests bring their own.
import type { Logger } from '../base/log.ts';
import type { RafsImage } from '../format/image.ts';
import type { Inheritance } from '../serve/erofs/left.ts';
import type { ConfigV2, DriverChoice } from '../storage/config.ts';

/** Counters of the operations of one mount. Source: nydusd.md 6.1. */
export interface FsCounters {
  nr_opens: number;
  data_read: number;
  block_count_read: readonly number[];
  fop_hits: readonly number[];
  fop_errors: readonly number[];
  fop_cumulative_latency_total: readonly number[];
  read_latency_dist: readonly number[];
}

/** One busy worker. Source: nydusd.md 6.5. `inode` and `unique` may exceed 2^53. */
export interface InflightOp {
  inode: number | bigint;
  opcode: number;
  unique: number | bigint;
  timestamp_secs: number;
}

/** Per-operation accounting that costs something: on only when a configuration asks for it. */
export interface Accounting {
  files: boolean;
  pattern: boolean;
  latest: boolean;
}

/** An image with its storage, ready to be served. */
export interface ImageInstance {
  readonly image: Pick<RafsImage, 'super' | 'bytes'>;
  /** counters as nydusd.md 6.3 and 6.4 spell them */
  metrics(): { backend: object; blobcache: object };
  /** fetch ahead of the readers, in the background; paths, or what the image itself lists */
  startPrefetch(list?: readonly string[]): void;
  /** change a setting of the backend (nydusd.md 5.8) for the requests to come */
  configure?(setting: string, value: string): void;
  close(): Promise<void>;
}

export interface AttachOptions {
  enableXattr: boolean;
  /** seconds since 1970, shown as the time of inodes without one */
  mountedAtSec: number;
  accounting: Accounting;
  /** who is to serve it, as its configuration has it */
  driver?: DriverChoice | undefined;
  /** a writable layer over it */
  overlay?: { upperDir: string; workDir: string } | undefined;
}

/** A plain directory that is served. */
export interface SharedDirectory {
  readonly source: string;
  /** no thread may serve it any more */
  close(): void;
}

/** What is shown at a mountpoint. */
export type MountTarget<I extends ImageInstance = ImageInstance> =
  { kind: 'rafs'; instance: I } | { kind: 'passthrough'; directory: SharedDirectory };

/** Who serves a mount. */
export interface DriverInfo {
  name: 'fuse' | 'fileio' | 'fanotify';
  /** drivers that were tried before it, each with what is wrong */
  fallbacks: string[];
  /** places inside a FUSE mount that the kernel serves by itself */
  mounts?: Record<string, 'fileio' | 'fanotify'>;
}

/** Where something is mounted, in the kernel's eyes. */
export interface HandoverPlace {
  mountpoint: string;
  index: number;
  generation: number;
}

/** What was agreed with the kernel, and how its numbers go on. */
export interface HandoverConnection {
  /** INIT flags, `flags2` above */
  offered: bigint;
  agreed: bigint;
  directories: readonly { ino: number; parent: number; name: string }[];
  next: { index: number; ino: number };
}

/** What a session leaves to the next daemon. */
export interface Handover extends HandoverConnection {
  /** belongs to the session */
  fd: number;
  serveOpen: boolean;
  places: readonly HandoverPlace[];
  /** name below /sys/fs/fuse/connections */
  connectionId: number;
  /** what the kernel serves inside the mount: a supervisor gets it with `fd` in one descriptor */
  kernel?: readonly Inheritance[];
}

/** What happens to requests that a daemon before has read and not answered. */
export type FailoverPolicy = 'none' | 'resend' | 'flush';

/** A kernel mount with its workers; mountpoints are places inside it. */
export interface MountSession<I extends ImageInstance = ImageInstance> {
  /** show something where nothing is */
  attach(mountpoint: string, target: MountTarget<I>, options: AttachOptions): Promise<void>;
  /** show something else; kernel caches of what was there are dropped. `retired`: it is not used any more */
  replace(
    mountpoint: string,
    target: MountTarget<I>,
    options: AttachOptions,
  ): Promise<{ retired: Promise<void> }>;
  /** show an empty directory again; kernel caches are dropped */
  detach(mountpoint: string): Promise<void>;
  /** end the workers, leave the mount */
  stop(): Promise<void>;
  /** end the workers and unmount */
  unmount(): Promise<void>;
  /** settles when nothing is mounted any more, whoever unmounted it */
  readonly ended: Promise<void>;
  counters(mountpoint: string): FsCounters;
  /** per inode, as nydusd.md 6.2 spells it */
  files(mountpoint: string): unknown;
  pattern(mountpoint: string): unknown;
  takeLatest(mountpoint: string): unknown;
  inflight(): readonly InflightOp[];
  /** switch the log line per operation */
  setWireLog(on: boolean): void;
  /** what the next daemon needs; undefined before the kernel was answered, absent where there is no handing over */
  readonly handover?: (() => Handover | undefined) | undefined;
  /** show again what the daemon before has shown; before `resume` */
  restore?(place: HandoverPlace, target: MountTarget<I>, options: AttachOptions): void;
  /** begin to serve what was taken over */
  resume?(): Promise<void>;
  /** deal with what the daemon before has read and not answered; never fails */
  drain?(policy: FailoverPolicy): Promise<void>;
  /** present when a driver was chosen */
  readonly driver?: DriverInfo | undefined;
}

export interface SessionOptions {
  mountpoint: string;
  threads: number;
  /** who serves the mount; default fuse */
  driver?: DriverChoice | undefined;
  /** end, leaving a mount of the kernel, once everything is local */
  detachWhenComplete?: boolean | undefined;
  /** who is to serve images that come by API, where the command line says so */
  driverOfMounts?: DriverChoice | undefined;
  /** what a successor is found by */
  apisock?: string | undefined;
  /** answer OPEN and OPENDIR instead of telling the kernel not to send them */
  serveOpen: boolean;
  /** let whoever comes wait until something is attached */
  hold: boolean;
  /** mount read-write */
  writable?: boolean;
  /** another process may hold the connection: nothing that was read is lost with this one */
  outlive?: boolean;
  logger: Logger;
  /** called once the workers are starting: this thread has time for other things until they are ready */
  whileStarting?: () => void;
}

export interface InstanceOptions {
  bootstrap: string;
  config: ConfigV2;
  id: string;
  logger: Logger;
  /** database of the chunks that caches of this node have */
  dedupDb?: string | undefined;
}

/** How the daemon gets at the filesystem side. */
export interface DaemonParts<I extends ImageInstance = ImageInstance> {
  mount(options: SessionOptions): Promise<MountSession<I>>;
  /** go on with a mount of another daemon. @param fd the session's once this returns */
  adopt(options: SessionOptions, fd: number, before: HandoverConnection): Promise<MountSession<I>>;
  open(options: InstanceOptions): Promise<I>;
  /** open the database of chunks; it stays open until the result is called. UsageError when it cannot be opened */
  openDedup?(path: string, logger: Logger): Promise<() => void>;
  /** get a directory ready to be served */
  share(source: string): Promise<SharedDirectory>;
}
