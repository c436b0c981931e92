// Where the records of images lie that the kernel serves; a file of its own, since each start asks.

/** Drivers whose images the kernel serves, in the order in which `auto` tries them. */
export const KERNEL_DRIVERS = ['fanotify', 'fileio'] as const;

/** One of them. */
export type KernelDriver = (typeof KERNEL_DRIVERS)[number];

const SUFFIX = { fanotify: 'guardian', fileio: 'fileio' } as const;

/** Loaded when it is needed: a daemon with an API socket never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** Where the record of a daemon lies: beside its API socket, or by the mountpoint where it has none. */
export function recordPath(
  apisock: string | undefined,
  mountpoint: string,
  driver: KernelDriver = 'fanotify',
): string {
  if (apisock !== undefined) return `${apisock}.${SUFFIX[driver]}`;
  const name = crypto().createHash('sha256').update(mountpoint).digest('hex').slice(0, 16);
  return `/run/nydusd-${name}.${SUFFIX[driver]}`;
}
