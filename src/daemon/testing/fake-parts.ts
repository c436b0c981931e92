// A filesystem side in memory for the tests of the daemon: remembers what was asked of it.
import type {
  AttachOptions,
  DaemonParts,
  FsCounters,
  Handover,
  ImageInstance,
  InflightOp,
  MountSession,
  MountTarget,
} from '../parts.ts';

export const ZERO_COUNTERS: FsCounters = {
  nr_opens: 0,
  data_read: 0,
  block_count_read: [0, 0, 0, 0, 0, 0, 0, 0],
  fop_hits: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  fop_errors: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  fop_cumulative_latency_total: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  read_latency_dist: [0, 0, 0, 0, 0, 0, 0, 0],
};

const NO_IMAGE: ImageInstance['image'] = {
  super: {
    version: 5,
    flags: 0,
    chunkSize: 4096,
    compressor: 'none',
    digester: 'blake3',
    explicitUidGid: false,
    hasXattr: false,
    inodesCount: 1,
    blockSize: 4096,
  },
  bytes: new Uint8Array(8192),
};

export interface FakeInstance extends ImageInstance {
  bootstrap: string;
}

export interface FakeParts extends DaemonParts<FakeInstance> {
  /** calls in order */
  readonly log: string[];
  attached: AttachOptions | undefined;
  busy: InflightOp[];
  /** what `open` throws */
  openError: unknown;
  /** what `attach` throws */
  attachError: unknown;
  /** what the session hands over */
  handover: Handover | undefined;
  /** the kernel's side of the mount goes away */
  kernelUnmounts(): void;
}

/** The root is not named: most tests use nothing else. */
function at(mountpoint: string): string {
  return mountpoint === '/' ? '' : ` at ${mountpoint}`;
}

function named(target: MountTarget<FakeInstance>): string {
  return target.kind === 'rafs' ? target.instance.bootstrap : target.directory.source;
}

/** Fresh parts. */
export function fakeParts(): FakeParts {
  const log: string[] = [];
  const ended = Promise.withResolvers<void>();
  const session: MountSession<FakeInstance> = {
    ended: ended.promise,
    attach: async (mountpoint, target, options) => {
      if (parts.attachError !== undefined) throw parts.attachError;
      log.push(`attach ${named(target)}${at(mountpoint)}`);
      parts.attached = options;
    },
    replace: async (mountpoint, target, options) => {
      log.push(`replace ${named(target)}${at(mountpoint)}`);
      parts.attached = options;
      return { retired: Promise.resolve() };
    },
    detach: async (mountpoint) => void log.push(`detach${at(mountpoint)}`),
    stop: async () => void log.push('stop'),
    unmount: async () => void log.push('unmount'),
    counters: () => ZERO_COUNTERS,
    files: () => ({ '128': { total_fops: 1 } }),
    pattern: () => [{ ino: 7, nr_read: 1, first_access_time_secs: 1, first_access_time_nanos: 2 }],
    takeLatest: () => [[7]],
    inflight: () => parts.busy,
    handover: () => parts.handover,
    restore: ({ mountpoint, index }, target) =>
      void log.push(`restore ${named(target)}${at(mountpoint)} as ${index}`),
    resume: async () => void log.push('resume'),
    drain: async (policy) => void log.push(`drain ${policy}`),
    setWireLog: (on) => void log.push(`wire log ${on ? 'on' : 'off'}`),
  };
  const parts: FakeParts = {
    log,
    attached: undefined,
    busy: [],
    handover: undefined,
    openError: undefined,
    attachError: undefined,
    kernelUnmounts: () => ended.resolve(),
    mount: async ({ mountpoint, serveOpen }) => {
      log.push(`mount ${mountpoint}${serveOpen ? ' with open' : ''}`);
      return session;
    },
    adopt: async ({ mountpoint }) => {
      log.push(`adopt ${mountpoint}`);
      return session;
    },
    share: async (source) => {
      if (parts.openError !== undefined) throw parts.openError;
      log.push(`share ${source}`);
      return { source, close: () => void log.push(`close ${source}`) };
    },
    open: async ({ bootstrap }) => {
      if (parts.openError !== undefined) throw parts.openError;
      log.push(`open ${bootstrap}`);
      return {
        bootstrap,
        image: NO_IMAGE,
        metrics: () => ({ backend: { backend_type: 'localfs' }, blobcache: { total: 0 } }),
        startPrefetch: (list) => void log.push(`prefetch ${list?.join(',') ?? 'by image'}`),
        close: async () => void log.push(`close ${bootstrap}`),
      };
    },
  };
  return parts;
}
