// Positioned reads and writes by address: no exception on failure, no view object per call, straight into the target.
import { lastErrno, libcFunction } from './libc.ts';

type Pio = (fd: number, address: number, length: number, position: number) => number;
type Memmove = (target: ArrayBufferView, source: ArrayBufferView, length: number) => number | bigint;
type Fallocate = (fd: number, mode: number, offset: number, length: number) => number;
type Fadvise = (fd: number, offset: number, length: number, advice: number) => number;

const FADV_WILLNEED = 3;
/** FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of fallocate(2) */
const PUNCH_HOLE_KEEP_SIZE = 3;

let preadAt: Pio | undefined;
let pwriteAt: Pio | undefined;
let memmove: Memmove | undefined;
let fallocateRange: Fallocate | undefined;
let fadvise: Fadvise | undefined;
/** Where the memory of an ArrayBuffer lies; it never moves while the buffer lives. */
const bases = new WeakMap<ArrayBufferLike, number>();

/** Address of the first byte of a view. The view (or its buffer) must stay referenced while the address is used. */
export function addressOf(view: ArrayBufferView): number {
  const base = bases.get(view.buffer);
  if (base !== undefined) return base + view.byteOffset;
  if (view.byteLength === 0) return 0;
  memmove ??= libcFunction<Memmove>('uintptr_t memmove(void *target, void *source, size_t length)');
  const address = Number(memmove(view, view, 0));
  bases.set(view.buffer, address - view.byteOffset);
  return address;
}

/** pread(2): bytes read, 0 at end of file, or minus the errno. May be short. */
export function preadInto(fd: number, address: number, length: number, position: number): number {
  preadAt ??= libcFunction<Pio>('int64_t pread(int fd, uintptr_t address, size_t length, int64_t position)');
  const got = preadAt(fd, address, length, position);
  return got < 0 ? -lastErrno() : got;
}

/** pwrite(2): bytes written, or minus the errno. May be short. */
export function pwriteFrom(fd: number, address: number, length: number, position: number): number {
  pwriteAt ??= libcFunction<Pio>(
    'int64_t pwrite(int fd, uintptr_t address, size_t length, int64_t position)',
  );
  const put = pwriteAt(fd, address, length, position);
  return put < 0 ? -lastErrno() : put;
}

/** Read until `length` bytes, end of file or an error: bytes read, or minus the errno. */
export function preadFull(fd: number, address: number, length: number, position: number): number {
  let done = 0;
  while (done < length) {
    const got = preadInto(fd, address + done, length - done, position + done);
    if (got < 0) return got;
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Write all bytes: 0, or the errno. A full disk shows as a short write first, as ENOSPC then. */
export function pwriteFull(fd: number, address: number, length: number, position: number): number {
  let done = 0;
  while (done < length) {
    const put = pwriteFrom(fd, address + done, length - done, position + done);
    if (put < 0) return -put;
    done += put;
  }
  return 0;
}

/** Give the blocks of a range back; it reads as zeros afterwards, the length stays: 0 or the errno. */
export function punchHole(fd: number, offset: number, length: number): number {
  fallocateRange ??= libcFunction<Fallocate>(
    'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  );
  return fallocateRange(fd, PUNCH_HOLE_KEEP_SIZE, offset, length) === 0 ? 0 : lastErrno();
}

/** Reserve the blocks of `length` bytes from the start of a file, so that writing its mapping cannot fail: 0 or the errno. */
export function fallocate(fd: number, length: number): number {
  fallocateRange ??= libcFunction<Fallocate>(
    'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
  );
  return fallocateRange(fd, 0, 0, length) === 0 ? 0 : lastErrno();
}

/** Ask the kernel to read a range into the page cache; advice, so failures do not matter. */
export function willNeed(fd: number, offset: number, length: number): void {
  fadvise ??= libcFunction<Fadvise>('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)');
  fadvise(fd, offset, length, FADV_WILLNEED);
}
