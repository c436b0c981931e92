// What is mounted where, as the kernel lists it. Source: proc(5), /proc/<pid>/mountinfo.
import { mountInfoOf } from '../fuse/mount-info.ts';

/** The superblock mounted at a path, `major:minor`, when it is an EROFS one. The newest mount counts. */
export function erofsDeviceAt(mountpoint: string): string | undefined {
  const info = mountInfoOf(mountpoint);
  return info?.type === 'erofs' ? `${info.major}:${info.minor}` : undefined;
}
