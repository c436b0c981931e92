// Anonymous memory with a known address: system calls get the address as a number, JavaScript sees an ArrayBuffer.
// A page costs nothing until it is touched. Source: mmap(2), madvise(2).
import { check, lastErrno, libcFunction, loadKoffi, SystemError } from './libc.ts';

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

type Mmap = (
  addr: number,
  length: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
) => number | bigint;

const MADV_DONTFORK = 10;

type Madvise = (addr: number, length: number, advice: number) => number;

let mmap: Mmap | undefined;
let madvise: Madvise | undefined;

/** Zeroed memory outside the JavaScript heap that lives as long as the process. */
export interface Memory {
  /** where it starts, as C sees it; page-aligned, below 2^53 */
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/**
 * Allocate memory for good: for buffers made once per thread, not per request. A child process does not inherit it: `fork` would
 * take away our right to write to its pages until each is touched, and the kernel that copies a request into such a page for a
 * process that is being killed gives up and fails the request with EIO, which a guardian is there to prevent.
 */
export function allocateMemory(length: number): Memory {
  mmap ??= libcFunction<Mmap>(
    'uintptr_t mmap(uintptr_t addr, size_t len, int prot, int flags, int fd, int64_t off)',
  );
  const result = mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (BigInt(result) === MAP_FAILED) throw new SystemError('mmap', lastErrno());
  const address = Number(result);
  madvise ??= libcFunction<Madvise>('int madvise(uintptr_t addr, size_t len, int advice)');
  check('madvise', madvise(address, length, MADV_DONTFORK));
  const buffer = loadKoffi().view(address, length);
  const bytes = new Uint8Array(buffer);
  // the first page is there before the first request comes, for the same reason
  bytes[0] = 0;
  return { address, bytes, view: new DataView(buffer) };
}
