// Mounting and unmounting, and a second channel to a FUSE mount.
// Source: mount(2), umount2(2), include/uapi/linux/fuse.h FUSE_DEV_IOC_CLONE.
import { check, libcFunction } from './libc.ts';

export const MS_RDONLY = 0x1;
export const MS_NOSUID = 0x2;
export const MS_NODEV = 0x4;
export const MS_NOATIME = 0x400;
export const MNT_DETACH = 0x2;

/** _IOR(229, 0, uint32_t) */
const FUSE_DEV_IOC_CLONE = 0x8004_e500;

type Mount = (source: string, target: string, type: string, flags: number, data: string) => number;
type Umount = (target: string, flags: number) => number;
type Ioctl = (fd: number, request: number, argument: Uint8Array) => number;

let mountCall: Mount | undefined;
let umountCall: Umount | undefined;
let ioctlCall: Ioctl | undefined;

/** mount(2). SystemError on failure. */
export function mount(source: string, target: string, type: string, flags: number, data: string): void {
  mountCall ??= libcFunction<Mount>(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  );
  check('mount', mountCall(source, target, type, flags, data), target);
}

/** umount2(2). SystemError on failure: EINVAL = nothing is mounted there. */
export function unmount(target: string, flags = 0): void {
  umountCall ??= libcFunction<Umount>('int umount2(const char *target, int flags)');
  check('umount2', umountCall(target, flags), target);
}

/** Make a freshly opened /dev/fuse a further channel of the connection behind another one. */
export function cloneFuseChannel(fresh: number, session: number): void {
  ioctlCall ??= libcFunction<Ioctl>('int ioctl(int fd, unsigned long request, void *arg)');
  const argument = Buffer.alloc(4);
  argument.writeUInt32LE(session);
  check('ioctl', ioctlCall(fresh, FUSE_DEV_IOC_CLONE, argument), 'FUSE_DEV_IOC_CLONE');
}
