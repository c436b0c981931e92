// What is mounted where, without touching it. Source: proc(5), /proc/pid/mountinfo.
import { readFileSync } from 'node:fs';

/** A line of /proc/self/mountinfo. */
export interface MountInfo {
  mountpoint: string;
  major: number;
  minor: number;
  type: string;
  source: string;
}

/** The newest mount exactly at a path, read without touching it (a dead FUSE mount blocks stat). Source: proc(5). */
export function mountInfoOf(mountpoint: string): MountInfo | undefined {
  return newestAt(mountpoint, () => true);
}

/** The newest FUSE mount at a path, also when something else lies over it: a writable layer for instance. */
export function fuseMountOf(mountpoint: string): MountInfo | undefined {
  return newestAt(mountpoint, ({ type }) => type.startsWith('fuse'));
}

function newestAt(mountpoint: string, isWanted: (info: MountInfo) => boolean): MountInfo | undefined {
  let found: MountInfo | undefined;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    const path = (fields[4] ?? '').replace(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(parseInt(octal, 8)),
    );
    if (path !== mountpoint) continue;
    const [major, minor] = (fields[2] ?? '').split(':').map(Number);
    const [type = '', source = ''] = fields.slice(fields.indexOf('-') + 1);
    const info = { mountpoint, major: major ?? 0, minor: minor ?? 0, type, source };
    if (isWanted(info)) found = info;
  }
  return found;
}
