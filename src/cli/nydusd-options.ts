// Options of `nydusd` and `nydusd fuse`, which are one table. Source: nydusd.md 1.3-1.5, golden cli/.
import type { Options } from './command.ts';

export const MAX_FUSE_THREADS = 1024;

function checkThreads(text: string): string | undefined {
  if (!/^\+?\d+$/.test(text) || !Number.isSafeInteger(Number(text))) {
    return `invalid thread number configuration: ${text}`;
  }
  const threads = Number(text);
  if (threads >= 1 && threads <= MAX_FUSE_THREADS) return undefined;
  return `invalid thread number ${threads}, valid range: [1-${MAX_FUSE_THREADS}]`;
}

export const fuseOptions = {
  apisock: { type: 'string', short: 'A', help: 'Unix socket on which the HTTP API listens' },
  mountpoint: { type: 'string', short: 'M', required: true, help: 'existing directory to mount at' },
  config: {
    type: 'string',
    short: 'C',
    conflicts: ['localfs-dir'],
    help: 'configuration file: JSON with comments, or TOML',
  },
  'failover-policy': {
    type: 'string',
    values: ['none', 'resend', 'flush'],
    help: 'what happens to requests in flight when another daemon takes over; default: resend; given, and without --supervisor, the mount outlives a crash',
  },
  'fuse-threads': {
    type: 'string',
    default: '4',
    aliases: ['thread-num'],
    check: checkThreads,
    help: 'threads that answer requests of the kernel',
  },
  driver: {
    type: 'string',
    values: ['auto', 'fuse', 'fileio', 'fanotify'],
    help: 'who serves the image: fuse, or the kernel itself; default: what the configuration says, else fuse',
  },
  'detach-when-complete': {
    type: 'flag',
    help: 'end once everything is local, and leave the mount to the kernel (drivers fanotify, auto)',
  },
  id: {
    type: 'string',
    requires: ['supervisor'],
    help: 'instance id, together with --supervisor',
  },
  'log-level': {
    type: 'string',
    short: 'l',
    default: 'info',
    values: ['trace', 'debug', 'info', 'warn', 'error'],
    help: 'least severe messages that are logged',
  },
  writable: {
    type: 'flag',
    help: 'mount read-write: for shared directories, and for images with an overlay in their configuration',
  },
  bootstrap: {
    type: 'string',
    short: 'B',
    conflicts: ['shared-dir'],
    help: 'metadata of the image to serve',
  },
  'log-file': { type: 'string', short: 'L', help: 'append the log to this file instead of stderr' },
  'localfs-dir': {
    type: 'string',
    short: 'D',
    conflicts: ['config'],
    help: 'directory with the blobs, used as cache as well; instead of --config',
  },
  'log-rotation-size': {
    type: 'string',
    default: '0',
    help: 'MiB after which the log file is set aside and compressed; 0 never',
  },
  'rlimit-nofile': {
    type: 'string',
    default: '1000000',
    help: 'limit of open files to ask for; 0 leaves it alone',
  },
  'shared-dir': {
    type: 'string',
    short: 's',
    help: 'serve a plain directory instead of an image; read-only without --writable',
  },
  'prefetch-files': {
    type: 'string',
    requires: ['bootstrap'],
    help: 'text file with the paths to fetch ahead, one a line',
  },
  supervisor: {
    type: 'string',
    requires: ['id'],
    help: 'Unix socket of a supervisor, together with --id',
  },
  'virtual-mountpoint': {
    type: 'string',
    short: 'm',
    default: '/',
    help: 'where inside the mount the image or directory appears',
  },
  upgrade: { type: 'flag', help: 'start without mounting and wait for takeover' },
  'dedup-db': {
    type: 'string',
    value: 'FILE',
    help: 'database of the chunks that caches of this node have: what one has is copied instead of fetched',
  },
} as const satisfies Options;
