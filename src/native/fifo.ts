// Named pipes. Source: mkfifo(3).
import { check, libcFunction } from './libc.ts';

type Mkfifo = (path: string, mode: number) => number;

let call: Mkfifo | undefined;

/** Make a named pipe. SystemError EEXIST when the path is taken. */
export function makeFifo(path: string, mode: number): void {
  call ??= libcFunction<Mkfifo>('int mkfifo(const char *path, uint32_t mode)');
  check('mkfifo', call(path, mode), path);
}
