// Files mapped into memory, seen as ArrayBuffers without a copy: the page cache is shared with every other process.
import { openSync, closeSync, fstatSync } from 'node:fs';
import { libcFunction, loadKoffi, lastErrno, SystemError, check } from './libc.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

type Mmap = (
  addr: number,
  length: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
) => number | bigint;
type Munmap = (addr: number, length: number) => number;
type Msync = (addr: number, length: number, flags: number) => number;

let mmap: Mmap | undefined;
let munmap: Munmap | undefined;
let msync: Msync | undefined;

/** A mapped range. The bytes must not be touched after `unmap`. */
export interface Mapping {
  readonly bytes: Uint8Array;
  /** write changed pages back and wait */
  sync(): void;
  unmap(): void;
}

/** Map `length` bytes of an open file from its start; shared, so writes are seen by everybody. */
export function mapFd(fd: number, length: number, writable = false): Mapping {
  if (length === 0) return { bytes: new Uint8Array(0), sync: () => {}, unmap: () => {} };
  mmap ??= libcFunction<Mmap>(
    'uintptr_t mmap(uintptr_t addr, size_t len, int prot, int flags, int fd, int64_t off)',
  );
  const address = mmap(0, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  if (BigInt(address) === MAP_FAILED) throw new SystemError('mmap', lastErrno());
  const at = Number(address);
  const bytes = new Uint8Array(loadKoffi().view(at, length));
  return {
    bytes,
    sync: () => {
      msync ??= libcFunction<Msync>('int msync(uintptr_t addr, size_t len, int flags)');
      check('msync', msync(at, length, 4));
    },
    unmap: () => {
      munmap ??= libcFunction<Munmap>('int munmap(uintptr_t addr, size_t len)');
      check('munmap', munmap(at, length));
    },
  };
}

/** Map a whole file for reading. The descriptor is closed; the mapping stays. */
export function mapFile(path: string): Mapping {
  const fd = openSync(path, 'r');
  try {
    return mapFd(fd, fstatSync(fd).size);
  } finally {
    closeSync(fd);
  }
}
