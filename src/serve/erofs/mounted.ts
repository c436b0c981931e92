// What is mounted where, as the kernel lists it. Source: proc(5), /proc/<pid>/mountinfo.
import { readdirSync } from 'node:fs';
import { mountInfoOf } from '../fuse/mount-info.ts';

/** The superblock mounted at a path, `major:minor`, when it is an EROFS one. The newest mount counts. */
export function erofsDeviceAt(mountpoint: string): string | undefined {
  const info = mountInfoOf(mountpoint);
  return info?.type === 'erofs' ? `${info.major}:${info.minor}` : undefined;
}

/**
 * Names of the EROFS superblocks that there are, in whatever mount namespace, and also those that are only held by open files.
 * Source: Linux fs/erofs/sysfs.c; the number of a name comes from mm/backing-dev, where it only grows
 */
export function erofsSuperblocks(): string[] {
  try {
    return readdirSync('/sys/fs/erofs').filter((name) => name !== 'features');
  } catch {
    return [];
  }
}
