// The one place that loads the C library. Functions are looked up on first use: koffi costs 5 ms to load.
// Pointers are plain numbers (uintptr_t). A call returns what C returns; errno is read right after by failed().
import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';
import { errnoName } from '../base/errno.ts';

const require = createRequire(import.meta.url);
let koffi: ReturnType<typeof loadKoffi> | undefined;
let library: { func(prototype: string): (...args: unknown[]) => unknown } | undefined;

/**
 * The addon of koffi without the JavaScript around it, which looks for the addon, wraps what we do not use, and costs every
 * thread four times what the addon does (measured: 18 ms against 4).
 */
function loadAddon(): typeof Koffi | undefined {
  const { arch } = process;
  try {
    return require(`@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`) as typeof Koffi;
  } catch {
    return undefined; // koffi may keep it elsewhere: it finds it
  }
}

/** The koffi module; of its functions those that the addon has: `load`, `view`, `errno`. */
export function loadKoffi(): Pick<typeof Koffi, 'load' | 'view' | 'errno'> {
  koffi ??= loadAddon() ?? (require('koffi') as typeof Koffi);
  return koffi;
}

/**
 * A C library function.
 *
 * @param prototype C prototype as koffi parses it; use `int64_t` for ssize_t and off_t, `uintptr_t` for pointers
 */
export function libcFunction<T extends (...args: never[]) => unknown>(prototype: string): T {
  library ??= loadKoffi().load('libc.so.6') as unknown as NonNullable<typeof library>;
  return library.func(prototype) as unknown as T;
}

/** errno of the last call made on this thread. */
export function lastErrno(): number {
  return loadKoffi().errno();
}

/** A failed system call. `code` is the errno name, as in errors of node:fs. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, detail = '') {
    super(`${errnoName(errno)}: ${syscall}${detail === '' ? '' : ` ${detail}`}`);
    this.name = 'SystemError';
    this.code = errnoName(errno);
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** Throw when a call returned a negative number; otherwise give the number back. */
export function check(syscall: string, result: number, detail = ''): number {
  if (result < 0) throw new SystemError(syscall, lastErrno(), detail);
  return result;
}
