// Where the record of a guardian lies; a file of its own, since each start asks.

/** Loaded when it is needed: a daemon that serves what is local never does. */
function crypto(): typeof import('node:crypto') {
  return process.getBuiltinModule('node:crypto');
}

/** Where the record of a daemon lies: beside its API socket, or by the mountpoint where it has none. */
export function keeperPath(apisock: string | undefined, mountpoint: string): string {
  if (apisock !== undefined) return `${apisock}.failover`;
  const name = crypto().createHash('sha256').update(mountpoint).digest('hex').slice(0, 16);
  return `/run/nydusd-${name}.failover`;
}
