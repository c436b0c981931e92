// Names of a directory as raw bytes, by getdents64(2). node:fs gives every name a buffer with memory of its own, which
// costs more than reading the directory (measured on 72,000 entries: 5.3 against 1.0 µs an entry).
import { closeSync, constants, openSync } from 'node:fs';
import { check, libcFunction } from './libc.ts';

type Syscall = (number: number, fd: number, buffer: Uint8Array, size: number) => number;

/** Number of getdents64. Source: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h */
const SYS_GETDENTS64 = process.arch === 'x64' ? 217 : 61;
/** struct linux_dirent64: u64 ino, u64 offset, u16 record length, u8 type, name. */
const RECORD_LENGTH = 16;
const NAME = 19;

let syscall: Syscall | undefined;
const scratch = Buffer.alloc(256 * 1024);

/** An open directory. */
export interface DirectoryHandle {
  readonly fd: number;
  /** names except `.` and `..`, unsorted */
  readonly names: Buffer[];
  close(): void;
}

/**
 * Open a directory and read all its names.
 *
 * @param path raw bytes
 * @throws an error of node:fs, or SystemError
 */
export function openDirectory(path: Buffer): DirectoryHandle {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return { fd, names: readNames(fd), close: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function readNames(fd: number): Buffer[] {
  syscall ??= libcFunction<Syscall>('int64_t syscall(int64_t number, int fd, void *buffer, size_t size)');
  const names: Buffer[] = [];
  for (;;) {
    const size = check('getdents64', syscall(SYS_GETDENTS64, fd, scratch, scratch.length));
    if (size === 0) return names;
    // One copy for all names of this read; each name is a view of it.
    const block = Buffer.from(scratch.subarray(0, size));
    for (let at = 0; at < size;) {
      const start = at + NAME;
      const end = block.indexOf(0, start);
      if (!isDots(block, start, end)) names.push(block.subarray(start, end));
      at += block.readUInt16LE(at + RECORD_LENGTH);
    }
  }
}

function isDots(block: Buffer, start: number, end: number): boolean {
  if (block[start] !== 0x2e) return false;
  return end === start + 1 || (end === start + 2 && block[start + 1] === 0x2e);
}
