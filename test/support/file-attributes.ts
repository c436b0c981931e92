// System calls that build source trees exactly: raw byte paths, nanosecond times, sockets. Source: utimensat(2), mknod(2).
import { chmodSync, lchownSync } from 'node:fs';
import { check, libcFunction } from '../../src/native/libc.ts';

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const S_IFSOCK = 0o140000;

type Utimensat = (dir: number, path: Uint8Array, times: Uint8Array, flags: number) => number;
type Mknod = (path: Uint8Array, mode: number, dev: number) => number;
type Lchown = (path: Uint8Array, uid: number, gid: number) => number;

let utimensat: Utimensat | undefined;
let mknod: Mknod | undefined;
let lchown: Lchown | undefined;

function cString(path: Uint8Array): Buffer {
  return Buffer.concat([path, Buffer.of(0)]);
}

/** Set access and modification time, links not followed. @param seconds may be negative */
export function setTimes(path: Uint8Array, seconds: number, nanoseconds = 0): void {
  utimensat ??= libcFunction<Utimensat>('int utimensat(int dir, void *path, void *times, int flags)');
  const times = Buffer.alloc(32);
  for (const at of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), at);
    times.writeBigInt64LE(BigInt(nanoseconds), at + 8);
  }
  check('utimensat', utimensat(AT_FDCWD, cString(path), times, AT_SYMLINK_NOFOLLOW), path.toString());
}

/** A Unix socket without anybody behind it; 0755 as bind(2) would make it under umask 022. */
export function makeSocket(path: Uint8Array): void {
  mknod ??= libcFunction<Mknod>('int mknod(void *path, uint32_t mode, uint64_t dev)');
  check('mknod', mknod(cString(path), S_IFSOCK | 0o755, 0), path.toString());
}

/** Owner, links not followed. Both ids up to 4294967294, which node:fs refuses. */
export function chownBytes(path: Uint8Array, uid: number, gid: number): void {
  if (uid < 0x7fff_ffff && gid < 0x7fff_ffff) return lchownSync(Buffer.from(path), uid, gid);
  lchown ??= libcFunction<Lchown>('int lchown(void *path, uint32_t uid, uint32_t gid)');
  check('lchown', lchown(cString(path), uid, gid), path.toString());
}

/** Permission bits. */
export function chmodBytes(path: Uint8Array, mode: number): void {
  chmodSync(Buffer.from(path), mode);
}
