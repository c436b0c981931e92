// Files without a name, in memory: shared by descriptor, gone with the last one. Source: memfd_create(2).
import { check, libcFunction } from './libc.ts';

type MemfdCreate = (name: string, flags: number) => number;

const MFD_CLOEXEC = 1;

/** A new empty file, closed on exec. @param name shown in /proc/<pid>/fd, nothing more */
export function createMemfd(name: string): number {
  const create = libcFunction<MemfdCreate>('int memfd_create(const char *name, unsigned int flags)');
  return check('memfd_create', create(name, MFD_CLOEXEC), name);
}
